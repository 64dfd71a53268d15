"""How a request to the API server is put together, and what its answer means: no I/O.

Guarantees: a name or namespace that is missing is refused here, before a request goes to a
collection instead of an object; a body may be a plain dict, an `Object`, a pydantic model or a kr8s
object.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import msgspec

from kaos.runtime.codec import Object, decode_object
from kaos.runtime.errors import ApiError, from_status
from kaos.runtime.resources import Request, ResourceType
from kaos.runtime.transport import HttpRequest, HttpResponse


class _Model(Protocol):
    def model_dump(self, *, mode: str, by_alias: bool, exclude_none: bool) -> dict[str, Any]: ...


class _ToDict(Protocol):
    def to_dict(self) -> dict[str, Any]: ...


Body: TypeAlias = Mapping[str, Any] | Object | _Model | _ToDict
"""What the client takes for an object to write."""


def plain(body: Body) -> Mapping[str, Any]:
    """A body as plain data; a model's apiVersion and kind are its class's."""
    if isinstance(body, Mapping):
        return body
    if isinstance(body, Object):
        return body.to_dict()
    if hasattr(body, "model_dump"):
        resource = ResourceType.of(type(body))
        found = body.model_dump(mode="json", by_alias=True, exclude_none=True)
        return {**found, "apiVersion": resource.api_version, "kind": resource.kind}
    if hasattr(body, "to_dict"):
        return body.to_dict()
    raise TypeError(f"{type(body).__name__} is no body: expected a dict, a model or an object")


def object_path(resource: ResourceType, name: str, namespace: str, subresource: str = "") -> str:
    """The path of one object; ValueError without a name."""
    if not name or name.endswith("*"):
        raise ValueError(f"{resource.kind}: a name is needed")
    return resource.path(object_key(resource, namespace, name).namespace, name, subresource)


def object_key(resource: ResourceType, namespace: str, name: str) -> Request:
    """The key of an object; ValueError without the namespace that its kind needs."""
    if not resource.namespaced:
        return Request("", name)
    if not namespace:
        raise ValueError(f"{resource.kind} {name}: a namespace is needed")
    return Request(namespace, name)


def body_version(body: Mapping[str, Any]) -> str:
    """The resourceVersion a body is conditional on, "" when on none."""
    return str((body.get("metadata") or {}).get("resourceVersion") or "")


def tested_version(patch: Sequence[Mapping[str, Any]]) -> str:
    """The resourceVersion a JSON patch tests for, "" when for none."""
    for step in patch:
        if step.get("op") == "test" and step.get("path") == "/metadata/resourceVersion":
            return str(step.get("value"))
    return ""


def refusal(answer: HttpResponse, request: HttpRequest) -> ApiError:
    """The error for an answer that says no."""
    return from_status(
        answer.status, answer.body, request=str(request), retry_after=answer.retry_after
    )


class _Deleted(msgspec.Struct):
    kind: str = ""
    details: dict[str, Any] | None = None


def after_delete(body: bytes, resource: ResourceType) -> tuple[Object | None, str]:
    """What a DELETE left behind: the object with its deletion mark, or the uid that is gone.

    The server answers with the object while finalizers or a grace period keep it, with a Status
    when it is gone, and for some kinds with the last state of what is gone, without a mark.
    """
    told = msgspec.json.decode(body, type=_Deleted)
    if told.kind == resource.kind:
        obj = decode_object(body)
        return (obj, "") if obj.deleting else (None, obj.uid)
    return None, str((told.details or {}).get("uid") or "")


async def lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The lines of a text that comes in pieces, without their ends."""
    rest = b""
    async for chunk in chunks:
        *complete, rest = (rest + chunk).split(b"\n")
        for line in complete:
            yield line
    if rest:
        yield rest


def list_params(labels: str, fields: str, page_size: int, resource_version: str) -> dict[str, str]:
    """The parameters of a LIST; what is empty is left out."""
    given = {
        "limit": str(page_size) if page_size else "",
        "labelSelector": labels,
        "fieldSelector": fields,
        "resourceVersion": resource_version,
    }
    return {name: value for name, value in given.items() if value}
