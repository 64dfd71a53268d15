"""The words of `status.conditions`: types, reasons, and how Ready sums the others up.

Every reason that the controller sets is listed here (the kubelet's own, such as
ImagePullBackOff, pass through Available unchanged). docs/reference/conditions.md explains each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Type(StrEnum):
    """Condition types."""

    READY = "Ready"
    ACCEPTED = "Accepted"
    DEPENDENCIES = "DependenciesReady"
    AVAILABLE = "Available"
    ROUTED = "Routed"


class Reason(StrEnum):
    """Reasons of the controller's own."""

    READY = "Ready"
    SPEC_VALID = "SpecValid"
    INVALID_SPEC = "InvalidSpec"
    MODEL_NOT_SERVED = "ModelNotServed"
    REF_NOT_PERMITTED = "RefNotPermitted"
    NO_ACCOUNT_TOKENS = "NoAccountTokens"
    NAME_CONFLICT = "NameConflict"
    REFUSED = "Refused"
    APPLY_FAILED = "ApplyFailed"
    RECONCILE_FAILED = "ReconcileFailed"
    SUSPENDED = "Suspended"
    DEPENDENCIES_READY = "DependenciesReady"
    DEPENDENCY_MISSING = "DependencyMissing"
    DEPENDENCY_NOT_READY = "DependencyNotReady"
    WAITING_FOR_DEPENDENCIES = "WaitingForDependencies"
    REMOTE = "Remote"
    MODEL_PULLING = "ModelPulling"
    MODEL_PULL_FAILED = "ModelPullFailed"
    ROUTE_ACCEPTED = "RouteAccepted"
    ROUTE_PENDING = "RoutePending"
    ROUTE_CONFLICT = "RouteConflict"
    NOT_EXPOSED = "NotExposed"
    GATEWAY_API_MISSING = "GatewayAPIMissing"


class Phase(StrEnum):
    """The one word of `status.phase`."""

    PENDING = "Pending"
    WAITING = "Waiting"
    READY = "Ready"
    FAILED = "Failed"
    SUSPENDED = "Suspended"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one condition is to say."""

    type: Type
    ok: bool
    reason: str
    message: str


def summary(findings: Sequence[Finding]) -> Finding:
    """Ready: True when every other finding is, else the first that is not, in its own words.

    Routed does not count: a resource that no gateway serves still answers inside the cluster.
    """
    for finding in findings:
        if not finding.ok and finding.type is not Type.ROUTED:
            return Finding(Type.READY, False, finding.reason, finding.message)
    return Finding(Type.READY, True, Reason.READY, "everything declared works")


def phase(findings: Sequence[Finding], *, problem: bool) -> Phase:
    """The phase that the findings amount to.

    Args:
        findings: the conditions, without Ready.
        problem: whether a pod says that it cannot run.
    """
    failed = {finding.type for finding in findings if not finding.ok}
    if Type.ACCEPTED in failed:
        return Phase.FAILED
    if Type.AVAILABLE in failed and problem:
        return Phase.FAILED
    if Type.DEPENDENCIES in failed:
        return Phase.WAITING
    return Phase.PENDING if Type.AVAILABLE in failed else Phase.READY
