"""Errors as Kubernetes answers them: a Status object with reason, details and causes.

Guarantees that what clients branch on (code, reason, details.causes, the
wording of "not found", "already exists" and "the object has been modified") is
that of the real server.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from kaos.local.apiserver.registry import Kind


@dataclass(frozen=True, slots=True)
class Cause:
    """One thing wrong in an object: where, of which sort, in which words."""

    field: str
    reason: str
    message: str

    def to_dict(self) -> dict[str, str]:
        """The cause as it stands in details.causes."""
        return {"reason": self.reason, "message": self.message, "field": self.field}


class StatusError(Exception):
    """A request that fails: carries the HTTP code and the Status body."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        details: dict[str, Any] | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        self.retry_after = retry_after

    def to_dict(self) -> dict[str, Any]:
        """The Status object."""
        status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            status["reason"] = self.reason
        if self.details is not None:
            status["details"] = self.details
        return {**status, "code": self.code}


_MODIFIED = (
    "the object has been modified; please apply your changes to the latest version and try again"
)


def _details(kind: Kind, name: str, **more: Any) -> dict[str, Any]:
    named = {"name": name} if name else {}
    group = {"group": kind.group} if kind.group else {}
    return {**named, **group, "kind": kind.plural, **more}


def not_found(kind: Kind, name: str) -> StatusError:
    """There is no such object."""
    message = f'{kind.resource} "{name}" not found'
    return StatusError(404, "NotFound", message, details=_details(kind, name))


def no_such_resource() -> StatusError:
    """The path names no kind that is served."""
    message = "the server could not find the requested resource"
    return StatusError(404, "NotFound", message, details={})


def already_exists(kind: Kind, name: str) -> StatusError:
    """The name is taken."""
    message = f'{kind.resource} "{name}" already exists'
    return StatusError(409, "AlreadyExists", message, details=_details(kind, name))


def conflict(kind: Kind, name: str, why: str = "") -> StatusError:
    """The object is not the one that the caller has read."""
    why = why or _MODIFIED
    message = f'Operation cannot be fulfilled on {kind.resource} "{name}": {why}'
    return StatusError(409, "Conflict", message, details=_details(kind, name))


def invalid(kind: Kind, name: str, causes: Sequence[Cause]) -> StatusError:
    """The object breaks rules of its kind; all of them are told at once."""
    text = _told(causes)
    title = f"{kind.kind}.{kind.group}" if kind.group else kind.kind
    details = _details(kind, name, causes=[c.to_dict() for c in causes])
    details["kind"] = kind.kind
    return StatusError(422, "Invalid", f'{title} "{name}" is invalid: {text}', details=details)


def unconditional(kind: Kind, name: str) -> StatusError:
    """An update must name the resourceVersion that it means to replace."""
    cause = field_invalid("metadata.resourceVersion", 0, "must be specified for an update")
    message = f'{kind.resource} "{name}" is invalid: {_told([cause])}'
    details = _details(kind, name, causes=[cause.to_dict()])
    return StatusError(422, "Invalid", message, details=details)


def invalid_options(options: str, cause: Cause) -> StatusError:
    """The options of a request contradict each other; ``options`` is their kind."""
    message = f'{options}.meta.k8s.io "" is invalid: {_told([cause])}'
    details = {"group": "meta.k8s.io", "kind": options, "causes": [cause.to_dict()]}
    return StatusError(422, "Invalid", message, details=details)


def _told(causes: Sequence[Cause]) -> str:
    told = [f"{c.field}: {c.message}" if c.field else c.message for c in causes]
    return told[0] if len(told) == 1 else f"[{', '.join(told)}]"


def bad_request(message: str) -> StatusError:
    """The request itself cannot be understood."""
    return StatusError(400, "BadRequest", message)


def forbidden(kind: Kind, name: str, why: str, *causes: Cause) -> StatusError:
    """The request is understood and refused."""
    message = f'{kind.resource} "{name}" is forbidden: {why}'
    more = {"causes": [c.to_dict() for c in causes]} if causes else {}
    return StatusError(403, "Forbidden", message, details=_details(kind, name, **more))


def method_not_allowed() -> StatusError:
    """The kind does not offer this verb."""
    message = "the server does not allow this method on the requested resource"
    return StatusError(405, "MethodNotAllowed", message, details={})


def unsupported_media_type(accepted: Sequence[str]) -> StatusError:
    """The body comes in a form that is not read here."""
    message = (
        f"the body of the request was in an unknown format - accepted media types include: "
        f"{', '.join(accepted)}"
    )
    return StatusError(415, "UnsupportedMediaType", message)


def expired(message: str) -> StatusError:
    """The resourceVersion lies further back than what is remembered: list again."""
    return StatusError(410, "Expired", message)


def too_large_resource_version(asked: int, current: int) -> StatusError:
    """The resourceVersion lies in the future: it is that of another or of a lost state."""
    message = f"Timeout: Too large resource version: {asked}, current: {current}"
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    details = {"causes": [cause], "retryAfterSeconds": 1}
    return StatusError(504, "Timeout", message, details=details, retry_after=1)


# Sorts of causes, in the words of the real server.


def field_invalid(field: str, value: Any, detail: str) -> Cause:
    """The value is of the right type and not acceptable."""
    return Cause(field, "FieldValueInvalid", f"Invalid value: {quoted(value)}: {detail}")


def field_required(field: str, detail: str = "") -> Cause:
    """The field must be there."""
    return Cause(
        field, "FieldValueRequired", f"Required value: {detail}" if detail else "Required value"
    )


def field_type_invalid(field: str, value: Any, detail: str) -> Cause:
    """The value is of another type."""
    return Cause(field, "FieldValueTypeInvalid", f"Invalid value: {quoted(value)}: {detail}")


def quoted(value: Any) -> str:
    """A value as Go prints it in these messages: strings in quotes, objects as JSON."""
    return msgspec.json.encode(value).decode()


def field_too_long(field: str, most: int) -> Cause:
    """The value has more bytes than allowed."""
    return Cause(field, "FieldValueTooLong", f"Too long: may not be more than {most} bytes")


def field_immutable(field: str, value: Any) -> Cause:
    """The value may not change once set."""
    return field_invalid(field, value, "field is immutable")


def field_forbidden(field: str, detail: str) -> Cause:
    """The field may not be set here or now."""
    return Cause(field, "FieldValueForbidden", f"Forbidden: {detail}")


def field_unsupported(field: str, value: Any, supported: Sequence[Any]) -> Cause:
    """The value is none of the allowed ones."""
    choices = ", ".join(quoted(choice) for choice in supported)
    message = f"Unsupported value: {quoted(value)}: supported values: {choices}"
    return Cause(field, "FieldValueNotSupported", message)
