"""A rollout counts only when it is complete, and a stopped pod's last words are told."""

from typing import Any

import pytest

from kaos.reconcilers.availability import PodView, availability, find_problem, last_words

COMPLETE = {
    "observedGeneration": 2,
    "replicas": 1,
    "readyReplicas": 1,
    "updatedReplicas": 1,
    "availableReplicas": 1,
}


def pod(**container: Any) -> PodView:
    return PodView("p", False, {"containerStatuses": [{"name": "agent", **container}]})


def test_a_complete_rollout_is_available() -> None:
    seen = availability(2, 1, COMPLETE, [])
    assert seen.available
    assert (seen.replicas, seen.ready_replicas) == (1, 1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"observedGeneration": 1}, "RolloutPending"),
        ({"updatedReplicas": 0}, "RolloutInProgress"),
        ({"availableReplicas": 0}, "RolloutInProgress"),
        ({"replicas": 2}, "RolloutInProgress"),
    ],
)
def test_w6_an_old_pod_that_answers_does_not_hide_an_unfinished_rollout(
    change: dict[str, Any], reason: str
) -> None:
    seen = availability(2, 1, {**COMPLETE, **change}, [])
    assert (seen.available, seen.reason) == (False, reason)


def test_zero_replicas_is_not_available_and_says_so() -> None:
    assert availability(2, 0, {"observedGeneration": 2}, []).reason == "ScaledToZero"


def test_the_kubelets_words_pass_through() -> None:
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    seen = availability(2, 1, {**COMPLETE, "availableReplicas": 0}, [pod(state=waiting)])
    assert seen.reason == "ImagePullBackOff"
    assert seen.message == "container agent of pod p: no such image"


def test_an_evicted_pod_is_not_what_stops_a_rollout() -> None:
    """Such pods stay for days, and every rollout in the meantime was Failed with their words."""
    killed = {"name": "agent", "state": {"terminated": {"exitCode": 137}}}
    status = {"phase": "Failed", "reason": "Evicted", "containerStatuses": [killed]}
    rollout = {**COMPLETE, "availableReplicas": 0}
    seen = availability(2, 1, rollout, [PodView("evicted", False, status)])
    assert (seen.reason, seen.problem) == ("RolloutInProgress", None)


def test_a_crash_is_told_by_the_processs_last_line() -> None:
    problem = find_problem(
        pod(
            state={"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}},
            lastState={
                "terminated": {"exitCode": 1, "message": "starting\nMODEL_NAME is missing\n"}
            },
        )
    )
    assert problem is not None
    assert (problem.reason, problem.words) == ("CrashLoopBackOff", "MODEL_NAME is missing")


@pytest.mark.parametrize(
    "state", [{"running": {}}, {"waiting": {"reason": "ContainerCreating"}}, {}]
)
def test_a_container_that_starts_again_is_no_problem(state: dict[str, Any]) -> None:
    """It may start well: after a restart of the embedded cluster all containers are like that."""
    last = {"terminated": {"exitCode": 1, "message": "killed"}}
    assert find_problem(pod(state=state, lastState=last)) is None


def test_a_container_that_ended_and_waits_for_nothing_yet_is_a_problem() -> None:
    problem = find_problem(pod(state={"terminated": {"exitCode": 3, "reason": "Error"}}))
    assert problem is not None
    assert problem.words == "exit code 3"


def test_a_pod_without_a_node_says_why() -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    problem = find_problem(
        PodView("p", False, {"conditions": [{**condition, "message": "no GPU"}]})
    )
    assert problem is not None
    assert problem.message == "pod p: no GPU"


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("", ""),
        ("one\n\ntwo\n\n", "two"),
        ('{"event": "cannot start", "error": "no port"}', "cannot start: no port"),
        ('["not", "an", "object"]', '["not", "an", "object"]'),
    ],
)
def test_last_words(log: str, words: str) -> None:
    assert last_words(log) == words
