"""What of a kind is kept in the cache: a selection, a shape, and indexes.

Guarantees: label and field selectors are checked when they are written down; the server applies
them, and this module applies them to the answers of our own writes; a metadata-only kind asks the
server for no more than that, so nothing else ever enters this process's memory.
Does not: reach into a running watch. A kind has one selection, set before its watch starts, and
every controller of the manager sees the same. A write of ours that takes an object out of the
selection shows when the watch tells of it, not at once.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from kaos.runtime.codec import Object
from kaos.runtime.store import Keys
from kaos.runtime.transport import HttpRequest, HttpResponse, Stream, Transport

Transform: TypeAlias = Callable[[Object], Object]
"""Makes the object that is kept of the one that came; metadata must stay as it is."""

_SET = re.compile(r"^([\w./-]+)\s+(in|notin)\s*\(([^()]*)\)$")
_EQUAL = re.compile(r"^([\w./-]+)\s*(==|=|!=)\s*([^\s!=]*)$")
_EXISTS = re.compile(r"^(!?)\s*([\w./-]+)$")
_FORM = "application/json;as={};g=meta.k8s.io;v=v1,application/json"
_ONE, _MANY = _FORM.format("PartialObjectMetadata"), _FORM.format("PartialObjectMetadataList")


@dataclass(frozen=True, slots=True)
class Selection:
    """Which objects of a kind the cache keeps, and how much of each.

    Attributes:
        label_selector: As kubectl takes it, e.g. ``app=web,tier in (a,b),!old``.
        field_selector: e.g. ``spec.nodeName=node-1``; the server says which fields it knows.
        namespaces: Instead of the manager's.
        metadata_only: Keep metadata alone (the server sends no more): `spec` and the rest are
            empty. For kinds of which only names, labels and owners matter.
        transform: Applied to each object before it is kept; see `without`.
        indexes: Named indexes: the keys under which an object is found by `Cache.by_index`.
    """

    label_selector: str = ""
    field_selector: str = ""
    namespaces: Sequence[str] = ()
    metadata_only: bool = False
    transform: Transform | None = None
    indexes: Mapping[str, Keys] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _labels(self.label_selector)
        _fields(self.field_selector)

    def same(self, other: "Selection") -> bool:
        """Whether both keep the same; indexes add up and do not matter."""
        return replace(self, indexes={}, namespaces=tuple(self.namespaces)) == replace(
            other, indexes={}, namespaces=tuple(other.namespaces)
        )

    def params(self) -> dict[str, str]:
        """The parameters of a list or watch."""
        given = {"labelSelector": self.label_selector, "fieldSelector": self.field_selector}
        return {name: value for name, value in given.items() if value}

    def matches(self, obj: Object) -> bool:
        """Whether the server would list this object."""
        labels = obj.metadata.labels_
        if not all(test(labels) for test in _labels(self.label_selector)):
            return False
        if not self.field_selector:
            return True
        body = obj.to_dict()
        return all((_at(body, path) == value) is equal for path, value, equal in self._fields())

    def shape(self) -> Transform | None:
        """What makes the kept object of the one that came; None for "nothing"."""
        transform = self.transform
        if not self.metadata_only:
            return transform
        if transform is None:
            return _metadata_only
        return lambda obj: transform(_metadata_only(obj))

    def narrowed(self, transport: Transport) -> Transport:
        """The transport to list and watch with."""
        return _MetadataOnly(transport) if self.metadata_only else transport

    def _fields(self) -> list[tuple[str, str, bool]]:
        return _fields(self.field_selector)


def without(*fields: str) -> Transform:
    """A transform that drops top-level fields, e.g. ``without("data")``."""
    dropped = frozenset(fields)

    def transform(obj: Object) -> Object:
        kept = {name: raw for name, raw in obj.fields().items() if name not in dropped}
        return Object.of(obj.api_version, obj.kind, obj.metadata, kept)

    return transform


def _metadata_only(obj: Object) -> Object:
    return Object.of(obj.api_version, obj.kind, obj.metadata)


def _labels(selector: str) -> list[Callable[[Mapping[str, str]], bool]]:
    parts = re.split(r",(?![^(]*\))", selector) if selector.strip() else []
    return [_requirement(part.strip()) for part in parts]


def _requirement(text: str) -> Callable[[Mapping[str, str]], bool]:
    if found := _SET.match(text):
        key, operator, listed = found.groups()
        values = {value.strip() for value in listed.split(",")}
        if operator == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    if found := _EQUAL.match(text):
        name, sign, wanted = found.groups()
        equal = sign != "!="
        return lambda labels: (labels.get(name) == wanted) is equal
    if found := _EXISTS.match(text):
        absent, label = found.groups()
        return lambda labels: (label in labels) is not bool(absent)
    raise ValueError(f"label selector: {text!r} is no requirement such as app=web or tier in (a,b)")


def _fields(selector: str) -> list[tuple[str, str, bool]]:
    found: list[tuple[str, str, bool]] = []
    for part in selector.split(",") if selector.strip() else ():
        matched = _EQUAL.match(part.strip())
        if matched is None:
            raise ValueError(f"field selector: {part!r} is no comparison such as spec.nodeName=a")
        path, sign, value = matched.groups()
        found.append((path, value, sign != "!="))
    return found


def _at(body: Any, path: str) -> str:
    """The value at a path as the server compares it: absent is ""."""
    for part in path.split("."):
        body = body.get(part) if isinstance(body, Mapping) else None
    if isinstance(body, bool):
        return str(body).lower()
    return "" if body is None else str(body)


class _MetadataOnly:
    """A transport that asks for metadata alone; a server that cannot sends all, and we drop it."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner

    async def request(self, request: HttpRequest) -> HttpResponse:
        return await self._inner.request(replace(request, accept=_MANY))

    def stream(self, request: HttpRequest) -> AbstractAsyncContextManager[Stream]:
        return self._inner.stream(replace(request, accept=_ONE))

    async def close(self) -> None:
        await self._inner.close()
