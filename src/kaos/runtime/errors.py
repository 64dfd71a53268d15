# ruff: noqa: N818 - the names are those of the API's own reasons
"""What can go wrong between a controller and the API server, one class per case a caller handles.

Guarantees: every error prints what was asked and what the server said. Transport failures
(`Unreachable`) are never mixed with answers (`ApiError`).
Does not: retry. That is the transport's part (idempotent requests) or the queue's (reconciles).
"""

from dataclasses import dataclass
from typing import Any

import msgspec


class RuntimeFailure(Exception):
    """The base of everything this library raises on purpose."""


class TerminalError(RuntimeFailure):
    """Raised by a reconciler when only a change can help: not requeued."""


class NameConflict(RuntimeFailure):
    """A desired child's name is taken by an object that is controlled by somebody else."""

    def __init__(self, child: str, owner: str) -> None:
        super().__init__(
            f"{child} already exists and belongs to {owner}; it was left as it is. "
            "Rename the resource, or delete that object, to go on."
        )
        self.child = child
        self.owner = owner


class NotLeader(RuntimeFailure):
    """A write was refused locally, because the leader lease is not (or no longer) held."""


class LeadershipLost(RuntimeFailure):
    """The lease could not be renewed in time; the process must stop, another one may lead now."""


class Unreachable(RuntimeFailure):
    """No answer: connection refused or reset, name not found, TLS failure, or deadline passed."""

    def __init__(self, request: str, reason: str) -> None:
        super().__init__(f"{request}: {reason}")
        self.request = request
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason of a `Status`, e.g. one refused field."""

    reason: str = ""
    message: str = ""
    field: str = ""


class ApiError(RuntimeFailure):
    """The API server answered with a `Status` that says no.

    Attributes:
        status: The HTTP status code.
        reason: The machine-readable reason, e.g. ``AlreadyExists``.
        message: The server's own words.
        details: The `details` of the Status, as sent.
        retry_after: Seconds the server asked to wait, or None.
        request: What was asked, e.g. ``GET /api/v1/namespaces/default/pods/x``.
    """

    def __init__(
        self,
        status: int,
        reason: str = "",
        message: str = "",
        details: dict[str, Any] | None = None,
        *,
        retry_after: float | None = None,
        request: str = "",
    ) -> None:
        said = message or reason or "no message"
        super().__init__(f"{request}: {status} {said}" if request else f"{status} {said}")
        self.status = status
        self.reason = reason
        self.message = message
        self.details = details or {}
        self.retry_after = retry_after
        self.request = request

    @property
    def causes(self) -> list[Cause]:
        """The causes the server listed, e.g. each refused field."""
        known = ("reason", "message", "field")
        found = self.details.get("causes")
        listed = found if isinstance(found, list) else []
        return [Cause(**{k: str(c[k]) for k in known if k in c}) for c in listed]

    @property
    def namespace_ends(self) -> bool:
        """Whether the refusal is because the namespace is being deleted: nobody's fault."""
        return any(cause.reason == "NamespaceTerminating" for cause in self.causes)


class NotFound(ApiError):
    """404: no such object, or the kind is not served."""


class Conflict(ApiError):
    """409: the object changed since it was read, or another manager owns the field."""


class AlreadyExists(ApiError):
    """409 with reason AlreadyExists: an object of that name exists."""


class Invalid(ApiError):
    """422 or 400: the object was refused; `causes` names the fields."""


class Forbidden(ApiError):
    """403: RBAC or an admission plugin said no."""


class Unauthorized(ApiError):
    """401: no valid credentials, also after they were refreshed."""


class Gone(ApiError):
    """410: the resourceVersion or the continue token is too old."""


class TooManyRequests(ApiError):
    """429: the server (or an eviction budget) asks to wait; see `retry_after`."""


class UnknownKind(RuntimeFailure):
    """The API server does not serve this kind (is its CRD installed?)."""

    def __init__(self, what: str) -> None:
        super().__init__(f"the API server does not serve {what}; is its CRD installed?")
        self.what = what


_BY_STATUS: dict[int, type[ApiError]] = {
    400: Invalid,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    422: Invalid,
    429: TooManyRequests,
}


class _Status(msgspec.Struct):
    message: str | None = None
    reason: str | None = None
    details: dict[str, Any] | None = None
    code: int | None = None


def from_status(
    status: int, body: bytes, *, request: str = "", retry_after: float | None = None
) -> ApiError:
    """Build the error for an answer that is not a success.

    Args:
        status: The HTTP status; 0 to take the code of the Status itself (watch ERROR events).
        body: The body; a `Status` when the API server wrote it, anything when a proxy did.
        request: What was asked, for the message.
        retry_after: The Retry-After header in seconds.
    """
    try:
        told = msgspec.json.decode(body, type=_Status)
    except msgspec.MsgspecError:
        told = _Status(message=body[:200].decode("utf-8", "replace").strip())
    code = status or told.code or 500
    reason = told.reason or ""
    details = told.details or {}
    after = details.get("retryAfterSeconds")
    if retry_after is None and isinstance(after, int) and after > 0:
        retry_after = float(after)
    cls = _BY_STATUS.get(code, ApiError)
    if code == 409 and reason == "AlreadyExists":
        cls = AlreadyExists
    elif reason == "Expired":
        cls = Gone
    return cls(code, reason, told.message or "", details, retry_after=retry_after, request=request)
