"""Ready says what is so now: when something that was needed goes, at once, and without polls.

That it takes no second is in test_converge (W4), as is a peer that comes late; a Secret that is
rotated is in test_references.
"""

from typing import Any

import pytest

from kaos import api
from kaos.local import gateway_api
from kaos.runtime import DEPLOYMENT, HTTP_ROUTE
from tests.unit.reconcilers.conftest import running
from tests.unit.reconcilers.harness import ECHO, Cluster, lacks, ready, says

AGENT = {"modelAPI": "ollama"}
PEER = {**AGENT, "agentNetwork": {"access": ["peer"]}}
NEEDS: list[tuple[dict[str, Any], type[api.Workload], str, str]] = [
    (AGENT, api.ModelAPI, "ollama", "modelapi-ollama"),
    ({**AGENT, "mcpServers": ["echo"]}, api.MCPServer, "echo", "mcpserver-echo"),
    (PEER, api.Agent, "peer", "peer"),
]


@pytest.mark.parametrize(("spec", "kind", "name", "deployment"), NEEDS)
async def test_ready_goes_with_what_is_needed_and_comes_back(
    cluster: Cluster, spec: dict[str, Any], kind: type[api.Workload], name: str, deployment: str
) -> None:
    await cluster.ready_model()
    if kind is api.MCPServer:
        await cluster.apply("MCPServer", "echo", ECHO)
        await cluster.roll_out("mcpserver-echo")
    if kind is api.Agent:
        await cluster.apply("Agent", "peer", AGENT)
        await cluster.roll_out("peer")
    await cluster.apply("Agent", "one", spec)
    await cluster.roll_out("one")
    await cluster.eventually(api.Agent, "one", ready)
    pods = (await cluster.read(DEPLOYMENT, "one")).metadata.generation

    await cluster.roll_out(deployment, available=0)
    lost = await cluster.eventually(api.Agent, "one", lambda a: not ready(a))
    assert lost.status["message"].startswith(f'{kind.KIND} "{name}" is not ready: ')
    await cluster.roll_out(deployment)
    await cluster.eventually(api.Agent, "one", ready)

    await cluster.delete(kind, name)
    lost = await cluster.eventually(api.Agent, "one", lambda a: not ready(a))
    assert lost.status["phase"] == "Waiting"
    assert lost.status["message"] == f'{kind.KIND} "{name}" does not exist'
    assert (await cluster.read(DEPLOYMENT, "one")).metadata.generation == pods
    assert not cluster.passes("requeue_after")


async def test_a_pod_that_fails_is_told_at_once_and_a_deleted_deployment_is_made_again(
    cluster: Cluster,
) -> None:
    await cluster.ready_model()
    await cluster.apply("Agent", "one", AGENT)
    await cluster.roll_out("one")
    await cluster.eventually(api.Agent, "one", ready)

    await cluster.roll_out("one", available=0)
    await cluster.eventually(api.Agent, "one", lacks("Available"))
    await cluster.roll_out("one")
    await cluster.eventually(api.Agent, "one", ready)

    before = await cluster.read(DEPLOYMENT, "one")
    await cluster.delete(DEPLOYMENT, "one")
    await cluster.eventually(api.Agent, "one", lambda a: not ready(a))
    await cluster.eventually(DEPLOYMENT, "one", lambda d: d.uid != before.uid)
    assert not cluster.passes("requeue_after")


async def test_a_gateway_api_that_is_installed_later_gets_its_routes() -> None:
    async with running(gateway=False) as cluster:
        await cluster.ready_model()
        await cluster.apply("Agent", "one", AGENT)
        await cluster.roll_out("one")
        routed = says("Routed", "GatewayAPIMissing")
        await cluster.eventually(api.Agent, "one", lambda found: routed(found) and ready(found))

        for definition in gateway_api.crds():
            await cluster.install(definition)

        await cluster.eventually(HTTP_ROUTE, "one", lambda _: True)
        await cluster.eventually(api.Agent, "one", says("Routed", "RoutePending"))


async def test_who_lost_its_name_says_nothing_of_what_is_somebody_elses(cluster: Cluster) -> None:
    """Its Routed was that of the other's route, and it lacked a Secret that was long there."""
    await cluster.ready_model()
    await cluster.apply("Agent", "modelapi-x", AGENT)
    await cluster.eventually(HTTP_ROUTE, "modelapi-x", lambda _: True)
    taken = {"type": "Accepted", "status": "True", "reason": "Accepted", "message": ""}
    taken["lastTransitionTime"] = "2026-11-23T00:00:00Z"
    parent = {"parentRef": {"name": "g"}, "controllerName": "x/y", "conditions": [taken]}
    await cluster.patch(HTTP_ROUTE, "modelapi-x", {"status": {"parents": [parent]}}, "status")
    await cluster.eventually(api.Agent, "modelapi-x", says("Routed", "RouteAccepted"))

    key = {"valueFrom": {"secretKeyRef": {"name": "key", "key": "k"}}}
    config = {"models": ["m"], "apiBase": "http://up.test/v1", "apiKey": key}
    await cluster.apply("ModelAPI", "x", {"mode": "Proxy", "proxyConfig": config})
    told = await cluster.eventually(api.ModelAPI, "x", says("Accepted", "NameConflict"))
    assert says("Routed", "RoutePending")(told)
    assert says("DependenciesReady", "DependenciesReady")(told)
