"""The NetworkPolicy of a resource, derived from what specs declare.

An agent may reach its ModelAPI, its MCPServers, the peers in `access` and DNS, and nothing else; it
is reached by the agents that declare it and by the Gateway's proxies, an MCPServer also by the
controller, which asks it for its tools. A ModelAPI reaches its
upstream (a hosted one the public HTTPS addresses where models are), an MCPServer the public
addresses, where tools have their work; neither reaches the cluster's inside or cloud metadata.
`spec.network` adds rules or turns the policy off.

Who declares whom stands in labels of the pods (`modelapi.uses.kaos.tools/<name>`), so a policy
depends on its own resource alone: nothing has to be rewritten when the hundredth agent uses a
ModelAPI, and a client of the user's own is let in by giving its pod the label.

Guarantees: with a network plugin that enforces policies, a pod that is not declared is refused.

Does not: know ports that a Service maps (policies are about pods, after the mapping), so whom an
agent declares it may reach on every port, and the other side's policy says which are open.
"""

from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from kaos.api import Agent, CustomResource, MCPServer, ModelAPI, NetworkMode, Workload
from kaos.reconcilers.children.names import KIND_LABEL, NAME_LABEL, Ref, ref, selector
from kaos.reconcilers.children.workload import Manifest, metadata
from kaos.reconcilers.settings import Settings

USES = "uses.kaos.tools"
NAMESPACE_LABEL = "kubernetes.io/metadata.name"
PRIVATE = {
    "0.0.0.0/0": (
        "10.0.0.0/8",
        "100.64.0.0/10",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.168.0.0/16",
    ),
    # The second stands for all of IPv4, private addresses too, where a cluster translates (NAT64).
    "::/0": ("fc00::/7", "64:ff9b::/96", "fe80::/10"),
}
PORTS = {"https": 443, "redis": 6379, "rediss": 6379, "postgres": 5432, "postgresql": 5432}
NODE_LOCAL_DNS = "169.254.20.10/32"

Target = tuple[type[CustomResource], Ref]


def uses_label(model: type[CustomResource], name: str) -> str:
    """The label of a pod that may use this resource."""
    return f"{model.KIND.lower()}.{USES}/{name}"


def declared(agent: Agent) -> list[Target]:
    """Whom an agent's spec names."""
    spec, here = agent.spec, agent.namespace
    found: list[Target] = [(ModelAPI, ref(spec.model_api, here))]
    found += [(MCPServer, ref(name, here)) for name in spec.mcp_servers]
    return found + [(Agent, ref(name, here)) for name in spec.agent_network.access]


def uses_labels(agent: Agent) -> dict[str, str]:
    """The labels of an agent's pods by which those that it uses let it in.

    The value is the namespace of what is used, so that a namesake elsewhere is not meant.
    """
    return {uses_label(model, target.name): target.namespace for model, target in declared(agent)}


def network_policy(
    resource: Workload,
    settings: Settings,
    *,
    port: int,
    egress: Sequence[Manifest],
    routed: bool = True,
    asked: bool = False,
    guests: Sequence[str] = (),
) -> list[Manifest]:
    """The resource's NetworkPolicy, or nothing when the user wants none.

    Args:
        resource: the owner.
        settings: name the namespaces of the Gateway's proxies.
        port: the container's port that is served.
        egress: rules for what it may reach, besides DNS.
        routed: whether the Gateway serves it.
        asked: whether the controller asks it something.
        guests: other namespaces whose agents may use it.
    """
    wish = resource.spec.network
    if wish.policy is NetworkMode.NONE:
        return []
    mark = {uses_label(type(resource), resource.name): resource.namespace}
    users = {"podSelector": {"matchLabels": mark}}
    callers = [
        users,
        *({**users, **_namespace(guest)} for guest in guests),
        *(_namespace(proxy) for proxy in settings.gateway_proxies if routed),
    ]
    if asked and settings.own_labels:
        me = {"podSelector": {"matchLabels": dict(settings.own_labels)}}
        callers.append({**me, **_namespace(settings.namespace)})
    ports = [{"protocol": "TCP", "port": port}]
    rules = [dns(), *egress, *wish.egress]
    if resource.spec.service_account_name is not None:
        rules.append(to_api_server())
    return [
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": metadata(resource),
            "spec": {
                "podSelector": {"matchLabels": selector(resource)},
                "policyTypes": ["Ingress", "Egress"],
                "ingress": [{"from": callers, "ports": ports}, *wish.ingress],
                "egress": rules,
            },
        }
    ]


def to_declared(agent: Agent) -> list[Manifest]:
    """Egress to all whom an agent's spec names."""
    peers = []
    for model, target in declared(agent):
        labels = {KIND_LABEL: model.KIND.lower(), NAME_LABEL: target.name}
        elsewhere = {} if target.namespace == agent.namespace else _namespace(target.namespace)
        peers.append({"podSelector": {"matchLabels": labels}, **elsewhere})
    return [{"to": peers}]


def to_any(*ports: int) -> Manifest:
    """Egress to these TCP ports of any address."""
    return {"ports": [{"protocol": "TCP", "port": port} for port in ports]}


def to_api_server() -> Manifest:
    """Egress to the cluster's API server, whose address no policy can know."""
    return to_any(443, 6443)


def dns() -> Manifest:
    """Egress to the cluster's name servers, also to the one that some nodes run for themselves."""
    return {
        "to": [{"namespaceSelector": {}}, {"ipBlock": {"cidr": NODE_LOCAL_DNS}}],
        "ports": [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")],
    }


def to_public(settings: Settings, *ports: int) -> Manifest:
    """Egress to all addresses but private ones and those of cloud metadata.

    Args:
        settings: tell whether pods have IPv6 addresses: some plugins refuse a policy that names
            addresses of a family they do not have, and then enforce nothing at all.
        ports: TCP ports; all when none is given.
    """
    blocks = [
        {"ipBlock": {"cidr": cidr, "except": list(private)}}
        for cidr, private in PRIVATE.items()
        if settings.ipv6 or ":" not in cidr
    ]
    rule: Manifest = {"to": blocks}
    if ports:
        rule["ports"] = [{"protocol": "TCP", "port": port} for port in ports]
    return rule


def to_url(url: str, cluster_domain: str) -> list[Manifest]:
    """Egress to a URL's host: a Service's pods, one address, or a port of any address.

    Args:
        url: a URL that a spec names.
        cluster_domain: the domain of Service DNS.
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    port = parts.port or PORTS.get(parts.scheme, 80)
    ports = [{"protocol": "TCP", "port": port}]
    try:
        address = ip_address(host)
    except ValueError:
        pass
    else:
        block = f"{address}/{address.max_prefixlen}"
        return [{"to": [{"ipBlock": {"cidr": block}}], "ports": ports}]
    service = host.removesuffix(f".{cluster_domain}").removesuffix(".svc")
    labels = service.split(".")
    if len(labels) == 1:
        return [{"to": [{"podSelector": {}}]}]
    # The last one: before a Service of pods with names of their own stands the pod's.
    inside: Manifest = {"to": [_namespace(labels[-1])]}
    if host.endswith((".svc", f".svc.{cluster_domain}")):
        return [inside]
    # A policy cannot name a host: any address will do, on this port alone.
    outside = to_any(port)
    looks_like_service = len(labels) == 2  # service.namespace, or example.com
    return [inside, outside] if looks_like_service else [outside]


def _namespace(name: str) -> dict[str, Any]:
    return {"namespaceSelector": {"matchLabels": {NAMESPACE_LABEL: name}}}
