"""What a Deployment and its pods say about whether a resource serves.

Pure: statuses in, one verdict out. A rollout counts as available only when it is complete, so a
broken new revision is never hidden by the old pods that still answer; and what stops a pod is
told in the words of whoever said it (the kubelet, the registry, the process's last line).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

WAITING_PROBLEMS = {
    "CrashLoopBackOff",
    "CreateContainerConfigError",
    "CreateContainerError",
    "ErrImageNeverPull",
    "ErrImagePull",
    "ImageNotRunnable",
    "ImagePullBackOff",
    "InvalidImageName",
    "RunContainerError",
}
MESSAGE_LIMIT = 1024


@dataclass(frozen=True, slots=True)
class PodView:
    """What is read of a pod."""

    name: str
    deleting: bool
    status: dict[str, Any]

    @property
    def gone(self) -> bool:
        """Whether it will not serve, whatever it says: another one has been started for it."""
        return self.deleting or self.status.get("phase") in ("Failed", "Succeeded")  # evicted


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a pod does not serve.

    Attributes:
        reason: a CamelCase word.
        message: which container of which pod, and the last words.
        container: the container's name, empty when it is the pod as a whole.
        words: the last words alone.
    """

    reason: str
    message: str
    container: str = ""
    words: str = ""


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether the rollout is complete, and if not, why."""

    available: bool
    reason: str
    message: str
    replicas: int = 0
    ready_replicas: int = 0
    problem: Problem | None = None


def availability(
    generation: int, wanted: int, status: dict[str, Any], pods: Sequence[PodView]
) -> Availability:
    """The verdict on a workload.

    Args:
        generation: the Deployment's metadata.generation.
        wanted: its spec.replicas.
        status: its status.
        pods: the pods that its selector finds.
    """
    replicas, ready = status.get("replicas", 0), status.get("readyReplicas", 0)
    updated, available = status.get("updatedReplicas", 0), status.get("availableReplicas", 0)
    problem = next((p for pod in pods if not pod.gone and (p := find_problem(pod))), None)

    def verdict(ok: bool, reason: str, message: str) -> Availability:
        return Availability(ok, reason, message, replicas, ready, problem)

    if status.get("observedGeneration", 0) < generation:
        return verdict(False, "RolloutPending", "the rollout has not started yet")
    if updated >= wanted and available >= wanted and replicas == wanted:
        if wanted == 0:
            return verdict(False, "ScaledToZero", "no pod is asked for (replicas is 0)")
        return verdict(True, "RolloutComplete", f"{available} of {wanted} pods serve")
    if problem:
        return verdict(False, problem.reason, problem.message)
    for condition in status.get("conditions", ()):
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            return verdict(False, condition.get("reason", "ReplicaFailure"), condition["message"])
    message = f"{min(updated, available)} of {wanted} pods of the current revision serve"
    return verdict(False, "RolloutInProgress", message)


def find_problem(pod: PodView) -> Problem | None:
    """What stops a pod from serving, if something does."""
    for condition in pod.status.get("conditions", ()):
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            reason = condition.get("reason", "Unschedulable")
            words = condition.get("message", "")
            return Problem(reason, _limited(f"pod {pod.name}: {words}"), words=words)
    statuses = [
        *pod.status.get("initContainerStatuses", ()),
        *pod.status.get("containerStatuses", ()),
    ]
    for container in statuses:
        state = container.get("state", {})
        waiting, ended = state.get("waiting", {}), state.get("terminated", {})
        last = container.get("lastState", {}).get("terminated", {})
        # What ended before counts only while the container is kept from running again: one that
        # starts anew may start well, as all do when the embedded cluster comes back.
        if waiting.get("reason") in WAITING_PROBLEMS:
            reason = waiting["reason"]
            words = last_words(last.get("message", "")) or waiting.get("message", "")
        elif ended.get("exitCode", 0) != 0:
            reason = ended.get("reason") or "Error"
            words = last_words(ended.get("message", "")) or f"exit code {ended['exitCode']}"
        else:
            continue
        name = container.get("name", "")
        return Problem(
            reason, _limited(f"container {name} of pod {pod.name}: {words}"), name, _limited(words)
        )
    return None


def last_words(log: str) -> str:
    """The last line of a log; of a structured line, what it says."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    if not lines:
        return ""
    try:
        record = json.loads(lines[-1])
    except ValueError:
        return lines[-1]
    if not isinstance(record, dict):
        return lines[-1]
    said = [str(record[key]) for key in ("event", "error") if record.get(key)]
    return ": ".join(said) or lines[-1]


def _limited(text: str) -> str:
    return text if len(text) <= MESSAGE_LIMIT else text[: MESSAGE_LIMIT - 1] + "…"
