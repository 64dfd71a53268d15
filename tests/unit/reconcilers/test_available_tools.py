"""A server's tools are in its status, as it says when it is asked."""

from typing import Any

import pytest

from kaos import api
from kaos.api import MCPServer
from kaos.reconcilers import Settings
from kaos.reconcilers.mcp_query import CannotAsk
from kaos.reconcilers.server_tools import ServerTools, Told
from kaos.runtime import Object, find_condition
from tests.unit.reconcilers.conftest import running
from tests.unit.reconcilers.harness import ECHO, Cluster

CUSTOM = {"type": "custom", "container": {"image": "x"}}
REMOTE = {"type": "remote", "url": "http://mcp.example/mcp"}


def available(obj: Object) -> str:
    found = find_condition(obj.status.get("conditions", ()), "Available")
    return str(found["message"]) if found else ""


@pytest.mark.parametrize("spec", [ECHO, CUSTOM])
async def test_w11_available_tools_are_what_the_server_says(
    cluster: Cluster, spec: dict[str, Any]
) -> None:
    cluster.servers.tools["mcpserver-echo"] = ["a", "b"]
    await cluster.apply("MCPServer", "echo", spec)
    await cluster.roll_out("mcpserver-echo")
    found = await cluster.eventually(
        api.MCPServer, "echo", lambda s: s.status.get("availableTools")
    )
    assert found.status["availableTools"] == ["a", "b"]
    assert set(cluster.servers.asked) == {(found.status["endpoint"], False)}

    # It is not forgotten while the server is away, and asked anew when it is back.
    await cluster.roll_out("mcpserver-echo", available=0)
    away = await cluster.eventually(api.MCPServer, "echo", lambda s: not s.status["ready"])
    assert away.status["availableTools"] == ["a", "b"]
    cluster.servers.tools["mcpserver-echo"] = ["c"]
    asked = len(cluster.servers.asked)
    await cluster.roll_out("mcpserver-echo")
    await cluster.eventually(
        api.MCPServer, "echo", lambda s: s.status["availableTools"] == ["c"] and s.status["ready"]
    )
    assert len(cluster.servers.asked) > asked


async def test_a_server_that_does_not_say_is_ready_and_says_why(cluster: Cluster) -> None:
    cluster.servers.tools["mcpserver-echo"] = "it asks for credentials (401)"
    await cluster.apply("MCPServer", "echo", CUSTOM)
    await cluster.roll_out("mcpserver-echo")
    found = await cluster.eventually(api.MCPServer, "echo", lambda s: "401" in available(s))
    assert available(found).endswith("; asked for its tools: it asks for credentials (401)")
    assert found.status["ready"]
    assert "availableTools" not in found.status

    cluster.servers.tools["mcpserver-echo"] = []
    found = await cluster.eventually(api.MCPServer, "echo", lambda s: "401" not in available(s))
    assert "availableTools" not in found.status


async def test_a_remote_server_is_asked_where_it_is(cluster: Cluster) -> None:
    cluster.servers.tools["mcp.example"] = ["far"]
    await cluster.apply("MCPServer", "far", REMOTE)
    found = await cluster.eventually(api.MCPServer, "far", lambda s: s.status.get("availableTools"))
    assert found.status["availableTools"] == ["far"]
    assert set(cluster.servers.asked) == {(REMOTE["url"], False)}

    cluster.servers.tools["other.example"] = "connection refused"
    await cluster.patch(api.MCPServer, "far", {"spec": {"url": "http://other.example/mcp"}})
    found = await cluster.eventually(api.MCPServer, "far", lambda s: "refused" in available(s))
    assert available(found) == (
        "runs elsewhere; agents call http://other.example/mcp;"
        " asked for its tools: connection refused"
    )
    assert found.status["ready"]


async def test_in_a_pod_no_address_inside_is_asked_for_somebody_elses_url() -> None:
    labels = {"app.kubernetes.io/name": "kaos-controller"}
    async with running(Settings(namespace="default", own_labels=labels)) as cluster:
        cluster.servers.tools["http"] = ["t"]
        await cluster.apply("MCPServer", "far", REMOTE)
        await cluster.apply("MCPServer", "near", CUSTOM)
        await cluster.roll_out("mcpserver-near")
        for name in ("far", "near"):
            await cluster.eventually(
                api.MCPServer, name, lambda s: s.status.get("availableTools") == ["t"]
            )
        assert {public for _, public in cluster.servers.asked} == {False, True}


async def test_a_new_server_of_the_same_name_has_none_of_the_old_ones_tools(
    cluster: Cluster,
) -> None:
    cluster.servers.tools["mcpserver-echo"] = ["old"]
    await cluster.apply("MCPServer", "echo", CUSTOM)
    await cluster.roll_out("mcpserver-echo")
    await cluster.eventually(api.MCPServer, "echo", lambda s: s.status.get("availableTools"))
    await cluster.delete(api.MCPServer, "echo")
    await cluster.gone(api.MCPServer, "echo")
    cluster.servers.tools["mcpserver-echo"] = "gone"
    await cluster.apply("MCPServer", "echo", CUSTOM)
    found = await cluster.eventually(api.MCPServer, "echo", lambda s: s.status.get("conditions"))
    assert "availableTools" not in found.status


async def test_a_failure_is_raised_so_that_it_is_asked_again_ever_later(cluster: Cluster) -> None:
    cluster.servers.tools["example"] = "refused"
    await cluster.apply("MCPServer", "far", REMOTE)
    found = await cluster.eventually(api.MCPServer, "far", lambda s: "refused" in available(s))
    tools = ServerTools(cluster.manager.cache, Settings(), cluster.servers.ask)
    news: list[object] = []
    tools.controller(news.append)
    for _ in range(2):
        with pytest.raises(CannotAsk, match=r"http://mcp.example/mcp was not asked .* refused"):
            await tools.reconcile(found.key)
    assert tools.of(MCPServer.parse(found.to_dict())) == Told(
        found.uid, REMOTE["url"], [], "refused"
    )
    assert news == [found.key]  # told once


async def test_what_is_being_deleted_or_not_valid_is_not_asked(cluster: Cluster) -> None:
    tools = ServerTools(cluster.manager.cache, Settings(), cluster.servers.ask)
    tools.controller(lambda _: None)
    found = await cluster.apply("MCPServer", "echo", ECHO)
    await cluster.cached(api.MCPServer, "echo")
    assert await tools.reconcile(found.key) is None  # not available
    assert cluster.servers.asked == []


async def test_a_new_url_has_none_of_the_old_ones_tools(cluster: Cluster) -> None:
    cluster.servers.tools = {"mcp.example": ["old"], "other.example": "connection refused"}
    await cluster.apply("MCPServer", "far", REMOTE)
    await cluster.eventually(api.MCPServer, "far", lambda s: s.status.get("availableTools"))
    await cluster.patch(api.MCPServer, "far", {"spec": {"url": "http://other.example/mcp"}})
    found = await cluster.eventually(api.MCPServer, "far", lambda s: "refused" in available(s))
    assert "availableTools" not in found.status


async def test_a_service_of_somebody_elses_is_not_asked(cluster: Cluster) -> None:
    """It may be an ExternalName, and lead the controller where its maker cannot go."""
    spec = {"type": "ExternalName", "externalName": "other.team.svc"}
    body = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "mcpserver-echo"}}
    await cluster.put({**body, "spec": spec})
    cluster.servers.tools["mcpserver-echo"] = ["theirs"]
    await cluster.apply("MCPServer", "echo", CUSTOM)
    found = await cluster.eventually(api.MCPServer, "echo", lambda s: s.status.get("conditions"))
    tools = ServerTools(cluster.manager.cache, Settings(), cluster.servers.ask)
    tools.controller(lambda _: None)
    assert await tools.reconcile(found.key) is None
    conditions = [{**condition, "status": "True"} for condition in found.status["conditions"]]
    await cluster.patch(api.MCPServer, "echo", {"status": {"conditions": conditions}}, "status")
    assert await tools.reconcile(found.key) is None
    assert cluster.servers.asked == []
