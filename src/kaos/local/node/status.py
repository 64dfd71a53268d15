"""From the states of a pod's containers to the status that clients read. Pure.

Guarantees: phase, conditions and container statuses follow the kubelet's rules, with its words,
so that `kubectl get pods`, `kubectl wait` and scripts that read reasons work as on any cluster.

Does not: know processes or write anything.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

ADDRESS = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Waiting:
    """Not running yet, or not any more for the time being."""

    reason: str = "ContainerCreating"
    message: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As the API writes it."""
        return {"waiting": _filled({"reason": self.reason, "message": self.message})}


@dataclass(frozen=True, slots=True)
class Running:
    """Its process runs."""

    started_at: datetime

    def to_dict(self) -> dict[str, Any]:
        """As the API writes it."""
        return {"running": {"startedAt": timestamp(self.started_at)}}


@dataclass(frozen=True, slots=True)
class Terminated:
    """Its process has ended."""

    exit_code: int
    reason: str
    started_at: datetime
    finished_at: datetime
    signal: int = 0
    message: str = ""
    container_id: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As the API writes it."""
        body: dict[str, Any] = {
            "exitCode": self.exit_code,
            "signal": self.signal,
            "reason": self.reason,
            "message": self.message,
            "startedAt": timestamp(self.started_at),
            "finishedAt": timestamp(self.finished_at),
            "containerID": self.container_id,
        }
        return {"terminated": {"exitCode": self.exit_code, **_filled(body)}}


@dataclass(frozen=True, slots=True)
class ContainerState:
    """All that is known of one container of a pod."""

    name: str
    image: str
    state: Waiting | Running | Terminated = Waiting()
    last: Terminated | None = None
    restarts: int = 0
    ready: bool = False
    started: bool = False
    image_id: str = ""
    container_id: str = ""
    sidecar: bool = False
    """An init container that keeps running (restartPolicy: Always)."""

    def with_(self, **changes: Any) -> "ContainerState":
        """A copy with some fields changed."""
        return replace(self, **changes)

    @property
    def succeeded(self) -> bool:
        """Whether it has ended with exit code 0."""
        return isinstance(self.state, Terminated) and self.state.exit_code == 0

    def to_dict(self) -> dict[str, Any]:
        """As the API writes it."""
        return {
            "name": self.name,
            "image": self.image,
            "imageID": self.image_id,
            "state": self.state.to_dict(),
            "lastState": self.last.to_dict() if self.last else {},
            "ready": self.ready,
            "restartCount": self.restarts,
            "started": self.started,
            **_filled({"containerID": self.container_id}),
        }


def crash_loop(delay: float, name: str, pod: str) -> Waiting:
    """The state of a container between a crash and its next start."""
    shown = f"{delay:g}s" if delay < 60 else f"{int(delay // 60)}m{int(delay % 60)}s"
    return Waiting(
        "CrashLoopBackOff", f"back-off {shown} restarting failed container={name} pod={pod}"
    )


def pod_status(
    pod: Mapping[str, Any],
    init: Sequence[ContainerState],
    main: Sequence[ContainerState],
    *,
    started_at: datetime,
    now: datetime,
    ended: bool = False,
) -> dict[str, Any]:
    """The whole status of a pod.

    Args:
        pod: The pod as the API has it; conditions of its status that are not the node's stay, and
            times stay where nothing changed.
        init: Init containers, in order.
        main: The containers.
        started_at: When the node took the pod over.
        now: The present.
        ended: It was stopped and nothing of it runs or will run again.
    """
    spec = pod.get("spec", {})
    policy = spec.get("restartPolicy", "Always")
    phase = _phase(init, main, "Never" if ended else policy)
    if ended and phase not in ("Succeeded", "Failed"):
        phase = "Failed"  # it was stopped before it ran
    body: dict[str, Any] = {
        "phase": phase,
        "conditions": _conditions(pod, phase, init, main, now),
        "containerStatuses": [state.to_dict() for state in main],
        "hostIP": ADDRESS,
        "hostIPs": [{"ip": ADDRESS}],
        "podIP": ADDRESS,
        "podIPs": [{"ip": ADDRESS}],
        "startTime": timestamp(started_at),
        "qosClass": qos_class([*spec.get("initContainers", []), *spec.get("containers", [])]),
        "observedGeneration": pod.get("metadata", {}).get("generation", 1),
    }
    if init:
        body["initContainerStatuses"] = [
            # An init container that did its work is "ready"; so shows kubectl describe.
            state.with_(ready=state.ready if state.sidecar else state.succeeded).to_dict()
            for state in init
        ]
    return body


def _phase(init: Sequence[ContainerState], main: Sequence[ContainerState], policy: str) -> str:
    for state in init:
        if not state.sidecar and not state.succeeded:
            failed = isinstance(state.state, Terminated) and policy == "Never"
            return "Failed" if failed else "Pending"
    if any(isinstance(s.state, Waiting) and s.last is None for s in main):
        return "Pending"
    sidecars = [state for state in init if state.sidecar]
    if any(not isinstance(s.state, Terminated) for s in [*main, *sidecars]):
        return "Running"
    if policy == "Always":
        return "Running"
    if all(state.succeeded for state in main):
        return "Succeeded"
    return "Running" if policy == "OnFailure" else "Failed"


def _conditions(
    pod: Mapping[str, Any],
    phase: str,
    init: Sequence[ContainerState],
    main: Sequence[ContainerState],
    now: datetime,
) -> list[dict[str, Any]]:
    undone = [s.name for s in init if not (s.started if s.sidecar else s.succeeded)]
    initialized = ("True", "", "")
    if undone:
        text = f"containers with incomplete status: {_names(undone)}"
        initialized = ("False", "ContainersNotInitialized", text)
    unready = [s.name for s in [*(s for s in init if s.sidecar), *main] if not s.ready]
    if phase == "Succeeded":
        ready = ("False", "PodCompleted", "")
    elif phase == "Failed":
        ready = ("False", "PodFailed", "")
    elif unready:
        ready = (
            "False",
            "ContainersNotReady",
            f"containers with unready status: {_names(unready)}",
        )
    else:
        ready = ("True", "", "")
    old = {c["type"]: c for c in pod.get("status", {}).get("conditions") or []}
    gates = [gate["conditionType"] for gate in pod.get("spec", {}).get("readinessGates") or []]
    missing = [gate for gate in gates if old.get(gate, {}).get("status") != "True"]
    overall = ready
    if ready[0] == "True" and missing:
        text = f"the status of pod readiness gates {_names(missing)} is not True"
        overall = ("False", "ReadinessGatesNotReady", text)
    wanted = {
        "Initialized": initialized,
        "Ready": overall,
        "ContainersReady": ready,
        "PodScheduled": ("True", "", ""),
    }
    others = [c for name, c in old.items() if name not in wanted]
    return [_condition(name, *rest, old.get(name), now) for name, rest in wanted.items()] + others


def _condition(
    kind: str,
    status: str,
    reason: str,
    message: str,
    old: Mapping[str, Any] | None,
    now: datetime,
) -> dict[str, Any]:
    same = old is not None and old.get("status") == status
    return {
        "type": kind,
        "status": status,
        "lastProbeTime": None,
        "lastTransitionTime": old["lastTransitionTime"] if old and same else timestamp(now),
        **_filled({"reason": reason, "message": message}),
    }


def qos_class(containers: Iterable[Mapping[str, Any]]) -> str:
    """Guaranteed, Burstable or BestEffort, from the containers' resources."""
    any_set, guaranteed = False, True
    for container in containers:
        resources = container.get("resources") or {}
        requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
        for name in ("cpu", "memory"):
            any_set = any_set or name in requests or name in limits
            if name not in limits or requests.get(name, limits[name]) != limits[name]:
                guaranteed = False
    if not any_set:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def is_ready(pod: Mapping[str, Any]) -> bool:
    """Whether a pod's Ready condition is true."""
    return condition_of(pod, "Ready").get("status") == "True"


def condition_of(obj: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """A condition of an object's status; empty when it has none of that type."""
    for condition in (obj.get("status") or {}).get("conditions") or []:
        if condition.get("type") == kind:
            found: Mapping[str, Any] = condition
            return found
    return {}


def timestamp(moment: datetime) -> str:
    """A time as the API writes it: UTC, whole seconds."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def parse_timestamp(text: str) -> datetime:
    """A time that the API wrote."""
    return datetime.fromisoformat(text)


def _names(names: Sequence[str]) -> str:
    return f"[{' '.join(names)}]"


def _filled(body: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if value}
