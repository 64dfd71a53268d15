"""Every way out of a pass writes a status that is so: of a spec that is refused, and of a fault."""

from typing import Any

import pytest

from kaos import api
from kaos.api import InvalidSpecError
from kaos.reconcilers.children.modelapi import modelapi_children
from kaos.reconcilers.mcpserver import MCPServerReconciler
from kaos.reconcilers.settings import Settings
from kaos.runtime import DEPLOYMENT, ApplySet, Object, RuntimeFailure
from kaos.testing.waiting import eventually
from tests.unit.reconcilers.harness import ECHO, Cluster, lacks, ready, says
from tests.unit.reconcilers.resources import env_of, proxy

AGENT: dict[str, Any] = {"modelAPI": "ollama"}
COLLECTOR = {**AGENT, "config": {"telemetry": {"endpoint": "http://collector:99999"}}}


def condition(obj: Object, type_: str) -> dict[str, Any]:
    (found,) = [c for c in obj.status["conditions"] if c["type"] == type_]
    return dict(found)


async def test_a_url_that_cannot_be_called_is_told_and_not_only_logged(cluster: Cluster) -> None:
    """Ready stayed True for ever, and a new resource had no status at all."""
    await cluster.ready_model()
    await cluster.apply("Agent", "one", AGENT)
    await cluster.roll_out("one")
    await cluster.eventually(api.Agent, "one", ready)

    await cluster.apply("Agent", "one", COLLECTOR)
    await cluster.apply("MCPServer", "away", {"type": "remote", "url": "http://mcp.test:port/mcp"})

    told = await cluster.eventually(api.Agent, "one", says("Accepted", "InvalidSpec"))
    assert "port" in told.status["message"]
    await cluster.eventually(api.MCPServer, "away", says("Accepted", "InvalidSpec"))


async def test_an_agent_is_not_taken_down_by_a_servers_url(cluster: Cluster) -> None:
    await cluster.ready_model()
    await cluster.apply("MCPServer", "away", {"type": "remote", "url": "http://mcp.test:port/mcp"})
    await cluster.apply("Agent", "one", {**AGENT, "mcpServers": ["away"]})
    told = 'MCPServer "away" is not ready: spec.url: not a URL'
    await cluster.eventually(api.Agent, "one", lambda a: told in a.status.get("message", ""))
    deployment = await cluster.read(DEPLOYMENT, "one")
    assert "port" not in env_of(deployment.to_dict())["MCP_SERVER_AWAY_URL"]


def test_a_url_in_a_configuration_of_the_gateways_own_is_checked_too() -> None:
    text = "models: [{name: m, api_base: 'http://[x'}]"
    with pytest.raises(InvalidSpecError, match="fromString: api_base: not a URL: its brackets"):
        modelapi_children(proxy("m", configYaml={"fromString": text}), Settings(), routes=False)


async def test_a_fault_of_the_controllers_own_is_told_and_tried_again(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    await cluster.apply("MCPServer", "echo", ECHO)
    await cluster.roll_out("mcpserver-echo")
    before = await cluster.eventually(api.MCPServer, "echo", ready)

    def fails(*_: object) -> None:
        raise ZeroDivisionError("by\nzero")

    with monkeypatch.context() as patched:
        patched.setattr(MCPServerReconciler, "plan", fails)
        await cluster.apply("MCPServer", "echo", {**ECHO, "replicas": 2})
        told = await cluster.eventually(api.MCPServer, "echo", says("Accepted", "ReconcileFailed"))
    assert told.status["message"] == "the controller failed: ZeroDivisionError: by zero"
    assert (told.status["ready"], told.status["phase"]) == (False, "Failed")
    assert told.status["endpoint"] == before.status["endpoint"]
    assert told.status["observedGeneration"] == told.metadata.generation
    await cluster.eventually(api.MCPServer, "echo", says("Accepted", "SpecValid"))


async def test_what_a_predecessor_left_and_is_going_is_no_fault_of_the_controllers(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again a moment later; the status said "the controller failed" until then."""
    tried: list[object] = []

    async def still_going(*_: object) -> None:
        tried.append(_)
        raise RuntimeFailure("Deployment default/mcpserver-echo is still being deleted")

    with monkeypatch.context() as patched:
        patched.setattr(ApplySet, "apply", still_going)
        await cluster.apply("MCPServer", "echo", ECHO)
        await eventually(lambda: len(tried) > 1)
        told = await cluster.read(api.MCPServer, "echo")
    assert not says("Accepted", "ReconcileFailed")(told)
    await cluster.eventually(api.MCPServer, "echo", says("Accepted", "SpecValid"))


async def test_while_a_spec_is_refused_available_is_what_is_seen_and_the_rest_is_kept(
    cluster: Cluster,
) -> None:
    """Available stayed True when the pods had gone, and endpoint, selector and tools vanished."""
    cluster.servers.tools["mcpserver-echo"] = ["echo"]
    await cluster.apply("MCPServer", "echo", ECHO)
    await cluster.roll_out("mcpserver-echo")
    before = await cluster.eventually(
        api.MCPServer, "echo", lambda s: ready(s) and s.status.get("availableTools")
    )

    await cluster.apply("MCPServer", "echo", {**ECHO, "podSpec": {"containers": "x"}})
    told = await cluster.eventually(api.MCPServer, "echo", says("Accepted", "InvalidSpec"))
    assert condition(told, "Available")["status"] == "True"
    for field in ("endpoint", "selector", "replicas", "readyReplicas", "availableTools"):
        assert told.status[field] == before.status[field], field

    await cluster.roll_out("mcpserver-echo", available=0)
    gone = await cluster.eventually(api.MCPServer, "echo", lacks("Available"))
    assert condition(gone, "Accepted")["reason"] == "InvalidSpec"
    assert gone.status["readyReplicas"] == 0
    assert gone.status["availableTools"] == ["echo"]


async def test_a_remote_servers_availability_is_not_made_up_of_pods(cluster: Cluster) -> None:
    away = {"type": "remote", "url": "http://mcp.test/mcp"}
    await cluster.apply("MCPServer", "away", away)
    await cluster.eventually(api.MCPServer, "away", ready)
    await cluster.apply("MCPServer", "away", {**away, "url": "http://mcp.test:99999/mcp"})
    told = await cluster.eventually(api.MCPServer, "away", says("Accepted", "InvalidSpec"))
    assert condition(told, "Available")["reason"] == "Remote"


async def test_a_peer_that_is_not_exposed_is_told_to_its_caller(cluster: Cluster) -> None:
    """It was ready and had no Service, so every call failed and the caller was Ready."""
    await cluster.ready_model()
    await cluster.apply("Agent", "shy", {**AGENT, "agentNetwork": {"expose": False}})
    await cluster.roll_out("shy")
    await cluster.eventually(api.Agent, "shy", ready)
    await cluster.apply("Agent", "one", {**AGENT, "agentNetwork": {"access": ["shy"]}})
    await cluster.roll_out("one")
    told = await cluster.eventually(
        api.Agent, "one", says("DependenciesReady", "DependencyNotReady")
    )
    assert told.status["message"].startswith('Agent "shy" is not exposed')

    await cluster.apply("Agent", "shy", AGENT)
    await cluster.roll_out("shy")
    await cluster.eventually(api.Agent, "one", ready)
