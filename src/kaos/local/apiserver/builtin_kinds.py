"""The kinds that are there without a definition: those a cluster is made of.

They are stored and served; what the real server does beyond that on a write is
in ``strategies.py``. The Gateway API is among them because the embedded cluster
has a gateway; jobs and the like are stored, but nothing here runs them.
"""

from typing import Any

from kaos.local.apiserver.registry import Kind, Scale

_WORKLOAD = Scale(selector=("spec", "selector"))


def _kind(
    api_version: str,
    kind: str,
    plural: str,
    *short_names: str,
    cluster: bool = False,
    status: bool = False,
    scale: Scale | None = None,
    categories: tuple[str, ...] = (),
    **extra: Any,
) -> Kind:
    group, _, version = api_version.rpartition("/")
    names = {"status": status, "scale": scale is not None}
    storage = extra.pop("bucket", f"{group}/{plural}")
    return Kind(
        group=group,
        version=version,
        kind=kind,
        list_kind=f"{kind}List",
        plural=plural,
        singular=kind.lower(),
        short_names=short_names,
        namespaced=not cluster,
        categories=categories,
        subresources=frozenset(name for name, there in names.items() if there),
        scale=scale,
        bucket=storage,
        storage_api_version=extra.pop("storage_api_version", api_version),
        **extra,
    )


def event_to_core(event: dict[str, Any]) -> dict[str, Any]:
    """Turn an events.k8s.io/v1 Event into the core one, as the real server stores it."""
    return {**_renamed(event, _EVENT_FIELDS), "apiVersion": "v1"}


def event_from_core(event: dict[str, Any]) -> dict[str, Any]:
    """Turn a core Event into the events.k8s.io/v1 one."""
    back = {new: old for old, new in _EVENT_FIELDS.items()}
    return {**_renamed(event, back), "apiVersion": "events.k8s.io/v1"}


def _renamed(event: dict[str, Any], fields: dict[str, str]) -> dict[str, Any]:
    return {fields.get(name, name): value for name, value in event.items()}


_EVENT_FIELDS = {
    "note": "message",
    "regarding": "involvedObject",
    "reportingController": "reportingComponent",
    "deprecatedSource": "source",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedCount": "count",
}


def builtin_kinds() -> list[Kind]:
    """All built-in kinds, in the order of discovery."""
    every = ("all",)
    gateway = ("gateway-api",)
    return [
        _kind("v1", "Namespace", "namespaces", "ns", cluster=True, status=True),
        _kind("v1", "Node", "nodes", "no", cluster=True, status=True),
        _kind("v1", "Pod", "pods", "po", status=True, categories=every, generation=True),
        _kind("v1", "Service", "services", "svc", status=True, categories=every),
        _kind("v1", "ConfigMap", "configmaps", "cm"),
        _kind("v1", "Secret", "secrets"),
        _kind("v1", "ServiceAccount", "serviceaccounts", "sa"),
        _kind("v1", "Endpoints", "endpoints", "ep"),
        _kind("v1", "Event", "events", "ev", bucket="/events"),
        _kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims", "pvc", status=True),
        _kind("v1", "PersistentVolume", "persistentvolumes", "pv", cluster=True, status=True),
        _kind("v1", "ResourceQuota", "resourcequotas", "quota", status=True),
        _kind("v1", "LimitRange", "limitranges", "limits"),
        *(
            _kind(
                "apps/v1",
                kind,
                plural,
                short,
                status=True,
                categories=every,
                generation=True,
                scale=None if kind == "DaemonSet" else _WORKLOAD,
            )
            for kind, plural, short in (
                ("Deployment", "deployments", "deploy"),
                ("ReplicaSet", "replicasets", "rs"),
                ("StatefulSet", "statefulsets", "sts"),
                ("DaemonSet", "daemonsets", "ds"),
            )
        ),
        _kind(
            "events.k8s.io/v1",
            "Event",
            "events",
            "ev",
            bucket="/events",
            storage_api_version="v1",
            to_storage=event_to_core,
            from_storage=event_from_core,
        ),
        _kind("authentication.k8s.io/v1", "SelfSubjectReview", "selfsubjectreviews", **_REVIEW),
        _kind(
            "authorization.k8s.io/v1",
            "SelfSubjectAccessReview",
            "selfsubjectaccessreviews",
            **_REVIEW,
        ),
        _kind(
            "authorization.k8s.io/v1",
            "SelfSubjectRulesReview",
            "selfsubjectrulesreviews",
            **_REVIEW,
        ),
        _kind(
            "autoscaling/v2",
            "HorizontalPodAutoscaler",
            "horizontalpodautoscalers",
            "hpa",
            status=True,
            categories=every,
        ),
        _kind("batch/v1", "Job", "jobs", status=True, categories=every, generation=True),
        _kind(
            "batch/v1", "CronJob", "cronjobs", "cj", status=True, categories=every, generation=True
        ),
        _kind(
            "networking.k8s.io/v1", "NetworkPolicy", "networkpolicies", "netpol", generation=True
        ),
        _kind("networking.k8s.io/v1", "Ingress", "ingresses", "ing", status=True, generation=True),
        _kind(
            "networking.k8s.io/v1", "IngressClass", "ingressclasses", cluster=True, generation=True
        ),
        _kind(
            "policy/v1",
            "PodDisruptionBudget",
            "poddisruptionbudgets",
            "pdb",
            status=True,
            generation=True,
        ),
        *(
            _kind("rbac.authorization.k8s.io/v1", kind, plural, cluster=kind.startswith("Cluster"))
            for kind, plural in (
                ("Role", "roles"),
                ("RoleBinding", "rolebindings"),
                ("ClusterRole", "clusterroles"),
                ("ClusterRoleBinding", "clusterrolebindings"),
            )
        ),
        _kind("storage.k8s.io/v1", "StorageClass", "storageclasses", "sc", cluster=True),
        _kind("scheduling.k8s.io/v1", "PriorityClass", "priorityclasses", "pc", cluster=True),
        _kind(
            "apiextensions.k8s.io/v1",
            "CustomResourceDefinition",
            "customresourcedefinitions",
            "crd",
            "crds",
            cluster=True,
            status=True,
            categories=("api-extensions",),
            generation=True,
        ),
        _kind("coordination.k8s.io/v1", "Lease", "leases"),
        _kind("discovery.k8s.io/v1", "EndpointSlice", "endpointslices", generation=True),
        *(
            _kind(
                "gateway.networking.k8s.io/v1",
                kind,
                plural,
                short,
                cluster=kind == "GatewayClass",
                status=True,
                categories=gateway,
                generation=True,
            )
            for kind, plural, short in (
                ("GatewayClass", "gatewayclasses", "gc"),
                ("Gateway", "gateways", "gtw"),
                ("HTTPRoute", "httproutes", "httproute"),
            )
        ),
    ]


_REVIEW: dict[str, Any] = {"cluster": True, "verbs": ("create",)}
