"""An MCPServer's children: Deployment, Service and HTTPRoute."""

from collections.abc import Sequence
from typing import Any

from kaos.api import MCPServer, MCPServerConfig, ServerType
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
    tcp_probes,
    variables,
)
from kaos.reconcilers.settings import Settings

CONTAINER = "mcp-server"
COMMAND = ("python", "-m", "kaos.toolserver")


def remote_url(server: MCPServer) -> str:
    """The URL of a server that runs elsewhere; empty for one that runs here."""
    return server.spec.url or ""


def endpoint(server: MCPServer, settings: Settings) -> str:
    """The URL by which agents reach the server."""
    here = settings.service_url(child_name(server), server.namespace, HTTP_PORT) + "/mcp"
    return remote_url(server) or here


def mcpserver_children(
    server: MCPServer, settings: Settings, *, routes: bool, guests: Sequence[str] = ()
) -> list[Manifest]:
    """Everything that an MCPServer needs in order to run.

    Args:
        server: the resource.
        settings: of the controller.
        routes: whether the cluster has the Gateway API.
        guests: other namespaces whose agents may use it.
    """
    spec = server.spec
    if spec.type is ServerType.REMOTE:
        return []
    generated = [("MCP_SERVER_NAME", server.name), *settings.serving(HTTP_PORT)]
    custom = spec.type is ServerType.CUSTOM
    main = container(
        CONTAINER,
        settings.image,
        (),
        command=() if custom else COMMAND,
        env=_source(spec.config) + variables(generated, spec.config.env),
        probes=tcp_probes() if custom else None,  # nobody knows the paths of another's image
        resources=spec.resources.manifest(),
        mounts=(("tmp", "/tmp"),),  # noqa: S108 - a mount, private to the pod
    )
    children = [
        *network_policy(
            server, settings, port=HTTP_PORT, egress=[to_public(settings)], guests=guests
        ),
        deployment(server, [main], volumes=[empty_volume("tmp")]),
        service(server, (("http", HTTP_PORT),)),
    ]
    if routes:
        children.append(http_route(server, spec.gateway_route, settings, port=HTTP_PORT))
    return children


def _source(config: MCPServerConfig) -> list[dict[str, Any]]:
    """The variable that says which tools are served; not the user's to override."""
    if config.mcp is not None:
        return [{"name": "MCP_BUILTIN", "value": literal(config.mcp)}]
    tools = config.tools
    if tools is None:
        return []
    if tools.from_string is not None:
        return [{"name": "MCP_TOOLS_STRING", "value": literal(tools.from_string)}]
    kind, ref = (
        ("secretKeyRef", tools.from_secret_key_ref)
        if tools.from_secret_key_ref
        else ("configMapKeyRef", tools.from_config_map_key_ref)
    )
    assert ref is not None  # noqa: S101 - the model's validator guarantees it
    value_from = {kind: ref.model_dump(by_alias=True, exclude_none=True)}
    return [{"name": "MCP_TOOLS_STRING", "valueFrom": value_from}]
