"""The HTTPRoute of a resource: under which paths the Gateway serves it.

An agent has `/<name>` besides `/<namespace>/agent/<name>`; the others have only the long path, so
that the short one stays unambiguous. The prefix is taken off before the request reaches the pod.
"""

from kaos.api import Agent, CustomResource, GatewayRoute
from kaos.reconcilers.children.names import child_name, kind_word
from kaos.reconcilers.children.workload import Manifest, metadata
from kaos.reconcilers.settings import Settings

KIND_PATHS = {"agent": "agent", "modelapi": "modelapi", "mcpserver": "mcp"}
UNLIMITED = "0s"
"""Said, not left out: Envoy ends what has no timeout after 15 s, streams in their middle too."""


def paths(resource: CustomResource, *, short: bool = True) -> list[str]:
    """The path prefixes of a resource, the preferred one first."""
    word = kind_word(resource)
    long = f"/{resource.namespace}/{KIND_PATHS[word]}/{resource.name}"
    return [f"/{resource.name}", long] if short and isinstance(resource, Agent) else [long]


def http_route(
    resource: CustomResource,
    route: GatewayRoute,
    settings: Settings,
    *,
    port: int,
    short: bool = True,
) -> Manifest:
    """The HTTPRoute that leads the resource's paths to its Service.

    Args:
        resource: the owner.
        route: the user's wishes.
        settings: names the parent Gateway.
        port: the Service's port.
        short: whether an agent's short path is its to have.
    """
    rules = []
    for prefix in paths(resource, short=short):
        rule: Manifest = {
            "matches": [{"path": {"type": "PathPrefix", "value": prefix}}],
            "filters": [
                {
                    "type": "URLRewrite",
                    "urlRewrite": {
                        "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}
                    },
                }
            ],
            "backendRefs": [{"name": child_name(resource), "port": port}],
            "timeouts": {"request": route.timeout or UNLIMITED},
        }
        rules.append(rule)
    hostnames = {"hostnames": list(route.hostnames)} if route.hostnames else {}
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": metadata(resource),
        "spec": {
            "parentRefs": [
                {"name": settings.gateway_name, "namespace": settings.gateway_namespace}
            ],
            **hostnames,
            "rules": rules,
        },
    }
