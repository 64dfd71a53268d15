"""From container states to a pod's and a Deployment's status."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kaos.local.node.backoff import Backoff
from kaos.local.node.podrecord import previous_state
from kaos.local.node.rollout import Bounds, PodFacts
from kaos.local.node.rollout_status import rollout_status
from kaos.local.node.status import (
    ContainerState,
    Running,
    Terminated,
    Waiting,
    crash_loop,
    pod_status,
    qos_class,
)

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
EARLIER = "2026-01-01T11:00:00Z"
UP = Running(NOW)


def ended(code: int) -> Terminated:
    return Terminated(code, "Error" if code else "Completed", NOW, NOW)


def state(name: str = "a", **fields: Any) -> ContainerState:
    return ContainerState(name=name, image="i", **fields)


def up(name: str = "a", **fields: Any) -> ContainerState:
    return state(name, state=UP, ready=True, started=True, **fields)


def status(
    main: list[ContainerState],
    init: list[ContainerState] | None = None,
    *,
    policy: str = "Always",
    pod: dict[str, Any] | None = None,
    is_over: bool = False,
) -> dict[str, Any]:
    body = {"metadata": {"name": "p"}, "spec": {"restartPolicy": policy}, **(pod or {})}
    return pod_status(body, init or [], main, started_at=NOW, now=NOW, ended=is_over)


def conditions(found: dict[str, Any]) -> dict[str, str]:
    return {c["type"]: c["status"] for c in found["conditions"]}


@pytest.mark.parametrize(
    ("main", "init", "policy", "phase"),
    [
        ([state()], [], "Always", "Pending"),
        ([up(), state("b")], [], "Always", "Pending"),
        ([up()], [], "Always", "Running"),
        ([state(state=Waiting("CrashLoopBackOff"), last=ended(1))], [], "Always", "Running"),
        ([state(state=ended(0))], [], "Always", "Running"),
        ([state(state=ended(0))], [], "OnFailure", "Succeeded"),
        ([state(state=ended(1))], [], "OnFailure", "Running"),
        ([state(state=ended(1)), up("b")], [], "Never", "Running"),
        ([state(state=ended(1)), state("b", state=ended(0))], [], "Never", "Failed"),
        ([state(state=ended(0))], [], "Never", "Succeeded"),
        ([state()], [up("init")], "Never", "Pending"),
        ([state()], [state("init", state=ended(1))], "Never", "Failed"),
        ([state()], [state("init", state=ended(1))], "Always", "Pending"),
        ([up()], [up("side", sidecar=True)], "Always", "Running"),
        ([state(state=ended(0))], [up("side", sidecar=True)], "Never", "Running"),
    ],
)
def test_phase(
    main: list[ContainerState], init: list[ContainerState], policy: str, phase: str
) -> None:
    assert status(main, init, policy=policy)["phase"] == phase


def test_conditions_of_a_running_pod() -> None:
    assert set(conditions(status([up()])).values()) == {"True"}
    found = status([up(), state("b", state=UP)])
    assert conditions(found) == {
        "PodScheduled": "True",
        "Initialized": "True",
        "ContainersReady": "False",
        "Ready": "False",
    }
    ready = next(c for c in found["conditions"] if c["type"] == "Ready")
    assert ready["reason"] == "ContainersNotReady"
    assert ready["message"] == "containers with unready status: [b]"


def test_conditions_of_a_pod_that_is_done() -> None:
    found = status([state(state=ended(0))], policy="Never")
    assert {c["reason"] for c in found["conditions"] if "reason" in c} == {"PodCompleted"}


def test_an_unfinished_init_container_is_named() -> None:
    found = status([state()], [up("one"), state("two")])
    initialized = next(c for c in found["conditions"] if c["type"] == "Initialized")
    assert initialized["message"] == "containers with incomplete status: [one two]"


def test_the_time_of_a_change_stays_while_nothing_changes() -> None:
    old = [
        {"type": "Ready", "status": "True", "lastTransitionTime": EARLIER},
        {"type": "ContainersReady", "status": "False", "lastTransitionTime": EARLIER},
    ]
    found = status([up()], pod={"status": {"conditions": old}})
    times = {c["type"]: c["lastTransitionTime"] for c in found["conditions"]}
    assert times["Ready"] == EARLIER
    assert times["ContainersReady"] == "2026-01-01T12:00:00Z"


def test_readiness_gates_of_others_count_and_their_conditions_stay() -> None:
    spec = {"readinessGates": [{"conditionType": "example.org/go"}]}
    found = status([up()], pod={"spec": spec})
    assert conditions(found)["Ready"] == "False"
    gate = {"type": "example.org/go", "status": "True", "lastTransitionTime": EARLIER}
    found = status([up()], pod={"spec": spec, "status": {"conditions": [gate]}})
    assert conditions(found)["Ready"] == "True"
    assert gate in found["conditions"]


@pytest.mark.parametrize(
    ("main", "phase"),
    [
        ([state(state=ended(0))], "Succeeded"),
        ([state(state=ended(143))], "Failed"),
        ([state()], "Failed"),
    ],
)
def test_a_pod_that_was_stopped_has_ended_whatever_its_policy(
    main: list[ContainerState], phase: str
) -> None:
    assert status(main, is_over=True)["phase"] == phase


def test_a_container_status_as_clients_read_it() -> None:
    found = up(restarts=2, last=ended(1), container_id="process://7").to_dict()
    assert found["state"] == {"running": {"startedAt": "2026-01-01T12:00:00Z"}}
    assert found["lastState"]["terminated"]["exitCode"] == 1
    assert (found["restartCount"], found["containerID"]) == (2, "process://7")
    assert state(state=ended(0)).to_dict()["state"]["terminated"]["exitCode"] == 0


def test_crash_loop_message() -> None:
    assert crash_loop(0.5, "a", "ns/p").message == (
        "back-off 0.5s restarting failed container=a pod=ns/p"
    )
    assert "back-off 5m0s " in crash_loop(300, "a", "p").message


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ([{}], "BestEffort"),
        ([{"requests": {"cpu": "1"}}], "Burstable"),
        ([{"limits": {"cpu": "1", "memory": "1Gi"}}], "Guaranteed"),
        ([{"limits": {"cpu": "1", "memory": "1Gi"}}, {}], "Burstable"),
        (
            [{"requests": {"cpu": "1", "memory": "1"}, "limits": {"cpu": "2", "memory": "1"}}],
            "Burstable",
        ),
    ],
)
def test_qos_class(resources: list[dict[str, Any]], expected: str) -> None:
    assert qos_class([{"resources": found} for found in resources]) == expected


def test_backoff_is_that_of_the_kubelet() -> None:
    backoff = Backoff(base=10)
    assert [backoff.after_run(1) for _ in range(8)] == [0, 10, 20, 40, 80, 160, 300, 300]
    assert [backoff.after_run(600), backoff.after_run(1)] == [0, 10]


def test_restarts_go_on_counting_over_a_restart_of_the_node() -> None:
    spec = {"name": "a", "image": "i"}
    known = {
        "name": "a",
        "restartCount": 3,
        "containerID": "process://1",
        "state": {"running": {"startedAt": EARLIER}},
    }
    found = previous_state({"status": {"containerStatuses": [known]}}, spec)
    assert found.restarts == 4
    assert found.last is not None
    assert (found.last.reason, found.last.exit_code) == ("Unknown", 255)
    assert previous_state({}, spec).restarts == 0
    never_started = {"name": "a", "restartCount": 0, "state": {"waiting": {}}}
    assert previous_state({"status": {"containerStatuses": [never_started]}}, spec).last is None


# Deployments


def facts(count: int, template: str = "t", **fields: Any) -> list[PodFacts]:
    return [PodFacts(f"{template}{i}", template, **fields) for i in range(count)]


GOOD: dict[str, Any] = {"ready": True, "available": True}


def rolled(
    pods: list[PodFacts],
    *,
    old: dict[str, Any] | None = None,
    now: datetime = NOW,
    bounds: Bounds | None = None,
    **spec: Any,
) -> Any:
    body = {"metadata": {"name": "web", "generation": 2}, "spec": spec, "status": old or {}}
    return rollout_status(body, bounds or Bounds(2, 1, 0), "t", pods, now=now)


def reasons(found: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {c["type"]: (c["status"], c["reason"]) for c in found["conditions"]}


def test_a_rollout_from_its_beginning_to_its_end() -> None:
    first = rolled(facts(2)).status
    assert reasons(first) == {
        "Available": ("False", "MinimumReplicasUnavailable"),
        "Progressing": ("True", "NewReplicaSetCreated"),
    }
    assert (first["replicas"], first["unavailableReplicas"]) == (2, 2)
    assert "readyReplicas" not in first
    later = NOW + timedelta(seconds=5)
    half = rolled([*facts(1), *facts(1, **GOOD)], old=first, now=later).status
    assert reasons(half)["Progressing"] == ("True", "ReplicaSetUpdated")
    done = rolled(facts(2, **GOOD), old=half, now=later).status
    assert reasons(done) == {
        "Available": ("True", "MinimumReplicasAvailable"),
        "Progressing": ("True", "NewReplicaSetAvailable"),
    }
    assert done["observedGeneration"] == 2
    assert rolled(facts(2, **GOOD), old=done, now=later).status == done


def test_a_rollout_that_stands_still_is_over_its_deadline() -> None:
    first = rolled(facts(2), progressDeadlineSeconds=10)
    assert first.requeue_after == 10
    soon = NOW + timedelta(seconds=4)
    waiting = rolled(facts(2), old=first.status, now=soon, progressDeadlineSeconds=10)
    assert waiting.requeue_after == 6
    late = NOW + timedelta(seconds=11)
    over = rolled(facts(2), old=waiting.status, now=late, progressDeadlineSeconds=10).status
    assert reasons(over)["Progressing"] == ("False", "ProgressDeadlineExceeded")
    again = rolled(facts(2), old=over, now=late, progressDeadlineSeconds=10).status
    assert again == over
    done = rolled(facts(2, **GOOD), old=over, now=late, progressDeadlineSeconds=10).status
    assert reasons(done)["Progressing"] == ("True", "NewReplicaSetAvailable")


def test_a_pod_lost_after_the_rollout_is_no_rollout_without_progress() -> None:
    done = rolled(facts(2, **GOOD)).status
    late = NOW + timedelta(hours=1)
    lost = rolled(facts(2), old=done, now=late).status
    assert reasons(lost) == {
        "Available": ("False", "MinimumReplicasUnavailable"),
        "Progressing": ("True", "NewReplicaSetAvailable"),
    }


def test_min_ready_seconds_asks_to_be_looked_at_again() -> None:
    pods = facts(2, ready=True, ready_since=NOW - timedelta(seconds=4))
    assert rolled(pods, minReadySeconds=10).requeue_after == 6


def test_old_and_leaving_pods_are_counted_apart() -> None:
    pods = [*facts(1, **GOOD), *facts(1, "old", **GOOD), *facts(1, "gone", deleting=True)]
    found = rolled(pods).status
    assert (found["replicas"], found["updatedReplicas"], found["terminatingReplicas"]) == (2, 1, 1)
    assert reasons(found)["Progressing"][1] != "NewReplicaSetAvailable"


def test_paused_and_failed() -> None:
    found = rolled(facts(2), bounds=Bounds(2, 1, 0, paused=True)).status
    assert reasons(found)["Progressing"] == ("Unknown", "DeploymentPaused")
    body = {"metadata": {"name": "web"}, "spec": {}}
    bad = rollout_status(body, Bounds(1, 1, 0), "t", [], now=NOW, failure="quota").status
    assert reasons(bad)["ReplicaFailure"] == ("True", "FailedCreate")
    body["status"] = bad
    assert "ReplicaFailure" not in reasons(
        rollout_status(body, Bounds(1, 1, 0), "t", [], now=NOW).status
    )
