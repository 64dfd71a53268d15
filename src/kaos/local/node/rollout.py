"""What a Deployment does next: a pure planner.

Input: the Deployment and its pods as they are. Output: how many pods to create, which to delete.

Guarantees, for a RollingUpdate: creating never makes more than `replicas + maxSurge` pods; deleting
never takes an available pod away when that would leave fewer than `replicas - maxUnavailable`;
applied again and again while new pods become available it ends with exactly `replicas` pods of
the present template. For Recreate: no new pod while an old one exists, even a terminating one.

Does not: keep ReplicaSets (a pod belongs to the Deployment itself and carries the template's hash),
so there is no rollout history to undo. A paused Deployment neither starts nor continues a rollout.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from kaos.local.node.status import condition_of, parse_timestamp

HASH_LABEL = "pod-template-hash"
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
# The alphabet that Kubernetes uses for generated names: no vowels, so no words.
ALPHABET = "bcdfghjklmnpqrstvwxz2456789"

_NEVER = datetime(1, 1, 1, tzinfo=UTC)
_PHASES = {"Pending": 0, "Unknown": 1, "Running": 2}


def template_hash(template: Mapping[str, Any]) -> str:
    """The name of a pod template: the same for equal templates."""
    canonical = json.dumps(template, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(canonical.encode()).digest()
    return "".join(ALPHABET[byte % len(ALPHABET)] for byte in digest[:10])


@dataclass(frozen=True, slots=True)
class PodFacts:
    """What the planner needs to know of a pod."""

    name: str
    template: str
    ready: bool = False
    available: bool = False
    deleting: bool = False
    finished: bool = False
    phase: str = "Pending"
    assigned: bool = True
    deletion_cost: int = 0
    restarts: int = 0
    created: datetime = _NEVER
    ready_since: datetime | None = None

    @property
    def active(self) -> bool:
        """Whether it counts: not on its way out, and not ended."""
        return not self.deleting and not self.finished


def pod_facts(pod: Mapping[str, Any], *, min_ready_seconds: float, now: datetime) -> PodFacts:
    """Read the facts from a pod as the API has it."""
    metadata, status = pod.get("metadata", {}), pod.get("status") or {}
    ready = condition_of(pod, "Ready")
    is_ready = ready.get("status") == "True"
    since = parse_timestamp(ready["lastTransitionTime"]) if is_ready else None
    waited = since is not None and now - since >= timedelta(seconds=min_ready_seconds)
    containers = status.get("containerStatuses") or []
    return PodFacts(
        name=metadata["name"],
        template=(metadata.get("labels") or {}).get(HASH_LABEL, ""),
        ready=is_ready,
        available=is_ready and (min_ready_seconds <= 0 or waited),
        deleting=bool(metadata.get("deletionTimestamp")),
        finished=status.get("phase") in ("Failed", "Succeeded"),
        phase=status.get("phase", "Pending"),
        assigned=bool(pod.get("spec", {}).get("nodeName")),
        deletion_cost=_cost(metadata.get("annotations") or {}),
        restarts=max((c.get("restartCount", 0) for c in containers), default=0),
        created=parse_timestamp(metadata["creationTimestamp"]),
        ready_since=since,
    )


def _cost(annotations: Mapping[str, str]) -> int:
    try:
        return int(annotations.get(DELETION_COST, "0"))
    except ValueError:
        return 0


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many pods a Deployment wants, and how far a rollout may depart from it."""

    replicas: int
    surge: int
    unavailable: int
    recreate: bool = False
    paused: bool = False

    @classmethod
    def of(cls, spec: Mapping[str, Any]) -> "Bounds":
        """Read a Deployment's spec, with the defaults of the API."""
        replicas = 1 if spec.get("replicas") is None else int(spec["replicas"])
        strategy = spec.get("strategy") or {}
        paused = bool(spec.get("paused"))
        if strategy.get("type") == "Recreate":
            return cls(replicas, 0, replicas, recreate=True, paused=paused)
        rolling = strategy.get("rollingUpdate") or {}
        surge = _scaled(rolling.get("maxSurge", "25%"), replicas, up=True)
        unavailable = _scaled(rolling.get("maxUnavailable", "25%"), replicas, up=False)
        if surge == 0 and unavailable == 0:
            unavailable = 1  # as Kubernetes does: otherwise nothing could ever move
        return cls(replicas, surge, min(unavailable, replicas), paused=paused)


def _scaled(value: int | str, replicas: int, *, up: bool) -> int:
    if isinstance(value, str) and value.endswith("%"):
        product = int(value[:-1]) * replicas
        return -(-product // 100) if up else product // 100
    return int(value)


@dataclass(frozen=True, slots=True)
class Plan:
    """The next step."""

    create: int = 0
    delete: tuple[str, ...] = ()


def plan(bounds: Bounds, template: str, pods: Sequence[PodFacts]) -> Plan:
    """The next step of a Deployment.

    Args:
        bounds: What is wanted and allowed.
        template: Hash of the present template.
        pods: All pods of the Deployment, also those on their way out.
    """
    active = [pod for pod in pods if pod.active]
    new = [pod for pod in active if pod.template == template]
    old = [pod for pod in active if pod.template != template]
    # What has ended for good is of no use to anybody; the API keeps it until somebody removes it.
    ended = [pod.name for pod in pods if pod.finished and not pod.deleting]
    if bounds.paused and old:
        # Its size is kept, by the pods that are there; a template is not begun while paused.
        surplus = len(active) - bounds.replicas
        return Plan(delete=(*ended, *_first_to_go(active, surplus)))
    delete = [*ended, *_first_to_go(new, len(new) - bounds.replicas)]
    if bounds.recreate:
        delete += [pod.name for pod in old]
        waiting = any(pod.template != template for pod in pods if not pod.finished)
        create = 0 if waiting else max(0, bounds.replicas - len(new))
        return Plan(create, tuple(delete))
    kept_new = [pod for pod in new if pod.name not in delete]
    delete += _old_to_go(bounds, kept_new, old)
    room = bounds.replicas + bounds.surge - len(kept_new) - len(old)
    create = max(0, min(bounds.replicas - len(kept_new), room))
    return Plan(create, tuple(delete))


def _old_to_go(bounds: Bounds, new: Sequence[PodFacts], old: Sequence[PodFacts]) -> list[str]:
    """Old pods that may go now: first those that serve nobody, then available ones."""
    least = bounds.replicas - bounds.unavailable
    unavailable_new = sum(not pod.available for pod in new)
    budget = len(new) + len(old) - least - unavailable_new
    sick = [pod for pod in old if not pod.available]
    gone = _first_to_go(sick, budget)
    healthy = [pod for pod in old if pod.available]
    spare = sum(pod.available for pod in new) + len(healthy) - least
    return gone + _first_to_go(healthy, spare)


def _first_to_go(pods: Iterable[PodFacts], count: int) -> list[str]:
    return [pod.name for pod in sorted(pods, key=_worth)[: max(0, count)]]


def _worth(pod: PodFacts) -> tuple[object, ...]:
    """Sorts the pods whose loss hurts least first, in the order of the real controller."""
    return (
        pod.assigned,
        _PHASES.get(pod.phase, 1),
        pod.ready,
        pod.deletion_cost,
        -(pod.ready_since.timestamp() if pod.ready_since else 0),
        -pod.restarts,
        (_NEVER - pod.created).total_seconds(),
        pod.name,
    )
