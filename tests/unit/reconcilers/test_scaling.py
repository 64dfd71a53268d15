"""Autoscaling: who decides how many pods, and that the number is handed over and back unharmed."""

from typing import Any

import pytest

from kaos import api
from kaos.agent import limits
from kaos.api import InvalidSpecError
from kaos.reconcilers.children.agent import agent_children
from kaos.reconcilers.children.scaling import RUNS as RUNS_METRIC
from kaos.reconcilers.children.scaling import scaling_children
from kaos.reconcilers.settings import Settings
from kaos.runtime import (
    DEPLOYMENT,
    HORIZONTAL_POD_AUTOSCALER,
    POD_DISRUPTION_BUDGET,
    Object,
    find_condition,
)
from tests.unit.reconcilers.harness import Cluster
from tests.unit.reconcilers.resources import agent, by_kind, foreign_kind, hosted

AUTO = {"autoscaling": {"minReplicas": 2, "maxReplicas": 5}}
AGENT = {"modelAPI": "ollama"}


def kinds(**spec: Any) -> set[str]:
    return set(by_kind(scaling_children(agent(**spec))))


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, set()),
        ({"replicas": 2}, {"PodDisruptionBudget"}),
        (AUTO, {"HorizontalPodAutoscaler", "PodDisruptionBudget"}),
        ({"autoscaling": {"maxReplicas": 5}}, {"HorizontalPodAutoscaler"}),
        ({**AUTO, "suspend": True}, set()),
    ],
)
def test_w15_what_scales_and_what_protects(spec: dict[str, Any], expected: set[str]) -> None:
    assert kinds(**spec) == expected


def test_the_autoscaler_goes_by_the_cpu_of_the_deployments_pods() -> None:
    auto = {"minReplicas": 1, "maxReplicas": 3, "targetCPUUtilizationPercentage": 60}
    found = by_kind(scaling_children(agent(autoscaling=auto)))["HorizontalPodAutoscaler"]["spec"]
    assert found["scaleTargetRef"]["name"] == "assistant"
    assert (found["minReplicas"], found["maxReplicas"]) == (1, 3)
    target = found["metrics"][0]["resource"]["target"]
    assert target == {"type": "Utilization", "averageUtilization": 60}


RUNS = {"autoscaling": {"maxReplicas": 3, "targetRunsPerPod": 20}}


@pytest.mark.parametrize(("served", "kinds"), [(True, ["Resource", "Pods"]), (False, ["Resource"])])
def test_it_goes_by_runs_under_way_where_somebody_serves_that_metric(
    served: bool, kinds: list[str]
) -> None:
    wish = agent(autoscaling=RUNS["autoscaling"])
    made = by_kind(scaling_children(wish, pod_metrics=served))
    metrics = made["HorizontalPodAutoscaler"]["spec"]["metrics"]
    assert [metric["type"] for metric in metrics] == kinds
    if served:
        assert metrics[1]["pods"] == {
            "metric": {"name": "kaos_agent_runs"},
            "target": {"type": "AverageValue", "averageValue": "20"},
        }


def test_the_metric_is_one_that_agents_have() -> None:
    (family,) = limits._running.collect()
    assert family.name == RUNS_METRIC


def test_scaling_does_not_change_the_pods() -> None:
    def template(**spec: Any) -> Any:
        children = by_kind(agent_children(agent(**spec), "m", Settings(), routes=False))
        return children["Deployment"]["spec"]["template"]

    assert template() == template(replicas=3) == template(**AUTO)
    (spread,) = template()["spec"]["topologySpreadConstraints"]
    assert spread["whenUnsatisfiable"] == "ScheduleAnyway"


def test_bounds_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(InvalidSpecError, match="minReplicas is above maxReplicas"):
        agent(autoscaling={"minReplicas": 3, "maxReplicas": 2})


def test_pods_that_would_share_a_volume_are_refused() -> None:
    body = hosted(storage="1Gi").model_dump(by_alias=True, exclude_unset=True)
    body["spec"]["autoscaling"] = {"maxReplicas": 2}
    with pytest.raises(InvalidSpecError, match=r"cannot share hostedConfig\.storage"):
        api.ModelAPI.parse(body)


def extension(group: str, *, available: bool) -> dict[str, Any]:
    """How a cluster tells of somebody who extends its API."""
    status = {"conditions": [{"type": "Available", "status": str(available)}]}
    return {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": f"v1.{group}"},
        "spec": {"group": group, "version": "v1"},
        "status": status,
    }


async def test_metrics_of_pods_are_used_from_when_to_when_they_are_served(
    cluster: Cluster,
) -> None:
    await cluster.install(
        foreign_kind("apiregistration.k8s.io", "v1", "APIService", scope="Cluster")
    )
    await cluster.ready_model()
    await cluster.apply("Agent", "one", {**AGENT, **RUNS})
    await cluster.roll_out("one")

    def says_why(agent: Object) -> bool:
        found = find_condition(agent.status.get("conditions", ()), "Available") or {}
        return "nobody serves custom.metrics.k8s.io" in found.get("message", "")

    def metrics(number: int) -> Any:
        return lambda scaler: len(scaler.spec["metrics"]) == number

    await cluster.eventually(api.Agent, "one", says_why)
    for group, available, expected in (
        ("metrics.k8s.io", True, 1),
        ("custom.metrics.k8s.io", True, 2),
        ("custom.metrics.k8s.io", False, 1),
    ):
        await cluster.granted(extension(group, available=available))
        await cluster.eventually(HORIZONTAL_POD_AUTOSCALER, "one", metrics(expected))
        if expected == 2:
            await cluster.eventually(api.Agent, "one", lambda a: not says_why(a))
    await cluster.eventually(api.Agent, "one", says_why)


def replicas(number: int) -> Any:
    return lambda found: found.spec["replicas"] == number


async def scale(cluster: Cluster, number: int) -> None:
    """What an HPA does."""
    body = {"spec": {"replicas": number}}
    await cluster.patch(DEPLOYMENT, "one", body, "scale")


def autoscaled(found: Object) -> bool:
    return found.metadata.annotations.get("kaos.tools/replicas") == "autoscaled"


async def test_an_autoscaler_takes_over_without_a_pod_lost_and_is_not_fought(
    cluster: Cluster,
) -> None:
    await cluster.ready_model()
    await cluster.apply("Agent", "one", {**AGENT, "replicas": 4})
    await cluster.eventually(DEPLOYMENT, "one", replicas(4))

    await cluster.apply("Agent", "one", {**AGENT, "replicas": 4, **AUTO})

    await cluster.eventually(HORIZONTAL_POD_AUTOSCALER, "one", lambda _: True)
    await cluster.eventually(POD_DISRUPTION_BUDGET, "one", lambda _: True)
    taken = await cluster.eventually(DEPLOYMENT, "one", autoscaled)
    assert taken.spec["replicas"] == 4  # nobody's field would have come back as 1

    await scale(cluster, 5)
    await cluster.apply(
        "Agent", "one", {**AGENT, "replicas": 4, **AUTO, "config": {"description": "poke"}}
    )
    poked = await cluster.eventually(
        DEPLOYMENT, "one", lambda d: d.metadata.generation > taken.metadata.generation + 1
    )
    assert poked.spec["replicas"] == 5

    await cluster.apply("Agent", "one", {**AGENT, "replicas": 3})

    await cluster.eventually(DEPLOYMENT, "one", replicas(3))
    await cluster.gone(HORIZONTAL_POD_AUTOSCALER, "one")


async def test_an_autoscaled_agent_that_was_suspended_starts_again(cluster: Cluster) -> None:
    await cluster.ready_model()
    await cluster.apply("Agent", "one", {**AGENT, **AUTO})
    await cluster.eventually(DEPLOYMENT, "one", replicas(1))  # the HPA raises it to its minimum
    await scale(cluster, 5)

    await cluster.apply("Agent", "one", {**AGENT, **AUTO, "suspend": True})
    await cluster.eventually(DEPLOYMENT, "one", replicas(0))
    await cluster.gone(HORIZONTAL_POD_AUTOSCALER, "one")  # it would leave zero alone for ever

    await cluster.apply("Agent", "one", {**AGENT, **AUTO})
    await cluster.eventually(DEPLOYMENT, "one", replicas(1))
    await cluster.eventually(HORIZONTAL_POD_AUTOSCALER, "one", lambda _: True)
