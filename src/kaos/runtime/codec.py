"""From JSON bytes to objects and back, with no dict in between.

Guarantees: metadata is typed, every other top-level field stays the JSON text it came as until it
is read, and ``managedFields`` are skipped while decoding, so they never take memory. An object is
immutable: what a field returns is a fresh value, and changing it changes nothing else.
Does not: remember a decoded field. Hold on to the value when it is needed twice.
Why: wrapping objects in dict-like classes is what held kr8s at a thousand events a second and
60 KiB an object; Go's cached objects are shared and one stray assignment corrupts every reader.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec

from kaos.runtime.errors import ApiError, from_status
from kaos.runtime.resources import Request, ResourceType

if TYPE_CHECKING:
    from pydantic import BaseModel

M = TypeVar("M", bound="BaseModel")


class OwnerReference(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, gc=False):
    """Who owns an object; at most one owner is its controller."""

    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool = False
    block_owner_deletion: bool = False


class ObjectMeta(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, gc=False):
    """The metadata of an object, without managedFields.

    Attributes:
        labels_: The labels themselves, shared by all readers and not to be changed: for hot paths.
        annotations_: The annotations themselves, likewise. The lists are not to be changed either.
    """

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    labels_: dict[str, str] = msgspec.field(default_factory=dict, name="labels")
    annotations_: dict[str, str] = msgspec.field(default_factory=dict, name="annotations")
    owner_references: list[OwnerReference] = []
    finalizers: list[str] = []
    creation_timestamp: str = ""
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None
    generate_name: str = ""

    @property
    def labels(self) -> dict[str, str]:
        """The labels: a dict of the caller's own."""
        return self.labels_.copy()

    @property
    def annotations(self) -> dict[str, str]:
        """The annotations: a dict of the caller's own."""
        return self.annotations_.copy()

    @property
    def controller(self) -> OwnerReference | None:
        """The owner that is marked as the controller, if there is one."""
        for owner in self.owner_references:
            if owner.controller:
                return owner
        return None


_encode = msgspec.json.Encoder().encode
_metadata = msgspec.json.Decoder(ObjectMeta)
_EMPTY: dict[str, bytes] = {}


def _decode_metadata(raw: msgspec.Raw | bytes) -> ObjectMeta:
    try:
        return _metadata.decode(raw)
    except msgspec.ValidationError:
        # Other writers put nulls where the API server leaves a field out.
        found = msgspec.json.decode(raw)
        if not isinstance(found, dict):
            raise
        return msgspec.convert({k: v for k, v in found.items() if v is not None}, ObjectMeta)


class Object(msgspec.Struct, frozen=True, eq=False, gc=False):
    """An object as the API server sent it: typed metadata, the rest decoded when read.

    Attributes:
        api_version: e.g. ``apps/v1``.
        kind: e.g. ``Deployment``.
        metadata: Typed metadata.
        key: Namespace and name.
    """

    api_version: str
    kind: str
    metadata: ObjectMeta
    key: Request
    _fields: dict[str, bytes]

    @classmethod
    def of(
        cls,
        api_version: str,
        kind: str,
        metadata: ObjectMeta,
        fields: dict[str, bytes] | None = None,
    ) -> "Object":
        """An object of its parts; `fields` is the JSON text of all but these."""
        key = Request(metadata.namespace, metadata.name)
        return cls(api_version, kind, metadata, key, fields or _EMPTY)

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> "Object":
        """An object of a plain dict (camelCase, as in a manifest)."""
        return decode_object(_encode(body))

    @property
    def name(self) -> str:
        """The name."""
        return self.metadata.name

    @property
    def namespace(self) -> str:
        """The namespace, "" when cluster-scoped."""
        return self.metadata.namespace

    @property
    def uid(self) -> str:
        """The uid: another one means another object, also under the same name."""
        return self.metadata.uid

    @property
    def version(self) -> int:
        """The resourceVersion as a number, -1 when the server's are none (see `version_number`)."""
        return version_number(self.metadata.resource_version)

    @property
    def deleting(self) -> bool:
        """Whether deletion was asked for (the object waits for its finalizers or grace period)."""
        return self.metadata.deletion_timestamp is not None

    @property
    def spec(self) -> dict[str, Any]:
        """The spec, {} when there is none. Decoded at each read."""
        return self.get("spec") or {}

    @property
    def status(self) -> dict[str, Any]:
        """The status, {} when there is none. Decoded at each read."""
        return self.get("status") or {}

    def get(self, field: str, default: Any = None) -> Any:
        """Any other top-level field, e.g. ``data``. Decoded at each read."""
        raw = self._fields.get(field)
        return default if raw is None else msgspec.json.decode(raw)

    def raw(self, field: str) -> bytes:
        """The JSON text of a top-level field, b"" when absent. Costs nothing: use it to compare."""
        return self._fields.get(field, b"")

    def fields(self) -> Mapping[str, bytes]:
        """The JSON text of all top-level fields but apiVersion, kind and metadata."""
        return self._fields

    def to_dict(self) -> dict[str, Any]:
        """The whole object as a plain dict of the caller's own, without managedFields."""
        body: dict[str, Any] = {
            "apiVersion": self.api_version,
            "kind": self.kind,
            "metadata": msgspec.to_builtins(self.metadata),
        }
        for field, raw in self._fields.items():
            body[field] = msgspec.json.decode(raw)
        return body

    def as_model(self, model: type[M]) -> M:
        """The object as a pydantic model; raises pydantic's ValidationError."""
        return model.model_validate(self.to_dict())

    def __repr__(self) -> str:
        return f"<{self.kind} {self.key} resourceVersion={self.metadata.resource_version}>"


def version_number(resource_version: str) -> int:
    """A resourceVersion as a number, so that two can be compared; -1 when it is none.

    Kubernetes declares them comparable as integers (KEP-5504, stable in 1.35) and every server on
    etcd has always sent integers. From a server that does not, callers fall back to "not newer".
    """
    return int(resource_version) if resource_version.isdecimal() else -1


def encode(body: Any) -> bytes:
    """A body as JSON."""
    return _encode(body)


def _build(raw: dict[str, msgspec.Raw], api_version: str = "", kind: str = "") -> Object:
    metadata = _decode_metadata(raw.pop("metadata", b"{}"))
    own_version = raw.pop("apiVersion", None)
    own_kind = raw.pop("kind", None)
    if not api_version and own_version is not None:
        api_version = msgspec.json.decode(own_version, type=str)
    if not kind and own_kind is not None:
        kind = msgspec.json.decode(own_kind, type=str)
    # A Raw keeps the whole message alive, a page of 500 objects; a copy keeps only its field.
    return Object.of(api_version, kind, metadata, {k: bytes(v) for k, v in raw.items()})


class _Usual(msgspec.Struct, forbid_unknown_fields=True, rename="camel", gc=False):
    """The shape most kinds have, decoded in one pass; other shapes go by `_build`."""

    metadata: ObjectMeta
    api_version: msgspec.Raw = msgspec.Raw()
    kind: msgspec.Raw = msgspec.Raw()
    spec: msgspec.Raw = msgspec.Raw()
    status: msgspec.Raw = msgspec.Raw()


def _build_usual(found: _Usual, api_version: str, kind: str) -> Object:
    fields: dict[str, bytes] = {}
    if spec := bytes(found.spec):
        fields["spec"] = spec
    if status := bytes(found.status):
        fields["status"] = status
    metadata = found.metadata
    return Object(api_version, kind, metadata, Request(metadata.namespace, metadata.name), fields)


_usual = msgspec.json.Decoder(_Usual)
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])


def decode_object(body: bytes) -> Object:
    """One object; raises msgspec.DecodeError when it is none."""
    try:
        found = _usual.decode(body)
    except msgspec.ValidationError:
        return _build(_object.decode(body))
    return _build_usual(found, _text(found.api_version), _text(found.kind))


def _text(raw: msgspec.Raw) -> str:
    return sys.intern(msgspec.json.decode(raw, type=str)) if bytes(raw) else ""


class _ListMeta(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    continue_: str | None = msgspec.field(default=None, name="continue")


class _List(msgspec.Struct, rename="camel"):
    metadata: _ListMeta = msgspec.field(default_factory=_ListMeta)
    items: list[dict[str, msgspec.Raw]] | None = None


class _UsualList(msgspec.Struct, rename="camel"):
    metadata: _ListMeta = msgspec.field(default_factory=_ListMeta)
    items: list[_Usual] | None = None


class Page(NamedTuple):
    """One answer to a LIST."""

    items: list[Object]
    resource_version: str
    continue_token: str = ""


_list = msgspec.json.Decoder(_List)
_usual_list = msgspec.json.Decoder(_UsualList)


def decode_page(body: bytes, resource: ResourceType) -> Page:
    """A list, or one page of it. Its items get the type's own apiVersion and kind strings."""
    api_version, kind = resource.api_version, resource.kind
    found: _UsualList | _List
    try:
        found = _usual_list.decode(body)
        items = [_build_usual(item, api_version, kind) for item in found.items or ()]
    except msgspec.ValidationError:
        found = _list.decode(body)
        items = [_build(raw, api_version, kind) for raw in found.items or ()]
    return Page(items, found.metadata.resource_version, found.metadata.continue_ or "")


class WatchEvent(msgspec.Struct, gc=False):
    """One line of a watch.

    Attributes:
        type: ADDED, MODIFIED, DELETED, BOOKMARK or ERROR.
        obj: The object; for a BOOKMARK only its metadata counts; None for an ERROR.
        error: What the server said, for an ERROR.
    """

    type: str
    obj: Object | None = None
    error: ApiError | None = None


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _UsualEvent(msgspec.Struct, gc=False):
    type: str
    object: _Usual


_event = msgspec.json.Decoder(_Event)
_usual_events = msgspec.json.Decoder(_UsualEvent)


def events_decoder(resource: ResourceType) -> Callable[[bytes], Iterator[WatchEvent]]:
    """A decoder of this kind's watch lines; raises msgspec.MsgspecError at a broken one."""
    api_version, kind = resource.api_version, resource.kind
    request = f"watch of {resource}"

    def decode(lines: bytes) -> Iterator[WatchEvent]:
        try:
            usual = _usual_events.decode_lines(lines)
        except msgspec.MsgspecError:
            pass  # some line is of another shape, or broken: those before it count all the same
        else:
            if all(event.type != "ERROR" for event in usual):
                for event in usual:
                    yield WatchEvent(event.type, _build_usual(event.object, api_version, kind))
                return
        for line in lines.split(b"\n"):
            if line.strip():
                yield decode_any(line)

    def decode_any(line: bytes) -> WatchEvent:
        found = _event.decode(line)
        if found.type == "ERROR":
            return WatchEvent("ERROR", error=from_status(0, bytes(found.object), request=request))
        return WatchEvent(found.type, _build(_object.decode(found.object), api_version, kind))

    return decode
