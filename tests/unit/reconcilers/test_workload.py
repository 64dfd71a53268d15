"""Replicas, suspension and refused children, against the embedded API server."""

from typing import Any

from kaos import api
from kaos.runtime import DEPLOYMENT, SERVICE, Object
from tests.unit.reconcilers.harness import Cluster, ready, says

AGENT = {"modelAPI": "ollama"}


async def started(cluster: Cluster, **spec: Any) -> None:
    await cluster.ready_model()
    await cluster.apply("Agent", "one", {**AGENT, **spec})
    await cluster.eventually(DEPLOYMENT, "one", lambda _: True)


def replicas(number: int) -> Any:
    return lambda found: found.spec["replicas"] == number


async def poke(cluster: Cluster, number: str) -> None:
    """Cause a look at the agent that changes its children, so that an apply takes place."""
    config = {"config": {"description": f"poke {number}"}}
    await cluster.patch(api.Agent, "one", {"spec": config})

    def poked(found: Object) -> bool:
        (main,) = found.spec["template"]["spec"]["containers"]
        return {"name": "AGENT_DESCRIPTION", "value": f"poke {number}"} in main["env"]

    await cluster.eventually(DEPLOYMENT, "one", poked)


async def test_the_declared_number_is_applied_and_followed(cluster: Cluster) -> None:
    await started(cluster, replicas=2)
    await cluster.eventually(DEPLOYMENT, "one", replicas(2))
    await cluster.apply("Agent", "one", {**AGENT, "replicas": 3})
    await cluster.eventually(DEPLOYMENT, "one", replicas(3))


async def test_kubectl_scale_of_the_deployment_is_not_fought(cluster: Cluster) -> None:
    await started(cluster)
    body = {"spec": {"replicas": 4}}
    await cluster.patch(DEPLOYMENT, "one", body, "scale")

    await poke(cluster, "1")
    assert replicas(4)(await cluster.read(DEPLOYMENT, "one"))
    await poke(cluster, "2")  # not at the second look either, when nothing of it is ours any more
    assert replicas(4)(await cluster.read(DEPLOYMENT, "one"))

    await cluster.apply("Agent", "one", {**AGENT, "replicas": 2})  # declared anew: that counts
    await cluster.eventually(DEPLOYMENT, "one", replicas(2))


async def test_kubectl_scale_of_the_agent_is_a_declaration(cluster: Cluster) -> None:
    await started(cluster)
    body = {"spec": {"replicas": 3}}
    await cluster.patch(api.Agent, "one", body, "scale")
    await cluster.eventually(DEPLOYMENT, "one", replicas(3))
    agent = await cluster.eventually(api.Agent, "one", lambda a: a.status.get("selector"))
    assert agent.status["selector"] == "kaos.tools/kind=agent,kaos.tools/name=one"


async def test_a_suspended_agent_has_no_pods_and_resumes(cluster: Cluster) -> None:
    await started(cluster, replicas=2)
    await cluster.roll_out("one", replicas=2)
    await cluster.eventually(api.Agent, "one", ready)

    await cluster.apply("Agent", "one", {**AGENT, "replicas": 2, "suspend": True})

    await cluster.eventually(DEPLOYMENT, "one", replicas(0))
    agent = await cluster.eventually(api.Agent, "one", says("Available", "Suspended"))
    assert (agent.status["phase"], agent.status["ready"]) == ("Suspended", False)
    await cluster.read(SERVICE, "one")  # everything else stays

    body = {"spec": {"replicas": 1}}
    await cluster.patch(DEPLOYMENT, "one", body, "scale")
    await cluster.eventually(DEPLOYMENT, "one", replicas(0))  # firm

    await cluster.apply("Agent", "one", {**AGENT, "replicas": 2})
    await cluster.eventually(DEPLOYMENT, "one", replicas(2))


async def test_w10_a_patch_that_does_not_fit_is_said_in_accepted(cluster: Cluster) -> None:
    await started(cluster)
    await cluster.roll_out("one")
    await cluster.eventually(api.Agent, "one", ready)
    patch = {"podSpec": {"containers": [{"image": "x"}]}}
    await cluster.apply("Agent", "one", {**AGENT, **patch})

    agent = await cluster.eventually(api.Agent, "one", says("Accepted", "InvalidSpec"))

    assert agent.status["message"] == "podSpec.containers[0]: needs name, by which it is merged"
    assert agent.status["ready"] is False


async def test_a_child_that_the_server_refuses_is_told_in_the_servers_words(
    cluster: Cluster,
) -> None:
    await started(cluster)
    patch = {"podSpec": {"containers": [{"name": "sidecar"}]}}  # no image
    await cluster.apply("Agent", "one", {**AGENT, **patch})

    agent = await cluster.eventually(api.Agent, "one", says("Accepted", "Refused"))

    assert "image" in agent.status["message"]
    assert agent.status["phase"] == "Failed"

    await cluster.apply("Agent", "one", AGENT)
    await cluster.roll_out("one")
    await cluster.eventually(api.Agent, "one", ready)


async def test_a_name_that_no_service_can_have_is_refused_in_words(cluster: Cluster) -> None:
    await cluster.ready_model()
    await cluster.apply("Agent", "1st", AGENT)
    agent = await cluster.eventually(api.Agent, "1st", says("Accepted", "InvalidSpec"))
    assert "must be lower-case letters" in agent.status["message"]
