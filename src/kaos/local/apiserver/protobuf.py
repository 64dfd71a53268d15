"""Kubernetes' protobuf bodies of built-in kinds, read into the objects they stand for.

Every Go client since 1.32 sends built-in kinds like this and does not fall back when it is
refused, so ``kubectl create namespace`` fails against a server that reads JSON only.
(Answers may stay JSON: those clients accept both. ``kubectl apply`` always sends JSON.)

Guarantees: what is read is the JSON that the same Go client would have sent, less its
``creationTimestamp: null``; anything else raises ``ProtobufError``, and depth and size are
bounded by the body. Unknown fields, of a newer Kubernetes, are left out as protobuf does.

``protobuf_fields.txt`` has one message a line: number, JSON name and type of each field.
An empty name: the message's fields belong to the one around it. ``*``: a list, ``%``: a
map by string, ``!``: stays when empty, ``.Name``: a message of the same group. The numbers
are those of Kubernetes 1.34 (they never change, new ones are added).
"""

import base64
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.resources import files
from typing import Any, Final, NamedTuple

MEDIA_TYPE: Final = "application/vnd.kubernetes.protobuf"
_MAGIC: Final = b"k8s\0"
_MAX_DEPTH: Final = 100
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIXED64: Final = 1

_GROUPS: Final = {
    "v1": "core",
    "apps/v1": "apps",
    "authentication.k8s.io/v1": "authentication",
    "authorization.k8s.io/v1": "authorization",
    "autoscaling/v1": "scale",
    "autoscaling/v2": "autoscaling",
    "batch/v1": "batch",
    "coordination.k8s.io/v1": "coordination",
    "discovery.k8s.io/v1": "discovery",
    "events.k8s.io/v1": "events",
    "networking.k8s.io/v1": "networking",
    "policy/v1": "policy",
    "rbac.authorization.k8s.io/v1": "rbac",
    "scheduling.k8s.io/v1": "scheduling",
    "storage.k8s.io/v1": "storage",
}


class ProtobufError(ValueError):
    """The body is not one that can be read here; the message is for the client."""


class Field(NamedTuple):
    """A field of a message; ``shape`` is "" for one value, "*" for a list, "%" for a map."""

    name: str
    type: str
    shape: str
    stays: bool


def decode_protobuf(raw: bytes) -> dict[str, Any]:
    """Read a body with the media type ``MEDIA_TYPE``.

    Raises:
        ProtobufError: It is damaged, or of a kind that is not in the table.
    """
    if not raw.startswith(_MAGIC):
        raise ProtobufError("the body does not begin as Kubernetes' protobuf does")
    envelope = dict(_values(raw[len(_MAGIC) :]))
    head = {number: _utf8(value) for number, value in _values(_message_bytes(envelope.get(1)))}
    api_version, kind = head.get(1, ""), head.get(2, "")
    name = message_name(api_version, kind)
    if name is None:
        raise ProtobufError(f"{kind or 'this kind'} of {api_version!r} is read as JSON only here")
    return {"apiVersion": api_version, "kind": kind} | _object(
        name, _message_bytes(envelope.get(2)), 0
    )


def message_name(api_version: str, kind: str) -> str | None:
    """The name in the table of a kind's message; None when it is not there."""
    group = "meta" if kind == "DeleteOptions" else _GROUPS.get(api_version, "")
    name = f"{group}.{kind}"
    return name if name in field_table() else None


@cache
def field_table() -> dict[str, dict[int, Field]]:
    """Every message: its fields by number."""
    text = files(__package__).joinpath("protobuf_fields.txt").read_text("ascii")
    return {name: dict(_fields(name, rest)) for name, *rest in map(str.split, text.splitlines())}


def _fields(message: str, words: list[str]) -> Iterator[tuple[int, Field]]:
    group = message.partition(".")[0]
    for word in words:
        number, name, kind = word.split(":")
        shape = kind[0] if kind[0] in "*%" else ""
        plain = kind.removeprefix(shape).removesuffix("!")
        full = f"{group}{plain}" if plain.startswith(".") else plain
        yield int(number), Field(name, full, shape, kind.endswith("!"))


def _object(name: str, data: bytes, depth: int) -> dict[str, Any]:
    if depth > _MAX_DEPTH:
        raise ProtobufError("the body is nested too deeply")
    found: dict[str, Any] = {}
    known = field_table()[name]
    for number, value in _values(data):
        field = known.get(number)
        if field is None:
            continue
        if field.shape == "*":
            for item in _unpacked(field.type, value):
                found.setdefault(field.name, []).append(_value(field.type, item, depth))
            continue
        if field.shape == "%":
            pair = dict(_values(_message_bytes(value)))
            items = found.setdefault(field.name, {})
            items[_utf8(pair.get(1, b""))] = _value(field.type, pair.get(2), depth)
            continue
        got = _value(field.type, value, depth)
        if not field.name:
            found.update(got)
        elif got is not None and (got or field.stays or isinstance(got, dict)):
            found[field.name] = got
    return found


def _value(kind: str, value: int | bytes | None, depth: int) -> Any:
    if reader := _READERS.get(kind):
        return reader(value)
    return _object(kind, _message_bytes(value), depth + 1)


def _unpacked(kind: str, value: int | bytes) -> Iterator[int | bytes]:
    """The numbers of a packed list, or the value itself."""
    if kind not in ("int", "bool") or isinstance(value, int):
        yield value
        return
    at = 0
    while at < len(value):
        number, at = _varint(value, at)
        yield number


def _values(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message as they come: number, and a number or bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        match key & 7:
            case 0:
                value, at = _varint(data, at)
                yield key >> 3, value
            case 2:
                length, at = _varint(data, at)
                yield key >> 3, _part(data, at, length)
                at += length
            case 1 | 5 as wire:
                length = 8 if wire == _FIXED64 else 4
                yield key >> 3, _part(data, at, length)
                at += length
            case wire:
                raise ProtobufError(f"the body has a field of the unknown sort {wire}")


def _part(data: bytes, at: int, length: int) -> bytes:
    if at + length > len(data):
        raise ProtobufError("the body ends within a field")
    return data[at : at + length]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ProtobufError("the body ends within a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ProtobufError("the body has a number of more than 64 bits")


def _message_bytes(value: int | bytes | None) -> bytes:
    if isinstance(value, int):
        raise ProtobufError("the body has a number where an object belongs")
    return value or b""


def _utf8(value: int | bytes | None) -> str:
    try:
        return _message_bytes(value).decode()
    except UnicodeDecodeError as error:
        raise ProtobufError("the body has a text that is not UTF-8") from error


def _int(value: int | bytes | None) -> int:
    if isinstance(value, bytes):
        raise ProtobufError("the body has bytes where a number belongs")
    number = value or 0
    return number - (1 << 64) if number >= 1 << 63 else number


def _number_fields(value: int | bytes | None) -> dict[int, int | bytes]:
    return dict(_values(_message_bytes(value)))


def _time(value: int | bytes | None) -> str | None:
    parts = _number_fields(value)
    if not parts:
        return None
    try:
        when = _EPOCH + timedelta(
            seconds=_int(parts.get(1)), microseconds=_int(parts.get(2)) // 1000
        )
    except OverflowError as error:
        raise ProtobufError("the body has a time that is none") from error
    if when.year == 1:
        return None
    precision = "microseconds" if when.microsecond else "seconds"
    return when.replace(tzinfo=None).isoformat(timespec=precision) + "Z"


def _int_or_string(value: int | bytes | None) -> int | str:
    parts = _number_fields(value)
    return _utf8(parts.get(3)) if _int(parts.get(1)) else _int(parts.get(2))


def _raw_json(value: int | bytes | None) -> Any:
    raw = _message_bytes(_number_fields(value).get(1))
    try:
        return json.loads(raw) if raw else None
    except ValueError as error:
        raise ProtobufError("the body has JSON within that is none") from error


def _strings(value: int | bytes | None) -> list[str]:
    return [_utf8(item) for number, item in _values(_message_bytes(value)) if number == 1]


_READERS: Final[dict[str, Callable[[int | bytes | None], Any]]] = {
    "string": _utf8,
    "int": _int,
    "bool": lambda value: bool(_int(value)),
    "bytes": lambda value: base64.b64encode(_message_bytes(value)).decode(),
    "time": _time,
    "quantity": lambda value: _utf8(_number_fields(value).get(1)),
    "intorstring": _int_or_string,
    "raw": _raw_json,
    "strings": _strings,
}
