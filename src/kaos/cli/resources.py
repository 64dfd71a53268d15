"""What an object of ours says about itself, in the words that tables and messages use.

Pure: from an object (as a dict) to a `Row`. The one place in the CLI that reads conditions.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

ROUTE_PENDING = "RoutePending"
_ROUTE_ACCEPTED = "RouteAccepted"
_ROUTE_CONFLICT = "RouteConflict"
_NOT_EXPOSED = "NotExposed"
_SUSPENDED = "Suspended"
_SCALED_TO_ZERO = "ScaledToZero"


@dataclasses.dataclass(frozen=True, slots=True)
class Key:
    """Which object: what a row of a table is about."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        """``Agent/assistant``, with the namespace when it is not the default one."""
        where = "" if self.namespace == "default" else f"{self.namespace}/"
        return f"{self.kind}/{where}{self.name}"


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """How one object is doing."""

    key: Key
    state: str  # Ready | Suspended | Waiting | Pending | Failed
    message: str = ""
    reason: str = ""
    progress: float | None = None  # of a download: 0 to 1
    # Of the spec that this is about; two rows that say the same are equal nevertheless.
    generation: int = dataclasses.field(default=0, compare=False)

    @property
    def ready(self) -> bool:
        """Whether it does what its spec says, as of its newest generation."""
        return self.state == "Ready"

    @property
    def suspended(self) -> bool:
        """Whether no pod is asked for: as long as the spec says so, there is none to wait for."""
        return self.state == _SUSPENDED

    @property
    def settled(self) -> bool:
        """Whether nothing is to come: it is ready, or wants no pod."""
        return self.ready or self.suspended

    @property
    def failed(self) -> bool:
        """Whether waiting alone will not help."""
        return self.state == "Failed"


def key_of(body: Mapping[str, Any]) -> Key:
    """The key of an object."""
    metadata = body["metadata"]
    return Key(str(body["kind"]), str(metadata.get("namespace") or "default"), metadata["name"])


def row_of(body: Mapping[str, Any]) -> Row:
    """The state of an object: what condition Ready says, if it was said of the present spec."""
    row = _row_of(body)
    return dataclasses.replace(row, generation=int(body["metadata"].get("generation", 0)))


def _row_of(body: Mapping[str, Any]) -> Row:
    key = key_of(body)
    status = body.get("status") or {}
    ready = condition(body, "Ready")
    if ready is None or _stale(body, ready):
        return Row(key, "Pending", "not yet seen by the controller")
    reason = str(ready.get("reason", ""))
    if ready.get("status") == "True":
        routed = condition(body, "Routed")
        if routed and routed.get("status") != "True" and routed.get("reason") == ROUTE_PENDING:
            # It answers inside the cluster; a user at the gateway would still meet a 404.
            return Row(key, "Pending", str(routed.get("message", "")), ROUTE_PENDING)
        return Row(key, "Ready", "", reason)
    phase = str(status.get("phase") or "Pending")
    state = phase if phase in ("Waiting", "Failed") else "Pending"
    available = condition(body, "Available") or {}
    if state != "Failed" and available.get("reason") in (_SUSPENDED, _SCALED_TO_ZERO):
        # Ready may speak of a dependency that is missing, which nobody needs now.
        return Row(key, _SUSPENDED, str(available.get("message", "")), str(available["reason"]))
    pull = status.get("pull") or {}
    progress = pull.get("completed", 0) / pull["total"] if pull.get("total") else None
    return Row(key, state, str(ready.get("message") or reason), reason, progress)


def condition(body: Mapping[str, Any], type_: str) -> Mapping[str, Any] | None:
    """The condition of that type."""
    for found in (body.get("status") or {}).get("conditions") or ():
        if found.get("type") == type_:
            return dict(found)
    return None


def gateway_path(body: Mapping[str, Any]) -> str:
    """Under which path the gateway serves an Agent; empty when under none.

    The short one may belong to a namesake in another namespace: what Routed says decides.
    """
    key = key_of(body)
    routed = condition(body, "Routed")
    reason = routed.get("reason") if routed else ""
    if row_of(body).suspended or reason not in (_ROUTE_ACCEPTED, _ROUTE_CONFLICT):
        return ""
    return f"/{key.name}" if reason == _ROUTE_ACCEPTED else f"/{key.namespace}/agent/{key.name}"


def unreachable(body: Mapping[str, Any]) -> str:
    """Why the gateway cannot lead anybody to an Agent, in words after "is"; empty when it can."""
    row = row_of(body)
    if row.suspended:
        return f"suspended: {row.message}"
    routed = condition(body, "Routed")
    if routed and routed.get("reason") == _NOT_EXPOSED:
        return f"not exposed: {routed.get('message', '')}"
    return ""


def not_true(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The conditions that are not True, Ready (which only sums up the others) last."""
    conditions = (body.get("status") or {}).get("conditions") or []
    return sorted(
        (found for found in conditions if found.get("status") != "True"),
        key=lambda found: found.get("type") == "Ready",
    )


def _stale(body: Mapping[str, Any], ready: Mapping[str, Any]) -> bool:
    generation = body["metadata"].get("generation", 0)
    observed = ready.get("observedGeneration")
    return isinstance(observed, int) and observed < int(generation)
