"""Kinds as the API serves them, and the key of an object.

Guarantees: a `ResourceType` is enough to build every path of its kind; the built-in table needs no
discovery, so a controller of well-known kinds starts without asking the server what it serves.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import quote

_plain = re.compile(r"[A-Za-z0-9._~-]*").fullmatch


def _quoted(text: str) -> str:
    return text if _plain(text) else quote(text, safe="")


class Request(NamedTuple):
    """Which object to reconcile: its namespace ("" when cluster-scoped) and name."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


@dataclass(frozen=True, slots=True)
class ResourceType:
    """A kind, its group and version, and the plural under which the API serves it."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Every read of the cache looks its kind up; hashing five fields anew took a microsecond.
        object.__setattr__(self, "_hash", hash((self.group, self.version, self.plural)))

    def __hash__(self) -> int:
        return self._hash

    @property
    def api_version(self) -> str:
        """``apps/v1``; the core group has no name: ``v1``."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The URL path of a collection, an object or its subresource.

        A namespaced kind without a namespace gives the collection over all namespaces.
        """
        parts = ["/apis", self.group] if self.group else ["/api"]
        parts.append(self.version)
        if self.namespaced and namespace:
            parts += ["namespaces", _quoted(namespace)]
        parts.append(self.plural)
        if name:
            parts.append(_quoted(name))
        if subresource:
            parts.append(subresource)
        return "/".join(parts)

    def body(self, name: str, namespace: str = "", **fields: Any) -> dict[str, Any]:
        """A new object's body.

        Args:
            name: Its name.
            namespace: Its namespace, "" when cluster-scoped.
            fields: The top-level fields, e.g. ``data={...}``; of ``metadata`` what is beyond name
                and namespace.
        """
        metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
        return {
            "apiVersion": self.api_version,
            "kind": self.kind,
            **fields,
            "metadata": {**metadata, **fields.get("metadata", {})},
        }

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @classmethod
    def of(cls, target: "Resource") -> "ResourceType":
        """The type of a ResourceType (itself), of a model class or of a kr8s class.

        Args:
            target: A ResourceType, or a class with the class variables GROUP, VERSION, KIND, PLURAL
                and, for cluster-scoped kinds, ``NAMESPACED = False``; or a class of kr8s.
        """
        if isinstance(target, ResourceType):
            return target
        if hasattr(target, "endpoint") and hasattr(target, "version"):
            group, version = split_api_version(target.version)
            return cls(group, version, target.kind, target.plural, target.namespaced)
        try:
            return cls(
                target.GROUP,
                target.VERSION,
                target.KIND,
                target.PLURAL,
                getattr(target, "NAMESPACED", True),
            )
        except AttributeError as error:
            raise TypeError(
                f"{target!r} is no resource: expected a ResourceType or a class with the class "
                "variables GROUP, VERSION, KIND and PLURAL"
            ) from error


Resource: TypeAlias = ResourceType | type[Any]
"""What the API of this library takes for "a kind"."""


def split_api_version(api_version: str) -> tuple[str, str]:
    """``apps/v1`` → ``("apps", "v1")`` and ``v1`` → ``("", "v1")``."""
    group, _, version = api_version.rpartition("/")
    return group, version


POD = ResourceType("", "v1", "Pod", "pods")
SERVICE = ResourceType("", "v1", "Service", "services")
CONFIG_MAP = ResourceType("", "v1", "ConfigMap", "configmaps")
SECRET = ResourceType("", "v1", "Secret", "secrets")
NAMESPACE = ResourceType("", "v1", "Namespace", "namespaces", namespaced=False)
NODE = ResourceType("", "v1", "Node", "nodes", namespaced=False)
PERSISTENT_VOLUME_CLAIM = ResourceType("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims")
SERVICE_ACCOUNT = ResourceType("", "v1", "ServiceAccount", "serviceaccounts")
DEPLOYMENT = ResourceType("apps", "v1", "Deployment", "deployments")
REPLICA_SET = ResourceType("apps", "v1", "ReplicaSet", "replicasets")
LEASE = ResourceType("coordination.k8s.io", "v1", "Lease", "leases")
EVENT = ResourceType("events.k8s.io", "v1", "Event", "events")
ENDPOINT_SLICE = ResourceType("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices")
NETWORK_POLICY = ResourceType("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies")
HORIZONTAL_POD_AUTOSCALER = ResourceType(
    "autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"
)
POD_DISRUPTION_BUDGET = ResourceType("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets")
CUSTOM_RESOURCE_DEFINITION = ResourceType(
    "apiextensions.k8s.io",
    "v1",
    "CustomResourceDefinition",
    "customresourcedefinitions",
    namespaced=False,
)
VALIDATING_WEBHOOK_CONFIGURATION = ResourceType(
    "admissionregistration.k8s.io",
    "v1",
    "ValidatingWebhookConfiguration",
    "validatingwebhookconfigurations",
    namespaced=False,
)
MUTATING_WEBHOOK_CONFIGURATION = ResourceType(
    "admissionregistration.k8s.io",
    "v1",
    "MutatingWebhookConfiguration",
    "mutatingwebhookconfigurations",
    namespaced=False,
)
HTTP_ROUTE = ResourceType("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes")
GATEWAY = ResourceType("gateway.networking.k8s.io", "v1", "Gateway", "gateways")

# HTTP_ROUTE and GATEWAY are deliberately absent: their CRDs may not be installed, and a look-up
# that went through discovery says so in one clear sentence.
_CORE: Iterable[ResourceType] = (
    POD,
    SERVICE,
    CONFIG_MAP,
    SECRET,
    NAMESPACE,
    NODE,
    PERSISTENT_VOLUME_CLAIM,
    SERVICE_ACCOUNT,
    DEPLOYMENT,
    REPLICA_SET,
    LEASE,
    EVENT,
    ENDPOINT_SLICE,
    NETWORK_POLICY,
    HORIZONTAL_POD_AUTOSCALER,
    POD_DISRUPTION_BUDGET,
    CUSTOM_RESOURCE_DEFINITION,
    VALIDATING_WEBHOOK_CONFIGURATION,
    MUTATING_WEBHOOK_CONFIGURATION,
)
BUILT_IN: dict[tuple[str, str], ResourceType] = {(r.api_version, r.kind): r for r in _CORE}
"""Kinds that every supported server serves, by (apiVersion, kind)."""
