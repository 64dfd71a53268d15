"""Every sort of MCPServer, asked by a client of MCP; all under the `restricted` level.

Packages come from a volume, as they do where no index is to be reached: for pip a folder of wheels
(`PIP_FIND_LINKS`), for npm what its global prefix has.
"""

import asyncio
import base64
import io
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp_types import CallToolResult, TextContent

from tests.e2e.scenarios.manifests import Manifest, as_list
from tests.e2e.scenarios.targets import IMAGE, SYSTEM, Embedded, Target, eventually

PACKAGES = Path(__file__).with_name("packages")
LEVEL = "pod-security.kubernetes.io/enforce=restricted"
SOURCE = "def greet(name: str) -> str:\n    return f'$(HOME) `{name}`'\n"


@pytest.fixture
def restricted(target: Target, namespace: str) -> str:
    target.kubectl("label", "namespace", namespace, LEVEL)
    return namespace


def server(name: str, **spec: Any) -> Manifest:
    return {
        "apiVersion": "kaos.tools/v1alpha1",
        "kind": "MCPServer",
        "metadata": {"name": name},
        "spec": spec,
    }


def data(kind: str, name: str, **texts: str | bytes) -> Manifest:
    body: Manifest = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}}
    encoded = {k: base64.b64encode(v).decode() for k, v in texts.items() if isinstance(v, bytes)}
    plain = {k: v for k, v in texts.items() if isinstance(v, str)}
    return {**body, "data": encoded or plain}


def apply(target: Target, namespace: str, *manifests: Manifest) -> None:
    target.kubectl("apply", "-n", namespace, "-f", "-", stdin=as_list(*manifests))


def tools(target: Target, name: str, namespace: str) -> list[str]:
    """The tools in the status, once the server is ready and has been asked."""
    target.wait_ready("mcpserver", name, namespace)
    found: list[str] = []

    def told() -> bool:
        found[:] = target.get("mcpserver", name, namespace)["status"].get("availableTools", [])
        return bool(found)

    eventually(f"{name} tells its tools", told)
    return found


def call(target: Target, server: str, namespace: str, tool: str, **arguments: str) -> str:
    """A tool's answer."""

    async def ask(url: str) -> CallToolResult:
        async with Client(f"{url}/mcp") as client:
            return await client.call_tool(tool, dict(arguments))

    with target.port_forward(f"svc/mcpserver-{server}", 8000, namespace) as url:
        (content,) = asyncio.run(ask(url)).content
    assert isinstance(content, TextContent)
    return content.text


def test_source_stands_in_the_spec_a_secret_or_a_config_map(
    target: Target, restricted: str
) -> None:
    ref = {"name": "tools", "key": "source"}
    sources: dict[str, Any] = {
        "from-string": {"fromString": SOURCE},
        "from-secret": {"fromSecretKeyRef": ref},
        "from-config": {"fromConfigMapKeyRef": ref},
    }
    apply(
        target,
        restricted,
        data("Secret", "tools", source=SOURCE.encode()),
        data("ConfigMap", "tools", source=SOURCE),
        *(server(n, type="python-runtime", config={"tools": s}) for n, s in sources.items()),
    )
    for name in sources:
        assert tools(target, name, restricted) == ["greet"]
        assert call(target, name, restricted, "greet", name="you") == "$(HOME) `you`"


def wheel() -> bytes:
    info = "kaos_stdio_server-1.2.dist-info"
    files = {
        "stdio_server.py": (PACKAGES / "stdio_server.py").read_text(),
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: kaos-stdio-server\nVersion: 1.2\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\nkaos-stdio-server = stdio_server:main\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return made.getvalue()


def test_a_python_package_runs_with_its_arguments_and_environment(
    target: Target, restricted: str
) -> None:
    file = "kaos_stdio_server-1.2-py3-none-any.whl"
    secret = {"secretName": "wheels", "items": [{"key": "wheel", "path": file}]}
    offline = [
        {"name": "PIP_NO_INDEX", "value": "1"},
        {"name": "PIP_FIND_LINKS", "value": "/wheels"},
    ]
    mounted = {
        "volumes": [{"name": "wheels", "secret": secret}],
        "containers": [
            {"name": "mcp-server", "volumeMounts": [{"name": "wheels", "mountPath": "/wheels"}]}
        ],
    }

    def packaged(name: str, package: str) -> Manifest:
        return server(
            name,
            type="python-runtime",
            config={
                "tools": {"fromPackage": package},
                "env": [*offline, {"name": "WHO", "value": "env"}],
            },
            container={"args": ["--who", "$(WHO)", "a b; id"]},
            podSpec=mounted,
        )

    apply(
        target,
        restricted,
        data("Secret", "wheels", wheel=wheel()),
        packaged("package", "kaos-stdio-server==1.2"),
        packaged("absent", "kaos-no-such-server"),
    )
    assert tools(target, "package", restricted) == ["whoami"]
    words = json.loads(call(target, "package", restricted, "whoami"))
    assert words == ["--who", "env", "a b; id", "env"]

    def told() -> bool:
        status = target.get("mcpserver", "absent", restricted).get("status", {})
        return "kaos-no-such-server" in status.get("message", "")

    eventually("the condition names the package that is not there", told, 120)


def test_a_node_package_runs_in_the_image_that_has_node(target: Target, restricted: str) -> None:
    if isinstance(target, Embedded) and shutil.which("npm") is None:
        pytest.skip("the embedded cluster runs Node.js of this machine, which has none")
    home = "lib/node_modules/@kaos/stdio-server"
    manifest = {"name": "@kaos/stdio-server", "version": "1.2.0", "bin": "main.js"}
    items = [{"key": key, "path": f"{home}/{key}"} for key in ("package.json", "main.js")]
    node = server(
        "node",
        type="node-runtime",
        config={
            "tools": {"fromPackage": "@kaos/stdio-server@1.2.0"},
            "env": [{"name": "npm_config_prefix", "value": "/npm"}],
        },
        container={"args": ["$$(x)", "'"]},
        podSpec={
            "volumes": [{"name": "npm", "configMap": {"name": "npm", "items": items}}],
            "containers": [
                {"name": "mcp-server", "volumeMounts": [{"name": "npm", "mountPath": "/npm"}]}
            ],
        },
    )
    source = (PACKAGES / "stdio_server.js").read_text()
    files = {"package.json": json.dumps(manifest), "main.js": source}
    apply(target, restricted, data("ConfigMap", "npm", **files), node)
    assert tools(target, "node", restricted) == ["whoami"]
    assert json.loads(call(target, "node", restricted, "whoami")) == ["$(x)", "'", ""]


GUARDED = """
import asyncio
from starlette.responses import PlainTextResponse
from kaos.telemetry.serving import serve
from kaos.toolserver.server import build_app, build_server

def shout(message: str) -> str:
    return message.upper()

inner = build_app(build_server("guarded", [shout]), allowed_hosts=None)

async def app(scope, receive, send):
    shown = dict(scope.get("headers", ())).get(b"authorization")
    if scope["type"] == "http" and scope["path"] == "/mcp" and shown != b"Bearer right":
        await PlainTextResponse("who are you?", 401)(scope, receive, send)
    else:
        await inner(scope, receive, send)

asyncio.run(serve(app, listen="0.0.0.0:8000"))
"""


def test_an_image_of_ones_own_is_asked_for_its_tools(target: Target, restricted: str) -> None:
    command = ["python", "-m", "kaos.toolserver"]
    source = {"env": [{"name": "MCP_TOOLS_STRING", "value": SOURCE.replace("$(", "$$(")}]}
    locked = {"image": IMAGE, "command": ["python", "-c", GUARDED]}
    apply(
        target,
        restricted,
        server("own", type="custom", container={"image": IMAGE, "command": command}, config=source),
        server("locked", type="custom", container=locked),
    )
    assert tools(target, "own", restricted) == ["greet"]
    target.wait_ready("mcpserver", "locked", restricted)

    def told() -> bool:
        conditions = target.get("mcpserver", "locked", restricted)["status"]["conditions"]
        return any("it asks for credentials (401)" in c["message"] for c in conditions)

    eventually("Available says why there are no tools", told)


def guarded() -> list[Manifest]:
    """An MCP server that asks for a token, in a pod that is no business of KAOS's."""
    labels = {"app": "guarded-mcp"}
    security = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = {
        "name": "server",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-c", GUARDED],
        "ports": [{"name": "http", "containerPort": 8000}],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 1},
        "securityContext": security,
    }
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "guarded-mcp"},
            "spec": {"selector": {"matchLabels": labels}, "template": template},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "guarded-mcp"},
            "spec": {"selector": labels, "ports": [{"port": 8000, "targetPort": "http"}]},
        },
    ]


def test_a_remote_server_gets_its_header_from_a_secret(target: Target, restricted: str) -> None:
    header = {
        "name": "Authorization",
        "valueFrom": {"secretKeyRef": {"name": "upstream", "key": "header"}},
    }
    remote = server("remote", type="remote", url="http://guarded-mcp:8000/mcp", headers=[header])
    wrong = data("Secret", "upstream", header=b"Bearer wrong")
    apply(target, restricted, *guarded(), wrong, remote)

    def refused() -> bool:
        message = target.get("mcpserver", "remote", restricted).get("status", {}).get("message", "")
        assert "Bearer" not in message
        return "401" in message

    eventually("the condition says that the token is refused", refused, 120)
    apply(target, restricted, data("Secret", "upstream", header=b"Bearer right\n"))
    assert tools(target, "remote", restricted) == ["shout"]
    assert call(target, "remote", restricted, "shout", message="hey") == "HEY"
    assert "remote" not in str(target.names("httproutes", restricted))


def test_a_runtime_of_the_registry_is_an_image_by_name(target: Target, restricted: str) -> None:
    def runtime(**entries: Any) -> None:
        registry = data("ConfigMap", "kaos-mcp-runtimes", **{"runtimes.yaml": json.dumps(entries)})
        apply(target, SYSTEM, registry)

    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}}
    if isinstance(target, Embedded):
        target.kubectl("apply", "-f", "-", stdin=json.dumps(namespace))
    apply(target, restricted, server("named", runtime="e2e-source", params=SOURCE))

    def unknown() -> bool:
        message = target.get("mcpserver", "named", restricted).get("status", {}).get("message", "")
        return '"e2e-source" is not known' in message

    eventually("the condition says that the runtime is not known", unknown)
    command = ["python", "-m", "kaos.toolserver"]
    runtime(
        **{"e2e-source": {"image": IMAGE, "command": command, "paramsEnvVar": "MCP_TOOLS_STRING"}}
    )
    try:
        target.wait_ready("mcpserver", "named", restricted)
        assert call(target, "named", restricted, "greet", name="me") == "$(HOME) `me`"
    finally:
        target.kubectl("delete", "configmap", "kaos-mcp-runtimes", "-n", SYSTEM)
