"""Who decides how many pods: a hand, an autoscaler, the spec; each in its turn."""

import pytest

from tests.e2e.scenarios.client import ask, load
from tests.e2e.scenarios.manifests import Manifest, agent, as_list, proxy, scripted_model
from tests.e2e.scenarios.targets import Embedded, Target, eventually

ECHO = {"turns": [{"text": "scripted answer"}], "repeat": True}


def apply(target: Target, namespace: str, *manifests: Manifest) -> None:
    target.kubectl("apply", "-n", namespace, "-f", "-", stdin=as_list(*manifests))


def replicas(target: Target, namespace: str, name: str) -> int:
    return int(target.get("deployment", name, namespace)["spec"]["replicas"])


def test_a_number_that_was_set_by_hand_is_left_alone(target: Target, namespace: str) -> None:
    model = (*scripted_model("scripted", ECHO), proxy("model", "scripted"))
    apply(target, namespace, *model, agent("hand"))
    target.wait_ready("agent", "hand", namespace)

    target.kubectl("scale", "deployment/hand", "-n", namespace, "--replicas=2")
    apply(target, namespace, agent("hand", config={"instructions": "something new"}))

    def both_new() -> bool:
        status = target.get("deployment", "hand", namespace).get("status", {})
        return bool(status.get("updatedReplicas") == 2 == status.get("availableReplicas"))

    eventually("two pods of the new revision", both_new, 120)
    assert replicas(target, namespace, "hand") == 2

    target.kubectl("scale", "agent/hand", "-n", namespace, "--replicas=3")
    eventually("what the agent declares", lambda: replicas(target, namespace, "hand") == 3)


def test_an_autoscaler_scales_a_loaded_agent_and_hands_the_number_back(
    target: Target, namespace: str
) -> None:
    if isinstance(target, Embedded):
        pytest.skip("the embedded cluster keeps autoscalers and does not run them")
    if not target.kubectl("get", "apiservice", "v1beta1.metrics.k8s.io", "-o", "name", check=False):
        pytest.skip("an autoscaler needs the resource metrics API")
    auto = {"minReplicas": 1, "maxReplicas": 3, "targetCPUUtilizationPercentage": 20}
    model = (*scripted_model("scripted", ECHO), proxy("model", "scripted"))
    apply(target, namespace, *model, agent("busy", autoscaling=auto))
    target.wait_ready("agent", "busy", namespace)
    url = f"{target.gateway}/{namespace}/agent/busy"

    def answers() -> bool:
        try:
            return bool(ask(url, "there?"))
        except Exception:  # noqa: BLE001 - whatever it is, it is not there yet
            return False

    eventually("the route", answers)
    with load(url, "work", threads=4, pause=0):
        eventually("more pods", lambda: replicas(target, namespace, "busy") > 1, 240, 2)
        target.kubectl(
            *("patch", "agent", "busy", "-n", namespace, "--type=merge"),
            *("-p", '{"spec": {"config": {"description": "changed under load"}}}'),
        )
        assert replicas(target, namespace, "busy") > 1

    apply(target, namespace, agent("busy"))
    eventually("the declared number", lambda: replicas(target, namespace, "busy") == 1)
    assert not target.names("hpa", namespace)
