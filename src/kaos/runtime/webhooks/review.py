"""AdmissionReview v1: what the API server asks, and what it is answered. No I/O.

Guarantees: a question that is none is refused with one line; a handler that fails answers "no, our
fault" (500) and says so in the log, never "yes"; the patch of a defaulting handler holds what it
changed and nothing else.
Does not: the old v1beta1, or conversion between versions.
"""

import base64
from collections.abc import Awaitable, Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import msgspec
import structlog

from kaos.runtime.codec import encode
from kaos.runtime.resources import Request

if TYPE_CHECKING:
    from pydantic import BaseModel

M = TypeVar("M", bound="BaseModel")
API_VERSION = "admission.k8s.io/v1"
_log = structlog.get_logger("kaos.runtime")


class Denied(Exception):  # noqa: N818 - what it says
    """The request is refused.

    Args:
        message: Why, and what would be accepted.
        fields: For each refused field its path and what is wrong with it.
        code: The HTTP status the user gets; default 403, and 422 with `fields`.
    """

    def __init__(
        self, message: str, *, fields: Mapping[str, str] | None = None, code: int = 0
    ) -> None:
        super().__init__(message)
        self.fields = dict(fields or {})
        self.code = code or (422 if fields else 403)


@dataclass(frozen=True, slots=True)
class Admission:
    """What somebody wants to do.

    Attributes:
        operation: CREATE, UPDATE, DELETE or CONNECT.
        key: Of which object; the name is "" while the server has not generated it.
        object: The object as it would be, {} for a DELETE. Handlers that default change it.
        old: The object as it is, {} for a CREATE.
        user: Who asks: username, groups, uid.
        dry_run: Whether nothing will be stored: have no side effects then.
        subresource: e.g. ``status``.
        warnings: Append to it what the user should know; kubectl shows it.
    """

    operation: str
    key: Request
    object: dict[str, Any]
    old: dict[str, Any]
    user: dict[str, Any]
    dry_run: bool = False
    subresource: str = ""
    warnings: list[str] = field(default_factory=list)

    def as_model(self, model: type[M]) -> M:
        """The new object as a pydantic model; a ValidationError that is not caught denies."""
        return model.model_validate(self.object)


Handler: TypeAlias = Callable[[Admission], Awaitable[None]]
"""Validates by raising `Denied`, or defaults by changing ``admission.object``."""


class _Question(msgspec.Struct, rename="camel"):
    uid: str
    operation: str
    namespace: str = ""
    name: str = ""
    object: dict[str, Any] | None = None
    old_object: dict[str, Any] | None = None
    user_info: dict[str, Any] = {}
    dry_run: bool = False
    sub_resource: str = ""


class _Review(msgspec.Struct, rename="camel"):
    api_version: str
    request: _Question


async def answer(
    body: bytes, handler: Handler, *, defaults: bool, failed: Callable[[], None] | None = None
) -> bytes:
    """Answer an AdmissionReview.

    Args:
        body: The question.
        handler: Who decides.
        defaults: Whether the handler may change the object.
        failed: Called when the handler raised what it should not have.

    Raises:
        ValueError: When the body is no AdmissionReview v1.
    """
    try:
        review = msgspec.json.decode(body, type=_Review)
    except msgspec.MsgspecError as error:
        raise ValueError(f"no AdmissionReview: {error}") from error
    if review.api_version != API_VERSION:
        raise ValueError(f"expected {API_VERSION}, got {review.api_version}")
    asked = review.request
    new = asked.object or {}
    admission = Admission(
        asked.operation,
        Request(asked.namespace, asked.name),
        deepcopy(new),
        asked.old_object or {},
        asked.user_info,
        asked.dry_run,
        asked.sub_resource,
    )
    told = await _decide(admission, handler)
    if failed is not None and told.get("status", {}).get("reason") == "InternalError":
        failed()
    told |= {"uid": asked.uid, "allowed": "status" not in told}
    if admission.warnings:
        told["warnings"] = admission.warnings
    if defaults and told["allowed"] and (patch := difference(new, admission.object)):
        told |= {"patchType": "JSONPatch", "patch": base64.b64encode(encode(patch)).decode()}
    return encode({"apiVersion": API_VERSION, "kind": "AdmissionReview", "response": told})


async def _decide(admission: Admission, handler: Handler) -> dict[str, Any]:
    """{} for yes, or the status that says no."""
    try:
        await handler(admission)
    except Denied as denied:
        return _status(denied.code, str(denied), denied.fields)
    except Exception as error:  # noqa: BLE001 - a handler may raise anything
        if (found := _validation_errors(error)) is not None:
            lines = "; ".join(f"{path}: {text}" for path, text in found.items())
            return _status(422, lines, found)
        _log.exception("webhook.failed", object=str(admission.key), operation=admission.operation)
        return _status(500, f"the webhook failed: {type(error).__name__}", {})
    return {}


def _validation_errors(error: Exception) -> dict[str, str] | None:
    """The fields that a pydantic ValidationError names; None for any other error."""
    errors = getattr(error, "errors", None)
    if type(error).__name__ != "ValidationError" or not callable(errors):
        return None
    return {".".join(map(str, item["loc"])): str(item["msg"]) for item in errors()}


def _status(code: int, message: str, fields: Mapping[str, str]) -> dict[str, Any]:
    reasons = {403: "Forbidden", 422: "Invalid", 500: "InternalError"}
    causes = [
        {"reason": "FieldValueInvalid", "field": path, "message": text}
        for path, text in fields.items()
    ]
    status: dict[str, Any] = {"code": code, "message": message, "status": "Failure"}
    status["reason"] = reasons.get(code, "")
    if causes:
        status["details"] = {"causes": causes}
    return {"status": status}


def difference(old: Any, new: Any, path: str = "") -> list[dict[str, Any]]:
    """The JSON patch (RFC 6902) that leads from one value to another; lists change as a whole."""
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        # As JSON, for to Python 1 equals true.
        same = encode(old) == encode(new)
        return [] if same else [{"op": "replace", "path": path, "value": new}]
    steps: list[dict[str, Any]] = []
    for key in [*old, *(k for k in new if k not in old)]:
        at = f"{path}/{_escaped(key)}"
        if key not in new:
            steps.append({"op": "remove", "path": at})
        elif key not in old:
            steps.append({"op": "add", "path": at, "value": new[key]})
        else:
            steps += difference(old[key], new[key], at)
    return steps


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def chain(handlers: Sequence[Handler]) -> Handler:
    """Several handlers as one: each sees what those before it changed; the first refusal counts."""

    async def handler(admission: Admission) -> None:
        for one in handlers:
            await one(admission)

    return handler
