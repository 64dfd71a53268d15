"""The reconcilers against the embedded API server: what they write, and when."""

import asyncio

from kaos import api
from kaos.runtime import DEPLOYMENT, HTTP_ROUTE, SERVICE, Object
from tests.unit.reconcilers.harness import ECHO, HOSTED, Cluster, lacks, ready, says


async def test_a_model_api_and_its_agent_become_ready(cluster: Cluster) -> None:
    await cluster.ready_model()
    await cluster.apply("Agent", "assistant", {"modelAPI": "ollama"})
    await cluster.eventually(api.Agent, "assistant", lacks("Available"))
    await cluster.roll_out("assistant")

    agent = await cluster.eventually(api.Agent, "assistant", ready)

    assert agent.status["phase"] == "Ready"
    assert agent.status["model"] == "smollm2:135m"
    host = f"assistant.{cluster.namespace}.svc.cluster.local"
    assert agent.status["endpoint"] == f"http://{host}"
    assert agent.status["observedGeneration"] == agent.metadata.generation


async def test_w8_nothing_has_a_finalizer_so_deleting_needs_no_controller(
    cluster: Cluster,
) -> None:
    await cluster.ready_model()
    await cluster.apply("MCPServer", "echo", ECHO)
    await cluster.apply("Agent", "assistant", {"modelAPI": "ollama", "mcpServers": ["echo"]})
    await cluster.eventually(api.Agent, "assistant", lambda a: a.status)
    await cluster.eventually(api.MCPServer, "echo", lambda s: s.status)
    for model, name in ((api.ModelAPI, "ollama"), (api.MCPServer, "echo")):
        assert (await cluster.read(model, name)).metadata.finalizers == []
    deployment = await cluster.eventually(DEPLOYMENT, "assistant", lambda _: True)
    assert deployment.metadata.finalizers == []
    agent = await cluster.read(api.Agent, "assistant")
    assert agent.metadata.finalizers == []


async def test_children_go_with_their_owner_and_a_namesake_gets_its_own(cluster: Cluster) -> None:
    await cluster.ready_model()
    await cluster.apply("Agent", "assistant", {"modelAPI": "ollama"})
    await cluster.roll_out("assistant")
    await cluster.eventually(api.Agent, "assistant", ready)
    old = await cluster.read(DEPLOYMENT, "assistant")

    await cluster.delete(api.Agent, "assistant")
    again = await cluster.apply("Agent", "assistant", {"modelAPI": "ollama"})

    await cluster.eventually(DEPLOYMENT, "assistant", lambda d: d.uid != old.uid)
    await cluster.roll_out("assistant")
    await cluster.eventually(api.Agent, "assistant", ready)
    for kind in (DEPLOYMENT, SERVICE, HTTP_ROUTE):
        (owner,) = (await cluster.read(kind, "assistant")).metadata.owner_references
        assert owner.uid == again.uid

    await cluster.delete(api.Agent, "assistant")
    for kind in (DEPLOYMENT, SERVICE, HTTP_ROUTE):
        await cluster.gone(kind, "assistant")


async def test_a_missing_model_api_is_waited_for_and_named(cluster: Cluster) -> None:
    await cluster.apply("Agent", "early", {"modelAPI": "late"})
    agent = await cluster.eventually(
        api.Agent, "early", says("DependenciesReady", "DependencyMissing")
    )
    assert agent.status["phase"] == "Waiting"
    assert agent.status["message"] == 'ModelAPI "late" does not exist'

    await cluster.apply("ModelAPI", "late", HOSTED)
    await cluster.roll_out("modelapi-late")
    await cluster.roll_out("early")
    await cluster.eventually(api.Agent, "early", ready)


async def test_w2_a_peer_that_comes_late_needs_no_new_pod(cluster: Cluster) -> None:
    await cluster.ready_model()
    await cluster.apply(
        "Agent", "boss", {"modelAPI": "ollama", "agentNetwork": {"access": ["peer"]}}
    )
    await cluster.roll_out("boss")
    boss = await cluster.eventually(api.Agent, "boss", says("Available", "RolloutComplete"))
    assert 'Agent "peer" does not exist' in boss.status["message"]
    before = await cluster.read(DEPLOYMENT, "boss")

    await cluster.apply("Agent", "peer", {"modelAPI": "ollama"})
    await cluster.roll_out("peer")

    await cluster.eventually(api.Agent, "boss", ready)
    after = await cluster.read(DEPLOYMENT, "boss")
    assert after.metadata.generation == before.metadata.generation


async def test_agents_that_may_ask_each_other_both_become_ready(cluster: Cluster) -> None:
    await cluster.ready_model()
    for name, other in (("one", "two"), ("two", "one")):
        spec = {"modelAPI": "ollama", "agentNetwork": {"access": [other]}}
        await cluster.apply("Agent", name, spec)
        await cluster.roll_out(name)
    for name in ("one", "two"):
        await cluster.eventually(api.Agent, name, ready)


async def test_w4_ready_goes_when_a_dependency_goes_and_the_pod_stays(cluster: Cluster) -> None:
    await cluster.ready_model()
    await cluster.apply("MCPServer", "echo", ECHO)
    await cluster.roll_out("mcpserver-echo")
    await cluster.apply("Agent", "assistant", {"modelAPI": "ollama", "mcpServers": ["echo"]})
    await cluster.roll_out("assistant")
    await cluster.eventually(api.Agent, "assistant", ready)

    await cluster.roll_out("mcpserver-echo", available=0)

    agent = await cluster.eventually(api.Agent, "assistant", lambda a: not ready(a), seconds=1)
    assert agent.status["message"].startswith('MCPServer "echo" is not ready')
    await cluster.read(DEPLOYMENT, "assistant")  # it is still there

    await cluster.roll_out("mcpserver-echo")
    await cluster.eventually(api.Agent, "assistant", ready)


async def test_w9_what_is_turned_off_goes_away(cluster: Cluster) -> None:
    await cluster.ready_model()
    await cluster.apply("Agent", "shy", {"modelAPI": "ollama"})
    await cluster.eventually(SERVICE, "shy", lambda _: True)
    await cluster.eventually(HTTP_ROUTE, "shy", lambda _: True)

    await cluster.apply("Agent", "shy", {"modelAPI": "ollama", "agentNetwork": {"expose": False}})

    await cluster.gone(SERVICE, "shy")
    await cluster.gone(HTTP_ROUTE, "shy")
    agent = await cluster.eventually(api.Agent, "shy", says("Routed", "NotExposed"))
    assert agent.status["endpoint"] == ""


async def test_an_object_of_somebody_elses_is_left_alone(cluster: Cluster) -> None:
    await cluster.ready_model()
    mine = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "taken", "namespace": cluster.namespace},
        "spec": {"ports": [{"port": 1}]},
    }
    before = await cluster.client.create(mine)
    await cluster.apply("Agent", "taken", {"modelAPI": "ollama"})

    agent = await cluster.eventually(api.Agent, "taken", says("Accepted", "NameConflict"))

    assert agent.status["phase"] == "Failed"
    after = await cluster.read(SERVICE, "taken")
    assert after.metadata.resource_version == before.metadata.resource_version

    await cluster.delete(SERVICE, "taken")
    await cluster.eventually(SERVICE, "taken", lambda s: s.metadata.owner_references)
    await cluster.eventually(api.Agent, "taken", says("Accepted", "SpecValid"))


async def test_w7_drift_is_put_right(cluster: Cluster) -> None:
    await cluster.ready_model()
    await cluster.patch(
        DEPLOYMENT,
        "modelapi-ollama",
        {"spec": {"template": {"spec": {"automountServiceAccountToken": True}}}},
    )

    def right(found: Object) -> bool:
        return found.spec["template"]["spec"]["automountServiceAccountToken"] is False

    await cluster.eventually(DEPLOYMENT, "modelapi-ollama", right)


async def test_a_refused_spec_says_why_and_a_mended_one_recovers(cluster: Cluster) -> None:
    await cluster.ready_model()
    await cluster.apply("Agent", "picky", {"modelAPI": "ollama", "model": "gpt-x"})
    agent = await cluster.eventually(api.Agent, "picky", says("Ready", "ModelNotServed"))
    assert agent.status["phase"] == "Failed"

    await cluster.apply("Agent", "picky", {"modelAPI": "ollama", "model": "ollama/smollm2:135m"})
    await cluster.roll_out("picky")
    await cluster.eventually(api.Agent, "picky", ready)


async def test_the_oldest_agent_of_a_name_has_the_short_path(cluster: Cluster) -> None:
    here, there = cluster.namespace, cluster.elsewhere
    for namespace in (here, there):
        await cluster.apply("ModelAPI", "ollama", HOSTED, namespace)
    await cluster.apply("Agent", "dup", {"modelAPI": "ollama"})
    await cluster.eventually(HTTP_ROUTE, "dup", lambda r: len(r.spec["rules"]) == 2)
    await asyncio.sleep(1.1)  # creationTimestamp counts whole seconds
    await cluster.apply("Agent", "dup", {"modelAPI": "ollama"}, there)

    second = await cluster.eventually(
        api.Agent, "dup", says("Routed", "RouteConflict"), namespace=there
    )
    message = next(c["message"] for c in second.status["conditions"] if c["type"] == "Routed")
    assert message == f"/dup belongs to Agent {here}/dup; served at /{there}/agent/dup only"

    await cluster.delete(api.Agent, "dup")
    await cluster.eventually(
        HTTP_ROUTE, "dup", lambda r: len(r.spec["rules"]) == 2, namespace=there
    )


async def test_nothing_is_written_when_nothing_changes(cluster: Cluster) -> None:
    await cluster.ready_model()
    before = await cluster.read(api.ModelAPI, "ollama")
    label = {"metadata": {"labels": {"poke": "1"}}}  # a change that asks for a look
    poked = await cluster.patch(api.ModelAPI, "ollama", label)
    children = [
        (await cluster.read(kind, "modelapi-ollama")).metadata.resource_version
        for kind in (DEPLOYMENT, SERVICE)
    ]
    await asyncio.sleep(0.3)
    after = await cluster.read(api.ModelAPI, "ollama")
    assert after.metadata.resource_version == poked.metadata.resource_version
    assert after.metadata.generation == before.metadata.generation
    assert children == [
        (await cluster.read(kind, "modelapi-ollama")).metadata.resource_version
        for kind in (DEPLOYMENT, SERVICE)
    ]
