"""MCPServers of an image of the user's own, and those that run elsewhere."""

from typing import Any

import pytest

from kaos import api
from kaos.api import InvalidSpecError, MCPServer
from kaos.reconcilers.children.mcpserver import mcpserver_children
from kaos.reconcilers.settings import Settings
from kaos.runtime import DEPLOYMENT, SERVICE, Object
from tests.unit.reconcilers.harness import ECHO, Cluster, ready, says
from tests.unit.reconcilers.resources import body, by_kind, env_of

URL = "https://mcp.example.test/mcp"
REMOTE = {"type": "remote", "url": URL}


def server(**spec: Any) -> MCPServer:
    return MCPServer.parse(body("MCPServer", "tools", spec))


def test_w12_a_custom_servers_arguments_are_arguments_of_its_images_own_program() -> None:
    one = server(
        type="custom",
        container={"image": "corp/tools:1", "args": ["--port", "8000"]},
        config={"env": [{"name": "TOKEN", "value": "t"}]},
    )
    children = by_kind(mcpserver_children(one, Settings(), routes=False))
    (main,) = children["Deployment"]["spec"]["template"]["spec"]["containers"]

    assert main["image"] == "corp/tools:1"
    assert "command" not in main  # the image's own
    assert main["args"] == ["--port", "8000"]
    # Nobody knows the paths of somebody else's server.
    assert main["readinessProbe"]["tcpSocket"] == {"port": "http"}
    assert env_of(children["Deployment"])["TOKEN"] == "t"
    assert set(children) == {"Deployment", "Service", "NetworkPolicy"}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"type": "custom"}, r"type custom needs container\.image"),
        ({"type": "remote"}, "type remote needs url"),
        ({**REMOTE, "config": {"mcp": "x"}}, "are for type python-runtime, not remote"),
        ({**ECHO, "url": URL}, "url is for type remote, not python-runtime"),
        ({"type": "remote", "url": "file:///etc/passwd"}, "url"),
    ],
)
def test_what_does_not_fit_its_type_is_refused(spec: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidSpecError, match=words):
        server(**spec)


def tools_url(deployment: Object) -> str:
    (main,) = deployment.spec["template"]["spec"]["containers"]
    env = {v["name"]: v.get("value", "") for v in main["env"]}
    return str(env["MCP_SERVER_TOOLS_URL"])


async def test_a_remote_server_has_no_pods_and_says_what_is_known(cluster: Cluster) -> None:
    await cluster.ready_model()
    await cluster.apply("MCPServer", "tools", ECHO)
    await cluster.eventually(DEPLOYMENT, "mcpserver-tools", lambda _: True)
    await cluster.apply("Agent", "one", {"modelAPI": "ollama", "mcpServers": ["tools"]})
    here = await cluster.eventually(DEPLOYMENT, "one", lambda _: True)
    assert tools_url(here).startswith(f"http://mcpserver-tools.{cluster.namespace}.svc")

    await cluster.delete(api.MCPServer, "tools")
    await cluster.apply("MCPServer", "tools", REMOTE)

    found = await cluster.eventually(api.MCPServer, "tools", ready)
    assert found.status["endpoint"] == URL
    (available,) = (c for c in found.status["conditions"] if c["type"] == "Available")
    assert available["reason"] == "Remote"
    assert "nobody here has asked" in available["message"]
    await cluster.eventually(api.MCPServer, "tools", says("Routed", "NotExposed"))
    await cluster.gone(DEPLOYMENT, "mcpserver-tools")
    await cluster.gone(SERVICE, "mcpserver-tools")
    await cluster.eventually(DEPLOYMENT, "one", lambda d: tools_url(d) == URL)


async def test_a_server_that_becomes_remote_loses_its_pods(cluster: Cluster) -> None:
    await cluster.apply("MCPServer", "tools", ECHO)
    await cluster.eventually(DEPLOYMENT, "mcpserver-tools", lambda _: True)
    patch = {"spec": {"type": "remote", "url": URL, "config": None}}
    await cluster.patch(api.MCPServer, "tools", patch)
    await cluster.gone(DEPLOYMENT, "mcpserver-tools")
    await cluster.eventually(api.MCPServer, "tools", ready)
