"""What an operator may set for all resources at once: images, gateway, cluster domain."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from os import environ
from typing import Self

from kaos import __version__
from kaos.discovery import cluster_domain

DEFAULT_IMAGE = f"kaos/kaos:{__version__}"
DEFAULT_LITELLM_IMAGE = f"kaos/kaos-litellm:{__version__}"
DEFAULT_OLLAMA_IMAGE = "ollama/ollama:0.17.4"

ENVOY = "envoy-gateway-system"
"""Where Envoy Gateway runs its proxies; most others run them in the Gateway's own namespace."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of the controller, from its environment.

    Attributes:
        image: the image of agents, tool servers and model proxies (`KAOS_IMAGE`).
        litellm_image: the image of model proxies that ask LiteLLM (`KAOS_LITELLM_IMAGE`).
        ollama_image: the image of hosted models (`KAOS_OLLAMA_IMAGE`).
        cluster_domain: the domain of Service DNS, from resolv.conf (`KAOS_CLUSTER_DOMAIN`).
        gateway_namespace: namespace of the Gateway that routes attach to (`KAOS_GATEWAY`).
        gateway_name: name of that Gateway.
        gateway_proxies: namespaces of the pods that carry the Gateway's traffic, which policies
            let in (`KAOS_GATEWAY_PROXIES`).
        ipv6: whether pods have IPv6 addresses; told by the controller's own pod.
        drain: seconds for which a pod that is told to end goes on serving, until the news has
            reached those who send it requests (`KAOS_DRAIN`).
        account_tokens: whether the cluster makes tokens for service accounts, as every real one
            does; where it does not, callers of an agent with `auth` need a bearer token.
        watch_secrets: whether a change of a Secret rolls the pods that read it; it takes the right
            to list Secrets, of which only metadata is read (`KAOS_WATCH_SECRETS`).
        namespace: the controller's own, where its lease and the registry of runtimes are
            (`KAOS_POD_NAMESPACE`).
        namespaces: those that the controller sees, and needs rights in; all when empty
            (`KAOS_NAMESPACES`).
        own_labels: those of the controller's own pod, by which policies let it in; empty when it is
            in none.
        service_map: where the embedded cluster says which Service is where.
    """

    image: str = DEFAULT_IMAGE
    litellm_image: str = DEFAULT_LITELLM_IMAGE
    ollama_image: str = DEFAULT_OLLAMA_IMAGE
    cluster_domain: str = "cluster.local"
    gateway_namespace: str = "kaos-gateway"
    gateway_name: str = "kaos-gateway"
    gateway_proxies: tuple[str, ...] = ("kaos-gateway", ENVOY)
    ipv6: bool = False
    drain: int = 5
    account_tokens: bool = True
    watch_secrets: bool = True
    namespace: str = "kaos-system"
    namespaces: tuple[str, ...] = ()
    own_labels: Mapping[str, str] = field(default_factory=dict)
    service_map: str = ""

    @classmethod
    def from_env(cls, env: Mapping[str, str] = environ) -> Self:
        """Read the settings.

        Raises:
            ValueError: `KAOS_GATEWAY` is not of the form namespace/name, or `KAOS_DRAIN` no number.
        """
        gateway = env.get("KAOS_GATEWAY") or "kaos-gateway/kaos-gateway"
        namespace, slash, name = gateway.partition("/")
        if not (namespace and slash and name):
            raise ValueError(f"KAOS_GATEWAY is {gateway!r}; it must be namespace/name")
        drain = env.get("KAOS_DRAIN") or "5"
        if not drain.isdecimal():
            raise ValueError(f"KAOS_DRAIN is {drain!r}; it must be a number of seconds, e.g. 5")
        return cls(
            image=env.get("KAOS_IMAGE") or DEFAULT_IMAGE,
            litellm_image=env.get("KAOS_LITELLM_IMAGE") or DEFAULT_LITELLM_IMAGE,
            ollama_image=env.get("KAOS_OLLAMA_IMAGE") or DEFAULT_OLLAMA_IMAGE,
            cluster_domain=cluster_domain(),
            gateway_namespace=namespace,
            gateway_name=name,
            gateway_proxies=_listed(env.get("KAOS_GATEWAY_PROXIES", "")) or (namespace, ENVOY),
            drain=int(drain),
            watch_secrets=env.get("KAOS_WATCH_SECRETS", "").lower() != "false",
            namespace=env.get("KAOS_POD_NAMESPACE") or "kaos-system",
            namespaces=_listed(env.get("KAOS_NAMESPACES", "")),
        )

    def service_host(self, service: str, namespace: str) -> str:
        """The DNS name of a Service."""
        return f"{service}.{namespace}.svc.{self.cluster_domain}"

    def service_url(self, service: str, namespace: str, port: int) -> str:
        """The URL of a Service, without the port where http implies it."""
        suffix = "" if port == 80 else f":{port}"
        return f"http://{self.service_host(service, namespace)}{suffix}"

    def serving(self, port: int) -> list[tuple[str, str]]:
        """The variables of a server of ours: where it listens, and how it ends."""
        drain = [("KAOS_DRAIN", str(self.drain))] if self.drain else []
        return [("KAOS_LISTEN", f"0.0.0.0:{port}"), *drain]


def _listed(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (part.strip() for part in text.split(","))))
