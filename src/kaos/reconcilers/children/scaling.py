"""How many pods: declared by the resource, and then left to whoever else scales the Deployment.

Guarantees: the number is applied when it is declared anew, and never fought over afterwards. What
was declared last stands in an annotation of the Deployment; while that is the same and the live
number is another one, somebody else scales (a hand with `kubectl scale`, an HPA of the user's), and
the number is left out of what is applied. With `autoscaling` it is never applied. Suspending is
firm: zero is applied whatever others say.

Which failure taught it: two controllers that each write spec.replicas start and stop pods for ever.
And a field that nobody owns any more is removed by server-side apply and comes back as its default,
one pod; so before the first apply without the number, somebody else must own it (`handed_over`).
"""

from kaos.api import AgentAutoscaling, Workload
from kaos.reconcilers.children.names import child_name, selector
from kaos.reconcilers.children.workload import Manifest, metadata
from kaos.runtime import Object

DECLARED = "kaos.tools/replicas"
AUTOSCALED = "autoscaled"
RUNS = "kaos_agent_runs"
"""The agents' gauge of runs under way, as their /metrics has it."""
HEIR = "kaos-replicas"
"""The field manager that keeps the number when it is handed over to an autoscaler."""


def scaled(desired: Manifest, resource: Workload, live: Object | None) -> Manifest:
    """The Deployment with the number of pods that shall be applied, or with none.

    Args:
        desired: the Deployment as the builder made it, without a number.
        resource: the owner.
        live: the Deployment that there is.
    """
    declared = _declared(resource)
    result: Manifest = {
        **desired,
        "metadata": {**desired["metadata"], "annotations": {DECLARED: declared}},
    }
    if declared == AUTOSCALED:
        return result
    if not resource.spec.suspend and live is not None:
        same = live.metadata.annotations.get(DECLARED) == declared
        if same and live.spec.get("replicas") != int(declared):
            return result
    result["spec"] = {"replicas": int(declared), **desired["spec"]}
    return result


def handed_over(resource: Workload, live: Object | None) -> Manifest | None:
    """What the heir must apply before an autoscaler takes over; None when nothing needs it."""
    if live is None or _declared(resource) != AUTOSCALED:
        return None
    if live.metadata.annotations.get(DECLARED) == AUTOSCALED:
        return None
    number = live.spec.get("replicas", 1)
    if number == 0:
        return None  # an autoscaler leaves zero alone; the default, one, is what it starts from
    return {
        "apiVersion": live.api_version,
        "kind": live.kind,
        "metadata": {"name": live.name, "namespace": live.namespace},
        "spec": {"replicas": number},
    }


def target_runs(resource: Workload) -> int | None:
    """How many runs a pod shall have under way, if the user wants scaling to go by that."""
    wish = resource.spec.autoscaling
    return wish.target_runs if isinstance(wish, AgentAutoscaling) else None


def scaling_children(resource: Workload, *, pod_metrics: bool = False) -> list[Manifest]:
    """The autoscaler, if one is wanted, and the disruption budget of several pods.

    Args:
        resource: the owner.
        pod_metrics: whether the cluster has metrics of pods. An autoscaler that asks for one that
            nobody serves never scales down, so it is asked for only then.
    """
    spec, found = resource.spec, []
    if spec.autoscaling is not None and not spec.suspend:
        found.append(_autoscaler(resource, pod_metrics=pod_metrics))
    if spec.least_replicas > 1:
        found.append(
            {
                "apiVersion": "policy/v1",
                "kind": "PodDisruptionBudget",
                "metadata": metadata(resource),
                "spec": {
                    "maxUnavailable": 1,
                    "selector": {"matchLabels": selector(resource)},
                },
            }
        )
    return found


def _declared(resource: Workload) -> str:
    spec = resource.spec
    if spec.suspend:
        return "0"
    return AUTOSCALED if spec.autoscaling is not None else str(spec.replicas)


def _autoscaler(resource: Workload, *, pod_metrics: bool) -> Manifest:
    wish = resource.spec.autoscaling
    assert wish is not None  # noqa: S101 - the caller has looked
    target = {"type": "Utilization", "averageUtilization": wish.target_cpu}
    metrics: list[Manifest] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    runs = target_runs(resource)
    if runs is not None and pod_metrics:
        average = {"type": "AverageValue", "averageValue": str(runs)}
        metrics.append({"type": "Pods", "pods": {"metric": {"name": RUNS}, "target": average}})
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": metadata(resource),
        "spec": {
            "scaleTargetRef": {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "name": child_name(resource),
            },
            "minReplicas": wish.min_replicas,
            "maxReplicas": wish.max_replicas,
            "metrics": metrics,
        },
    }
