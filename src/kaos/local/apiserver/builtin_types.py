"""The fields of built-in kinds: for schemas, and to find the ones that do not exist.

Guarantees: the field names and types of Kubernetes 1.34, from the same table that reads
protobuf bodies. A kind that is not in the table (the Gateway API, definitions) has no
schema here and no unknown fields. There are no descriptions and no required fields.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import islice
from typing import Any, Final

from kaos.local.apiserver.protobuf import Field, field_table, message_name

_TYPES: Final[dict[str, dict[str, Any]]] = {
    "string": {"type": "string"},
    "int": {"type": "integer", "format": "int64"},
    "bool": {"type": "boolean"},
    "bytes": {"type": "string", "format": "byte"},
    "time": {"type": "string", "format": "date-time"},
    "quantity": {"x-kubernetes-int-or-string": True, "description": "As 500m, 2 or 1Gi."},
    "intorstring": {"x-kubernetes-int-or-string": True},
    "raw": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    "strings": {"type": "array", "items": {"type": "string"}},
}
_WORDS: Final = {
    "string": "string",
    "bytes": "string",
    "time": "string",
    "int": "number",
    "bool": "boolean",
}
_SHAPES: Final = {"*": "array", "%": "object"}
_LIMIT: Final = 20


def unknown_fields(api_version: str, kind: str, obj: Mapping[str, Any]) -> list[str]:
    """The paths of fields that this kind does not have, the first few of them."""
    name = message_name(api_version, kind)
    if name is None:
        return []
    rest = {key: value for key, value in obj.items() if key not in ("apiVersion", "kind")}
    return list(islice(_unknown(name, rest, ""), _LIMIT))


def _unknown(name: str, obj: Any, at: str) -> Iterator[str]:
    if not isinstance(obj, Mapping):
        return
    known = _fields_by_name(name)
    for key, value in obj.items():
        path = f"{at}.{key}" if at else str(key)
        field = known.get(key)
        if field is None:
            yield path
        elif field.type in field_table():
            for where, item in _values(field, value, path):
                yield from _unknown(field.type, item, where)


def _values(field: Field, value: Any, path: str) -> Iterable[tuple[str, Any]]:
    """What a field holds, one by one and each with its place; nothing of a list that is none."""
    match field.shape:
        case "*":
            items = value if isinstance(value, list) else ()
            return [(f"{path}[{index}]", item) for index, item in enumerate(items)]
        case "%":
            parts = value.items() if isinstance(value, Mapping) else ()
            return [(f"{path}.{part}", item) for part, item in parts]
        case _:
            return [(path, value)]


def wrong_type(api_version: str, kind: str, obj: Mapping[str, Any]) -> str:
    """The first field whose value is of another type than this kind has there; "" for none."""
    name = message_name(api_version, kind)
    return next(_wrong(name, obj, ""), "") if name is not None else ""


def _wrong(name: str, obj: Mapping[str, Any], at: str) -> Iterator[str]:
    known = _fields_by_name(name)
    for key, value in obj.items():
        field = known.get(key)
        if field is None or value is None:
            continue
        path = f"{at}.{key}" if at else str(key)
        outer = _SHAPES.get(field.shape)
        if outer and _word(value) != outer:
            yield f"{path}: expected {outer}, found {_word(value)}"
        is_message = field.type in field_table()
        expected = "object" if is_message else _WORDS.get(field.type)
        for where, item in _values(field, value, path) if expected else ():
            if item is None:
                continue
            if _word(item) != expected:
                yield f"{where}: expected {expected}, found {_word(item)}"
            elif is_message:
                yield from _wrong(field.type, item, where)


def drop_nulls(api_version: str, kind: str, obj: dict[str, Any]) -> None:
    """Take the nulls out of a spec: to the real server they are fields that are not there.

    (Charts write `initContainers:` with nothing behind it.)
    """
    if message_name(api_version, kind) is not None:
        _drop_nulls(obj.get("spec"))


def _drop_nulls(value: Any) -> None:
    if isinstance(value, dict):
        for name in [name for name, item in value.items() if item is None]:
            del value[name]
        for item in value.values():
            _drop_nulls(item)
    elif isinstance(value, list):
        for item in value:
            _drop_nulls(item)


def _word(value: object) -> str:
    match value:
        case bool():
            return "boolean"
        case str():
            return "string"
        case int() | float():
            return "number"
        case list():
            return "array"
        case _:
            return "object"


@cache
def _fields_by_name(name: str) -> Mapping[str, Field]:
    return {field.name: field for field in fields_of(name)}


def fields_of(name: str) -> Iterator[Field]:
    """The fields of a message, with those of the messages that are inlined in it."""
    for field in field_table()[name].values():
        if field.name:
            yield field
        else:
            yield from fields_of(field.type)


def properties_of(name: str, refer: Mapping[str, str]) -> dict[str, Any]:
    """The OpenAPI properties of a message.

    Args:
        name: The message, as ``message_name`` gives it.
        refer: References for messages that are described elsewhere.
    """
    return {field.name: _property(field, refer) for field in fields_of(name)}


def _property(field: Field, refer: Mapping[str, str]) -> dict[str, Any]:
    schema = _TYPES.get(field.type)
    if schema is None:
        address = refer.get(field.type, f"#/components/schemas/{schema_key(field.type)}")
        # A $ref hides what stands beside it; the real server wraps it like this, too.
        schema = {"$ref": address} if field.shape else {"allOf": [{"$ref": address}]}
    match field.shape:
        case "*":
            return {"type": "array", "items": schema}
        case "%":
            return {"type": "object", "additionalProperties": schema}
        case _:
            return schema


def schema_key(name: str) -> str:
    """The name of a message's schema in a document."""
    return f"io.k8s.api.{name}"


def parts_of(name: str) -> set[str]:
    """All messages that a message is made of, itself left out."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        for field in fields_of(waiting.pop()):
            if field.type in field_table() and field.type not in found:
                found.add(field.type)
                waiting.append(field.type)
    return found
