"""MCPServers of an image of the user's own, and those that run elsewhere."""

from typing import Any

import pytest

from kaos import api
from kaos.api import InvalidSpecError, MCPServer
from kaos.reconcilers.children.mcpserver import mcpserver_children
from kaos.reconcilers.settings import Settings
from kaos.reconcilers.workload import is_refusal
from kaos.runtime import DEPLOYMENT, SERVICE, ApiError, Object
from tests.unit.reconcilers.harness import ECHO, Cluster, ready, says
from tests.unit.reconcilers.resources import body, by_kind, env_of

URL = "https://mcp.example.test/mcp"
REMOTE = {"type": "remote", "url": URL}
TOKEN = {
    "name": "Authorization",
    "valueFrom": {"secretKeyRef": {"name": "upstream", "key": "header"}},
}


def package(name: str, type_: str = "python-runtime") -> dict[str, Any]:
    return {"type": type_, "config": {"tools": {"fromPackage": name}}}


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
        ({**REMOTE, "config": {"mcp": "x"}}, "python-runtime and node-runtime, not remote"),
        ({**ECHO, "url": URL}, "url and headers are for type remote, not python-runtime"),
        ({**ECHO, "headers": [TOKEN]}, "url and headers are for type remote, not python-runtime"),
        ({**REMOTE, "headers": [{**TOKEN, "name": "Mcp-Session-Id"}]}, "is set by the protocol"),
        ({**REMOTE, "headers": [{**TOKEN, "name": "a b"}]}, "headers.0.name"),
        (package("@corp/x"), "'@corp/x' is no name for python-runtime"),
        (package("x==1", "node-runtime"), "'x==1' is no name for node-runtime"),
        (package("../x"), "fromPackage"),
        (package("--index-url=http://evil"), "fromPackage"),
        (package("a; id"), "fromPackage"),
        ({"type": "node-runtime", "config": {"tools": {"fromString": "x"}}}, "set fromPackage"),
        ({"type": "node-runtime"}, "exactly one of mcp and tools"),
        ({"type": "remote", "url": "file:///etc/passwd"}, "url"),
    ],
)
def test_what_does_not_fit_its_type_is_refused(spec: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidSpecError, match=words):
        server(**spec)


@pytest.mark.parametrize(
    ("spec", "env"),
    [
        (package("mcp-server-time[x]==1.0"), {"MCP_PACKAGE": "mcp-server-time[x]==1.0"}),
        (
            package("@corp/tools@1.2.3", "node-runtime"),
            {"MCP_PACKAGE": "@corp/tools@1.2.3", "MCP_RUNTIME": "node"},
        ),
        (
            {"type": "node-runtime", "config": {"mcp": "corp-tools"}},
            {"MCP_BUILTIN": "corp-tools", "MCP_RUNTIME": "node"},
        ),
    ],
)
def test_a_package_has_a_folder_to_be_installed_in(
    spec: dict[str, Any], env: dict[str, str]
) -> None:
    args = ["--token", "$(TOKEN)"]
    one = server(**spec, container={"args": args})
    children = by_kind(mcpserver_children(one, Settings(image="kaos/kaos:test"), routes=False))
    pod = children["Deployment"]["spec"]["template"]["spec"]
    (main,) = pod["containers"]

    node = spec["type"] == "node-runtime"
    assert main["image"].startswith("kaos/kaos-node:") is node
    assert main["command"] == ["python", "-m", "kaos.toolserver"]
    assert main["args"] == args  # of its program, expanded as in any pod
    assert {"name": "package", "emptyDir": {}} in pod["volumes"]
    found = env_of(children["Deployment"])
    assert found["KAOS_PACKAGE_FOLDER"] == found["HOME"] == "/package"
    assert {name: found[name] for name in env} == env


def test_headers_are_files_of_a_pod_that_nobody_gets_to_through_the_gateway() -> None:
    team = {"name": "X-Team", "valueFrom": {"configMapKeyRef": {"name": "us", "key": "team"}}}
    one = server(**REMOTE, headers=[TOKEN, team])
    children = by_kind(mcpserver_children(one, Settings(), routes=True))
    assert set(children) == {"Deployment", "Service", "NetworkPolicy"}  # no HTTPRoute

    pod = children["Deployment"]["spec"]["template"]["spec"]
    volume = next(v for v in pod["volumes"] if v["name"] == "headers")
    assert volume["projected"]["sources"] == [
        {"secret": {"name": "upstream", "items": [{"key": "header", "path": "Authorization"}]}},
        {"configMap": {"name": "us", "items": [{"key": "team", "path": "X-Team"}]}},
    ]
    env = env_of(children["Deployment"])
    assert (env["MCP_URL"], env["MCP_HEADERS_FOLDER"]) == (URL, "/etc/kaos/headers")
    policy = children["NetworkPolicy"]["spec"]
    assert policy["egress"][1:] == [{"ports": [{"protocol": "TCP", "port": 443}]}]
    assert all("namespaceSelector" not in peer for peer in policy["ingress"][0]["from"])


@pytest.mark.parametrize(
    ("spec", "variable"),
    [
        ({"type": "python-runtime", "config": {"mcp": "x"}}, "MCP_BUILTIN"),
        ({"type": "python-runtime", "config": {"tools": {"fromString": "x"}}}, "MCP_TOOLS_STRING"),
        (
            {
                "type": "python-runtime",
                "config": {"tools": {"fromSecretKeyRef": {"name": "s", "key": "k"}}},
            },
            "MCP_TOOLS_STRING",
        ),
        (package("x"), "MCP_PACKAGE"),
        (package("x", "node-runtime"), "MCP_RUNTIME"),
        ({**REMOTE, "headers": [TOKEN]}, "MCP_URL"),
    ],
)
def test_what_says_which_tools_are_served_is_not_set_twice(
    spec: dict[str, Any], variable: str
) -> None:
    """The variable was there twice, and real API servers refuse that."""
    env = [{"name": variable, "value": "mine"}]
    one = server(**{**spec, "config": {**spec.get("config", {}), "env": env}})
    with pytest.raises(InvalidSpecError, match=f"spec.config.env: {variable} says which tools"):
        mcpserver_children(one, Settings(), routes=False)


def test_a_child_that_is_not_as_its_type_wants_it_is_a_refusal() -> None:
    typed = "failed to create typed patch object (default/one; apps/v1, Kind=Deployment): "
    for words in (
        '.env: duplicate entries for key [name="A"]',
        ".x: field not declared in schema",
        ".spec.template.spec.tolerations: expected list, got &{map[key:x]}",
    ):
        assert is_refusal(ApiError(500, "InternalError", typed + words))
    assert not is_refusal(ApiError(500, "InternalError", "etcd is away"))
    just_defined = typed + "no corresponding type for gateway.networking.k8s.io/v1, Kind=HTTPRoute"
    assert not is_refusal(ApiError(500, "InternalError", just_defined))


async def test_an_empty_list_of_headers_is_none(cluster: Cluster) -> None:
    """What a template writes when there are none was refused: headers are for type remote."""
    await cluster.apply("MCPServer", "echo", {**ECHO, "headers": []})
    await cluster.eventually(DEPLOYMENT, "mcpserver-echo", lambda _: True)


async def test_agents_ask_the_pod_of_a_remote_server_with_headers(cluster: Cluster) -> None:
    await cluster.ready_model()
    await cluster.apply("MCPServer", "tools", {**REMOTE, "headers": [TOKEN]})
    await cluster.apply("Agent", "one", {"modelAPI": "ollama", "mcpServers": ["tools"]})
    agent = await cluster.eventually(DEPLOYMENT, "one", lambda _: True)
    assert tools_url(agent).startswith(f"http://mcpserver-tools.{cluster.namespace}.svc")
    await cluster.eventually(DEPLOYMENT, "mcpserver-tools", lambda _: True)
    found = await cluster.eventually(
        api.MCPServer, "tools", says("DependenciesReady", "DependencyMissing")
    )
    assert found.status["message"] == 'Secret "upstream" does not exist'


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
    assert available["message"].startswith(f"runs elsewhere; agents call {URL}")
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
