"""Whether the cluster has metrics of pods, by which an autoscaler can go.

Guarantees: an adapter that is installed, breaks or goes is noticed as it happens, by the APIService
that every extension of the API is announced with.

Does not: see any when the controller has rights in some namespaces alone; know which metrics are
served (an adapter that lacks the agents' is told by the autoscaler itself).
"""

from kaos.runtime import Cache, Object, ResourceType, find_condition

API_SERVICE = ResourceType(
    "apiregistration.k8s.io", "v1", "APIService", "apiservices", namespaced=False
)
POD_METRICS = "custom.metrics.k8s.io"


def has_pod_metrics(cache: Cache) -> bool:
    """Whether somebody serves metrics of pods now.

    Args:
        cache: that watches APIServices, if the cluster has them and we may.
    """
    return cache.synced(API_SERVICE) and any(
        service.spec.get("group") == POD_METRICS and _available(service)
        for service in cache.list(API_SERVICE)
    )


def _available(service: Object) -> bool:
    found = find_condition(service.status.get("conditions", ()), "Available")
    return found is not None and found["status"] == "True"
