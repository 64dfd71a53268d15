"""An MCPServer's children: Deployment, Service and HTTPRoute.

A remote server without headers has none: agents call its URL. One with headers has a pod of
`kaos.toolserver` that calls it, so the headers are in that pod alone, as a model's API key is in
the gateway's. It gets no route: whoever came through the gateway would act under that name.
"""

from collections.abc import Sequence
from typing import Any

from kaos import __version__
from kaos.api import Header, InvalidSpecError, KeySource, MCPServer, ServerType
from kaos.reconcilers.children.names import HTTP_PORT, child_name
from kaos.reconcilers.children.network import network_policy, to_public, to_url
from kaos.reconcilers.children.route import http_route
from kaos.reconcilers.children.telemetry import telemetry_egress, telemetry_env
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
NODE_IMAGE = f"kaos/kaos-node:{__version__}"
"""The image of node-runtime, unless the registry of runtimes names another: ours, with Node.js."""
PACKAGE, HEADERS = "/package", "/etc/kaos/headers"


def remote_url(server: MCPServer) -> str:
    """The URL of a server that agents call elsewhere; empty for one that has a pod here."""
    return "" if server.spec.headers else server.spec.url or ""


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

    Raises:
        InvalidSpecError: `config.env` sets what says which tools are served.
    """
    spec = server.spec
    if remote_url(server):
        return []
    source = _source(server)
    set_twice = {entry["name"] for entry in source} & {entry.name for entry in spec.config.env}
    if set_twice:
        raise InvalidSpecError(
            f"spec.config.env: {', '.join(sorted(set_twice))} says which tools are served, as "
            "other fields of the spec do; remove it"
        )
    remote, custom = spec.type is ServerType.REMOTE, spec.type is ServerType.CUSTOM
    generated = [
        ("MCP_SERVER_NAME", server.name),
        *settings.serving(HTTP_PORT),
        *telemetry_env(server, spec.telemetry),
    ]
    volumes = [empty_volume("tmp")]
    mounts = [("tmp", "/tmp")]  # noqa: S108 - a mount, private to the pod
    egress = [to_public(settings)]
    if spec.config.mcp or (spec.config.tools and spec.config.tools.from_package):
        generated += [("KAOS_PACKAGE_FOLDER", PACKAGE), ("HOME", PACKAGE)]
        volumes.append(empty_volume("package"))
        mounts.append(("package", PACKAGE))
    if spec.headers:
        volumes.append(headers_volume(spec.headers))
        mounts.append(("headers", HEADERS))
        egress = to_url(spec.url or "", settings.cluster_domain)
    egress += telemetry_egress(spec.telemetry, settings)
    main = container(
        CONTAINER,
        NODE_IMAGE if spec.type is ServerType.NODE else settings.image,
        (),
        command=() if custom else COMMAND,
        env=source + variables(generated, spec.config.env),
        probes=tcp_probes() if custom else None,  # nobody knows the paths of another's image
        drain=settings.drain if custom else 0,
        resources=spec.main_resources,
        mounts=mounts,
    )
    children = [
        *network_policy(
            server,
            settings,
            port=HTTP_PORT,
            egress=egress,
            routed=not remote,
            asked=True,
            guests=guests,
        ),
        deployment(server, [main], drain=settings.drain, volumes=volumes),
        service(server, (("http", HTTP_PORT),)),
    ]
    if routes and not remote:
        children.append(http_route(server, spec.gateway_route, settings, port=HTTP_PORT))
    return children


def headers_volume(headers: Sequence[Header]) -> Manifest:
    """A file for each header, named as it is."""
    sources: list[Manifest] = []
    for header in headers:
        secret, config_map = header.value_from.secret_key_ref, header.value_from.config_map_key_ref
        kind, ref = ("secret", secret) if secret else ("configMap", config_map)
        assert ref is not None  # noqa: S101 - the model's validator guarantees it
        source: Manifest = {"name": ref.name, "items": [{"key": ref.key, "path": header.name}]}
        if ref.optional is not None:
            source["optional"] = ref.optional
        sources.append({kind: source})
    return {"name": "headers", "projected": {"sources": sources}}


def _source(server: MCPServer) -> list[dict[str, Any]]:
    """The variables that say which tools are served; not the user's to override."""
    spec = server.spec
    runtime = [("MCP_RUNTIME", "node")] if spec.type is ServerType.NODE else []
    tools = spec.config.tools
    if spec.config.mcp is not None:
        found = [("MCP_BUILTIN", spec.config.mcp), *runtime]
    elif spec.headers:
        found = [("MCP_URL", spec.url or ""), ("MCP_HEADERS_FOLDER", HEADERS)]
    elif tools is None:
        found = []
    elif tools.from_package is not None:
        found = [("MCP_PACKAGE", tools.from_package), *runtime]
    elif tools.from_string is not None:
        found = [("MCP_TOOLS_STRING", tools.from_string)]
    else:
        source = KeySource(
            secret_key_ref=tools.from_secret_key_ref,
            config_map_key_ref=tools.from_config_map_key_ref,
        )
        return [{"name": "MCP_TOOLS_STRING", "valueFrom": source.manifest()}]
    return [{"name": name, "value": literal(value)} for name, value in found]
