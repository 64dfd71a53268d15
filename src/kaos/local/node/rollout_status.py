"""The status of a Deployment: counts and conditions, as the real controller writes them. Pure.

Guarantees: `kubectl rollout status`, `kubectl wait --for=condition=Available` and readers of
reasons work as on any cluster: the same reasons, `observedGeneration`, and zero counts left out.

Does not: name a ReplicaSet in its messages, for there are none here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from kaos.local.node.rollout import Bounds, PodFacts
from kaos.local.node.status import condition_of, parse_timestamp, timestamp

_DEADLINE_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Outcome:
    """The status, and when to look again though nothing changes."""

    status: dict[str, Any]
    requeue_after: float | None = None


def rollout_status(
    deployment: Mapping[str, Any],
    bounds: Bounds,
    template: str,
    pods: Sequence[PodFacts],
    *,
    now: datetime,
    failure: str = "",
) -> Outcome:
    """Compute a Deployment's status.

    Args:
        deployment: The Deployment as the API has it.
        bounds: Its `Bounds`.
        template: Hash of the present template.
        pods: Its pods.
        now: The present.
        failure: Why a pod could not be created, if so.
    """
    name, spec = deployment["metadata"]["name"], deployment.get("spec", {})
    generation = deployment["metadata"].get("generation", 1)
    old = deployment.get("status") or {}
    active = [pod for pod in pods if pod.active]
    available = sum(pod.available for pod in active)
    counts = {
        "replicas": len(active),
        "updatedReplicas": sum(pod.template == template for pod in active),
        "readyReplicas": sum(pod.ready for pod in active),
        "availableReplicas": available,
        "unavailableReplicas": max(0, max(len(active), bounds.replicas) - available),
        "terminatingReplicas": sum(pod.deleting for pod in pods),
    }
    progressing, deadline = _progressing(name, spec, deployment, old, counts, bounds, now)
    conditions = [_available(deployment, bounds, available, now), progressing]
    if failure:
        conditions.append(
            _condition(deployment, "ReplicaFailure", True, "FailedCreate", failure, now)
        )
    known = {c["type"] for c in conditions} | {"ReplicaFailure"}
    conditions += [dict(c) for c in old.get("conditions") or [] if c.get("type") not in known]
    filled = {key: value for key, value in counts.items() if value}
    status = {"observedGeneration": generation, **filled, "conditions": conditions}
    waits = [deadline, _until_available(spec, active, now)]
    return Outcome(status, min((w for w in waits if w is not None), default=None))


def _available(
    deployment: Mapping[str, Any], bounds: Bounds, available: int, now: datetime
) -> dict[str, Any]:
    if available >= bounds.replicas - bounds.unavailable:
        reason, text = "MinimumReplicasAvailable", "Deployment has minimum availability."
        return _condition(deployment, "Available", True, reason, text, now)
    reason, text = "MinimumReplicasUnavailable", "Deployment does not have minimum availability."
    return _condition(deployment, "Available", False, reason, text, now)


def _progressing(
    name: str,
    spec: Mapping[str, Any],
    deployment: Mapping[str, Any],
    old: Mapping[str, Any],
    counts: Mapping[str, int],
    bounds: Bounds,
    now: datetime,
) -> tuple[dict[str, Any], float | None]:
    before = condition_of(deployment, "Progressing")
    generation_seen = old.get("observedGeneration") == deployment["metadata"].get("generation", 1)
    if bounds.paused:
        text = "Deployment is paused"
        return _condition(deployment, "Progressing", None, "DeploymentPaused", text, now), None
    complete = all(
        counts[key] == bounds.replicas
        for key in ("replicas", "updatedReplicas", "availableReplicas")
    )
    if complete:
        text = f'Deployment "{name}" has successfully progressed.'
        reason = "NewReplicaSetAvailable"
        return _condition(deployment, "Progressing", True, reason, text, now), None
    finished = before.get("reason") == "NewReplicaSetAvailable"
    if finished and generation_seen:
        # A pod was lost after the rollout had ended: not a rollout that makes no progress.
        return dict(before), None
    moved = not before or not generation_seen or _moved(old, counts)
    if moved:
        text = f'Deployment "{name}" is progressing.'
        reason = "ReplicaSetUpdated" if before else "NewReplicaSetCreated"
        updated = _condition(deployment, "Progressing", True, reason, text, now, updated=True)
        return updated, _deadline(spec)
    since = parse_timestamp(before.get("lastUpdateTime") or timestamp(now))
    left = since + timedelta(seconds=_deadline(spec)) - now
    if left > timedelta() and before.get("reason") != "ProgressDeadlineExceeded":
        return dict(before), left.total_seconds()
    text = f'Deployment "{name}" has timed out progressing.'
    reason = "ProgressDeadlineExceeded"
    return _condition(deployment, "Progressing", False, reason, text, now), None


def _moved(old: Mapping[str, Any], counts: Mapping[str, int]) -> bool:
    def outdated(status: Mapping[str, Any]) -> int:
        return int(status.get("replicas", 0)) - int(status.get("updatedReplicas", 0))

    grown = ("updatedReplicas", "readyReplicas", "availableReplicas")
    return outdated(counts) < outdated(old) or any(counts[k] > old.get(k, 0) for k in grown)


def _deadline(spec: Mapping[str, Any]) -> float:
    seconds = spec.get("progressDeadlineSeconds")
    return float(_DEADLINE_SECONDS if seconds is None else seconds)


def _until_available(
    spec: Mapping[str, Any], pods: Sequence[PodFacts], now: datetime
) -> float | None:
    """Seconds until the next ready pod has been ready for `minReadySeconds`."""
    wanted = timedelta(seconds=spec.get("minReadySeconds") or 0)
    waits = [p.ready_since + wanted - now for p in pods if p.ready_since and not p.available]
    return max(0.05, min(waits).total_seconds()) if waits else None


def _condition(
    deployment: Mapping[str, Any],
    kind: str,
    status: bool | None,
    reason: str,
    message: str,
    now: datetime,
    *,
    updated: bool = False,
) -> dict[str, Any]:
    word = {True: "True", False: "False", None: "Unknown"}[status]
    old = condition_of(deployment, kind)
    stamp = timestamp(now)
    same = old.get("status") == word
    unchanged = same and old.get("reason") == reason and not updated
    return {
        "type": kind,
        "status": word,
        "lastUpdateTime": old.get("lastUpdateTime", stamp) if unchanged else stamp,
        "lastTransitionTime": old.get("lastTransitionTime", stamp) if same else stamp,
        "reason": reason,
        "message": message,
    }
