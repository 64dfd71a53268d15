"""An MCPServer's children: Deployment, Service and HTTPRoute."""

from typing import Any

from kaos.api import MCPServer, MCPServerConfig
from kaos.reconcilers.children.names import HTTP_PORT, child_name
from kaos.reconcilers.children.network import network_policy, to_public
from kaos.reconcilers.children.route import http_route
from kaos.reconcilers.children.workload import (
    Manifest,
    container,
    deployment,
    empty_volume,
    literal,
    service,
    variables,
)
from kaos.reconcilers.settings import Settings

COMMAND = ("python", "-m", "kaos.toolserver")


def endpoint(server: MCPServer, settings: Settings) -> str:
    """The URL by which agents reach the server."""
    return settings.service_url(child_name(server), server.namespace, HTTP_PORT) + "/mcp"


def mcpserver_children(server: MCPServer, settings: Settings, *, routes: bool) -> list[Manifest]:
    """Everything that an MCPServer needs in order to run.

    Args:
        server: the resource.
        settings: of the controller.
        routes: whether the cluster has the Gateway API.
    """
    spec = server.spec
    generated = [("MCP_SERVER_NAME", server.name), *settings.serving(HTTP_PORT)]
    children = [
        *network_policy(server, settings, port=HTTP_PORT, egress=[to_public()]),
        deployment(
            server,
            [
                container(
                    "mcp-server",
                    settings.image,
                    (),
                    command=COMMAND,
                    env=_source(spec.config) + variables(generated, spec.config.env),
                    resources=spec.resources.manifest(),
                    mounts=(("tmp", "/tmp"),),  # noqa: S108 - a mount, private to the pod
                )
            ],
            volumes=[empty_volume("tmp")],
        ),
        service(server, (("http", HTTP_PORT),)),
    ]
    if routes:
        children.append(http_route(server, spec.gateway_route, settings, port=HTTP_PORT))
    return children


def _source(config: MCPServerConfig) -> list[dict[str, Any]]:
    """The variable that says which tools are served; not the user's to override."""
    if config.mcp is not None:
        return [{"name": "MCP_BUILTIN", "value": literal(config.mcp)}]
    assert config.tools is not None  # noqa: S101 - the model's validator guarantees it
    tools = config.tools
    if tools.from_string is not None:
        return [{"name": "MCP_TOOLS_STRING", "value": literal(tools.from_string)}]
    kind, ref = (
        ("secretKeyRef", tools.from_secret_key_ref)
        if tools.from_secret_key_ref
        else ("configMapKeyRef", tools.from_config_map_key_ref)
    )
    assert ref is not None  # noqa: S101 - likewise
    value_from = {kind: ref.model_dump(by_alias=True, exclude_none=True)}
    return [{"name": "MCP_TOOLS_STRING", "valueFrom": value_from}]
