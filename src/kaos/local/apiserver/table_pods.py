"""The STATUS of a pod in a table: one word out of phase, containers and deletion.

Guarantees the words that people and scripts look for: a container's waiting reason
(CrashLoopBackOff, ErrImagePull), Init:1/2, Terminating, Completed, NotReady. The
order in which they win over each other is that of the real server's printer.
"""

from dataclasses import dataclass
from datetime import datetime

from kaos.local.apiserver.table_cells import (
    Column,
    Obj,
    age_column,
    at,
    condition,
    duration,
    items,
    mapping,
    name_column,
    number,
    parse_time,
    text,
)


@dataclass(slots=True)
class PodSummary:
    """What the table tells of a pod."""

    status: str
    ready: int = 0
    total: int = 0
    restarts: int = 0
    restarted_at: datetime | None = None

    def restarted(self, container: Obj) -> None:
        """Count the restarts of one container."""
        self.restarts += number(container, "restartCount")
        when = parse_time(at(container, "lastState", "terminated", "finishedAt"))
        if when is not None and (self.restarted_at is None or when > self.restarted_at):
            self.restarted_at = when

    def restarts_cell(self, now: datetime) -> str:
        """``3`` or ``3 (5s ago)``."""
        if not self.restarts or self.restarted_at is None:
            return str(self.restarts)
        ago = duration((now - self.restarted_at).total_seconds())
        return f"{self.restarts} ({ago} ago)"


def summarize(pod: Obj) -> PodSummary:
    """Read a pod the way the real server prints it."""
    phase = text(pod, "status", "phase", default="Unknown")
    summary = PodSummary(text(pod, "status", "reason", default=phase))
    sidecars = {
        text(c, "name")
        for c in items(pod, "spec", "initContainers")
        if at(c, "restartPolicy") == "Always"
    }
    summary.total = len(items(pod, "spec", "containers")) + len(sidecars)
    if condition(pod, "PodScheduled").get("reason") == "SchedulingGated":
        summary.status = "SchedulingGated"
    if _initialized(pod, summary, sidecars):
        _read_containers(pod, summary)
    if at(pod, "metadata", "deletionTimestamp") and phase not in ("Succeeded", "Failed"):
        lost = at(pod, "status", "reason") == "NodeLost"
        summary.status = "Unknown" if lost else "Terminating"
    return summary


def _initialized(pod: Obj, summary: PodSummary, sidecars: set[str]) -> bool:
    """Read the init containers; False when one of them is what the pod waits for."""
    waiting_for = ""
    of_all, of_sidecars = PodSummary(""), PodSummary("")
    total = len(items(pod, "spec", "initContainers"))
    for index, container in enumerate(items(pod, "status", "initContainerStatuses")):
        of_all.restarted(container)
        if text(container, "name") in sidecars:
            of_sidecars.restarted(container)
            if at(container, "started") is True:
                summary.ready += at(container, "ready") is True
                continue
        ended = mapping(container, "state", "terminated")
        if ended and number(ended, "exitCode") == 0:
            continue
        waiting = text(container, "state", "waiting", "reason", default="")
        if ended:
            waiting_for = f"Init:{_ending(ended)}"
        elif waiting and waiting != "PodInitializing":
            waiting_for = f"Init:{waiting}"
        else:
            waiting_for = f"Init:{index}/{total}"
        break
    if waiting_for:
        summary.status = waiting_for
    done = not waiting_for or condition(pod, "Initialized").get("status") == "True"
    counted = of_sidecars if done else of_all
    summary.restarts, summary.restarted_at = counted.restarts, counted.restarted_at
    return done


def _read_containers(pod: Obj, summary: PodSummary) -> None:
    running = False
    for container in reversed(items(pod, "status", "containerStatuses")):
        summary.restarted(container)
        ended = mapping(container, "state", "terminated")
        waiting = text(container, "state", "waiting", "reason", default="")
        if waiting:
            summary.status = waiting
        elif ended:
            summary.status = _ending(ended)
        elif at(container, "ready") is True and at(container, "state", "running") is not None:
            running = True
            summary.ready += 1
    if summary.status == "Completed" and running:
        ready = condition(pod, "Ready").get("status") == "True"
        summary.status = "Running" if ready else "NotReady"


def _ending(ended: Obj) -> str:
    if signal := number(ended, "signal"):
        default = f"Signal:{signal}"
    else:
        default = f"ExitCode:{number(ended, 'exitCode')}"
    return text(ended, "reason", default=default)


def _ready(pod: Obj, _: datetime) -> str:
    summary = summarize(pod)
    return f"{summary.ready}/{summary.total}"


def _gates(pod: Obj, _: datetime) -> str:
    gates = items(pod, "spec", "readinessGates")
    met = sum(condition(pod, str(at(g, "conditionType"))).get("status") == "True" for g in gates)
    return f"{met}/{len(gates)}" if gates else "<none>"


POD_COLUMNS = (
    name_column(),
    Column("Ready", _ready),
    Column("Status", lambda pod, _: summarize(pod).status),
    Column("Restarts", lambda pod, now: summarize(pod).restarts_cell(now)),
    age_column(),
    Column("IP", lambda pod, _: text(pod, "status", "podIP"), priority=1),
    Column("Node", lambda pod, _: text(pod, "spec", "nodeName"), priority=1),
    Column("Nominated Node", lambda p, _: text(p, "status", "nominatedNodeName"), priority=1),
    Column("Readiness Gates", _gates, priority=1),
)
