"""A server's tools are in its status, as it says when it is asked."""

from typing import Any

import pytest

from kaos import api
from kaos.api import MCPServer
from kaos.reconcilers import Settings
from kaos.reconcilers.mcp_query import CannotAsk
from kaos.reconcilers.server_tools import ServerTools, Told
from kaos.runtime import Object, Request, find_condition
from tests.unit.reconcilers.conftest import running
from tests.unit.reconcilers.harness import ECHO, Cluster, Servers

CUSTOM = {"type": "custom", "container": {"image": "x"}}
STAMP = "2026-11-22T00:00:00Z"
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
        with pytest.raises(CannotAsk, match="not asked for its tools: refused"):
            await tools.reconcile(found.key)
    assert tools.of(MCPServer.parse(found.to_dict())) == Told(
        found.uid, REMOTE["url"], [], "refused"
    )
    assert news == [found.key]  # told once


async def test_what_is_secret_in_a_url_is_neither_logged_nor_said_in_a_condition(
    cluster: Cluster,
) -> None:
    """The controller logged https://me:hunter2@…, every few minutes."""
    cluster.servers.tools["example"] = "refused"
    url = "https://me:hunter2@mcp.example:8443/mcp?key=hunter2"
    await cluster.apply("MCPServer", "far", {"type": "remote", "url": url})
    found = await cluster.eventually(api.MCPServer, "far", lambda s: "refused" in available(s))
    assert available(found).startswith("runs elsewhere; agents call https://mcp.example:8443/mcp;")
    tools = ServerTools(cluster.manager.cache, Settings(), cluster.servers.ask)
    tools.controller(lambda _: None)
    with pytest.raises(CannotAsk) as caught:
        await tools.reconcile(found.key)
    assert "hunter2" not in str(caught.value)  # which is what is logged


async def test_a_new_url_has_none_of_the_old_ones_tools(cluster: Cluster) -> None:
    cluster.servers.tools = {"mcp.example": ["old"], "other.example": "connection refused"}
    await cluster.apply("MCPServer", "far", REMOTE)
    await cluster.eventually(api.MCPServer, "far", lambda s: s.status.get("availableTools"))
    await cluster.patch(api.MCPServer, "far", {"spec": {"url": "http://other.example/mcp"}})
    found = await cluster.eventually(api.MCPServer, "far", lambda s: "refused" in available(s))
    assert "availableTools" not in found.status


class Seen:
    """What a cache has: a server that is as it should be, and the Service of its name."""

    def __init__(self, **service: Any) -> None:
        words = ("Accepted", "Available")
        said = {"status": "True", "reason": "R", "message": "m", "lastTransitionTime": STAMP}
        conditions = [{"type": word, **said} for word in words]
        metadata = {"name": "echo", "namespace": "default", "uid": "u1"}
        owner = {"apiVersion": "kaos.tools/v1alpha1", "kind": "MCPServer", "name": "echo"}
        self.server: dict[str, Any] = {
            "apiVersion": "kaos.tools/v1alpha1",
            "kind": "MCPServer",
            "metadata": metadata,
            "spec": CUSTOM,
            "status": {"conditions": conditions},
        }
        self.service: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": "mcpserver-echo",
                "namespace": "default",
                "ownerReferences": [{**owner, "uid": "u1", "controller": True}],
            },
            "spec": {"type": "ClusterIP"},
        }
        for part, change in service.items():
            self.service[part] = {**self.service[part], **change}

    def get(self, resource: Any, *_: str) -> Object:
        return Object.from_dict(self.server if resource is MCPServer else self.service)


async def asked(seen: Seen) -> int:
    servers = Servers()
    tools = ServerTools(seen, Settings(), servers.ask)  # type: ignore[arg-type]
    tools.controller(lambda _: None)
    await tools.reconcile(Request("default", "echo"))
    return len(servers.asked)


async def test_a_service_of_somebody_elses_is_not_asked() -> None:
    """It may be an ExternalName, and lead the controller where its maker cannot go."""
    assert await asked(Seen()) == 1
    assert await asked(Seen(metadata={"ownerReferences": []})) == 0
    assert await asked(Seen(spec={"type": "ExternalName"})) == 0


@pytest.mark.parametrize("word", ["Accepted", "Available"])
async def test_what_does_not_stand_is_not_asked(word: str) -> None:
    seen = Seen()
    for condition in seen.server["status"]["conditions"]:
        if condition["type"] == word:
            condition["status"] = "False"
    assert await asked(seen) == 0


async def test_what_is_being_deleted_is_not_asked() -> None:
    seen = Seen()
    seen.server["metadata"]["deletionTimestamp"] = STAMP
    assert await asked(seen) == 0
