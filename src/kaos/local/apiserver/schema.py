"""Structural schemas of custom resources: unknown fields, defaults, validation.

Guarantees that fields the schema does not know are dropped (or refused, when
the client asks for strict validation), that defaults fill what is absent, and
that what is wrong is told by path in the words of the real server.

CEL rules (``x-kubernetes-validations``) are evaluated as far as ``cel.py`` goes.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any

import jsonschema_rs

from kaos.local.apiserver.cel import holds
from kaos.local.apiserver.errors import (
    Cause,
    field_invalid,
    field_required,
    field_type_invalid,
    field_unsupported,
    quoted,
)
from kaos.local.apiserver.fieldset import Node, SchemaNode, item_keys

Schema = dict[str, Any]
_ROOT = ("apiVersion", "kind", "metadata")
_NOTHING: Any = object()  # where there was no value before; equal to none
_LIMITS: dict[str, Callable[[Any], str]] = {
    "minimum": lambda n: f"should be greater than or equal to {n}",
    "maximum": lambda n: f"should be less than or equal to {n}",
    "exclusiveMinimum": lambda n: f"should be greater than {n}",
    "exclusiveMaximum": lambda n: f"should be less than {n}",
    "multipleOf": lambda n: f"should be a multiple of {n}",
    "minLength": lambda n: f"should be at least {n} chars long",
    "minItems": lambda n: f"should have at least {n} items",
    "minProperties": lambda n: f"should have at least {n} properties",
    "pattern": lambda text: f"should match '{text}'",
}
_TOO_MANY = {
    "maxLength": ("FieldValueTooLong", "Too long: may not be more than {} bytes"),
    "maxItems": ("FieldValueTooMany", "Too many: {found}: must have at most {} items"),
    "maxProperties": ("FieldValueTooMany", "Too many: {found}: must have at most {} items"),
}


class StructuralSchema:
    """One version's schema, made ready.

    Args:
        schema: The definition's ``openAPIV3Schema``.
    """

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._validator = jsonschema_rs.Draft4Validator(
            _plain(schema, root=True), validate_formats=False
        )

    def prune(self, obj: dict[str, Any]) -> list[str]:
        """Drop unknown fields; returns their paths."""
        unknown: list[str] = []
        _prune(obj, self._schema, "", unknown, root=True)
        return unknown

    def default(self, obj: dict[str, Any]) -> None:
        """Fill in defaults, and drop nulls where none may be."""
        _default(obj, self._schema)

    def validate(self, obj: dict[str, Any], old: dict[str, Any] | None = None) -> list[Cause]:
        """What is wrong with an object.

        Of an update, what was wrong before and is untouched does not count (ratcheting): else an
        object that a newer definition forbids could not even lose its finalizers.

        Args:
            obj: The object.
            old: What it replaces; defaults that are new are filled in.
        """
        causes = self._causes(obj, _NOTHING)
        if causes and old is not None:
            self.default(old)
            causes = self._causes(obj, old)
        return causes

    def _causes(self, obj: dict[str, Any], old: Any) -> list[Cause]:
        found: list[Cause] = []
        if not self._validator.is_valid(obj):
            errors = self._validator.iter_errors(obj)
            found = [_cause(e, obj) for e in errors if not _untouched(e.instance_path, obj, old)]
        lengths = {c.field for c in found if " chars long" in c.message or "Too long" in c.message}
        # Of a string the real server tells the first fault only, and its length comes first.
        causes = [c for c in found if not (c.field in lengths and "should match" in c.message)]
        before: list[Cause] = []
        if old is not _NOTHING:
            _duplicates(old, SchemaNode(self._schema, root=True), "", before)
        if not before:
            _duplicates(obj, SchemaNode(self._schema, root=True), "", causes)
        # As on a real cluster, rules are asked only of what is well-formed.
        if not causes:
            _break_rules(obj, old, self._schema, "", causes)
        return causes


def _untouched(path: Iterable[str | int], new: Any, old: Any) -> bool:
    """Whether what lies there is as it was."""
    for part in path:
        if new == old:
            return True
        new, old = new[part], _inside(old, part)
    return bool(new == old)


def _inside(old: Any, part: str | int) -> Any:
    # An item of a list cannot be told from another one: of a list that differs, all is new.
    return old.get(part, _NOTHING) if isinstance(old, dict) else _NOTHING


# Unknown fields


def _prune(value: Any, schema: Schema, at: str, unknown: list[str], *, root: bool = False) -> None:
    if isinstance(value, list):
        items = schema.get("items")
        if isinstance(items, dict):
            for index, item in enumerate(value):
                _prune(item, items, f"{at}[{index}]", unknown)
        return
    if not isinstance(value, dict):
        return
    known = schema.get("properties") or {}
    others = schema.get("additionalProperties")
    keep = bool(schema.get("x-kubernetes-preserve-unknown-fields")) or others is True
    spared = _ROOT if root or schema.get("x-kubernetes-embedded-resource") else ()
    for name in list(value):
        path = f"{at}.{name}" if at else name
        if name in spared:
            continue
        if name in known:
            _prune(value[name], known[name], path, unknown)
        elif isinstance(others, dict):
            _prune(value[name], others, path, unknown)
        elif not keep:
            unknown.append(path)
            del value[name]


# Defaults


def _default(value: Any, schema: Schema) -> None:
    if isinstance(value, list):
        items = schema.get("items")
        if isinstance(items, dict):
            for item in value:
                _default(item, items)
        return
    if not isinstance(value, dict):
        return
    known = schema.get("properties") or {}
    for name, field in known.items():
        # A null where none may be is as good as absent.
        if value.get(name, ...) is None and not field.get("nullable"):
            del value[name]
        if "default" in field and name not in value:
            value[name] = _copy(field["default"])
        if name in value:
            _default(value[name], field)
    others = schema.get("additionalProperties")
    if isinstance(others, dict):
        for name, item in value.items():
            if name not in known:
                _default(item, others)


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _copy(item) for name, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


# Validation


def _duplicates(value: Any, node: Node, at: str, causes: list[Cause]) -> None:
    """Tell items that come twice in a list that is a set or a map."""
    if isinstance(value, dict):
        for name, item in value.items():
            if at or name != "metadata":
                _duplicates(item, node.child(name), f"{at}.{name}" if at else name, causes)
    elif isinstance(value, list):
        keys: set[str] = set()
        if node.list_type.sort != "atomic":
            for index, key in enumerate(item_keys(value, node)):
                if key in keys:
                    text = f"Duplicate value: {key[2:]}"
                    causes.append(Cause(f"{at}[{index}]", "FieldValueDuplicate", text))
                keys.add(key)
        for index, item in enumerate(value):
            _duplicates(item, node.item(), f"{at}[{index}]", causes)


def _break_rules(value: Any, old: Any, schema: Schema, at: str, causes: list[Cause]) -> None:
    """Tell the rules of the schema that a value breaks, and did not break before."""
    if value == old:
        return
    for rule in schema.get("x-kubernetes-validations") or ():
        if value is not None and not holds(rule["rule"], value):
            text = rule.get("message") or f"failed rule: {rule['rule']}"
            where = f"{at}{rule.get('fieldPath', '')}".removeprefix(".")
            causes.append(field_invalid(where, _type(value), text))
    if isinstance(value, dict):
        known = schema.get("properties") or {}
        others = schema.get("additionalProperties")
        for name, item in value.items():
            inner = known.get(name, others)
            if isinstance(inner, dict):
                where = f"{at}.{name}" if at else name
                _break_rules(item, _inside(old, name), inner, where, causes)
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for index, item in enumerate(value):
            _break_rules(item, _NOTHING, schema["items"], f"{at}[{index}]", causes)


def _plain(schema: Any, *, root: bool = False) -> Any:
    """The schema as JSON Schema draft 4 (OpenAPI is nearly that) for the validator."""
    if not isinstance(schema, dict):
        return schema
    result: Schema = {}
    for name, value in schema.items():
        match name:
            case "properties":
                result[name] = {field: _plain(inner) for field, inner in value.items()}
            case "items" | "not" | "additionalProperties":
                result[name] = _plain(value)
            case "allOf" | "anyOf" | "oneOf":
                result[name] = [_plain(inner) for inner in value]
            case "description" | "default" | "example" | "title" | "externalDocs" | "format":
                pass
            case _ if not name.startswith("x-kubernetes-"):
                result[name] = value
    if root or schema.get("x-kubernetes-embedded-resource"):
        # metadata is checked by the server itself.
        result["properties"] = {**result.get("properties", {}), "metadata": {"type": "object"}}
    if schema.get("x-kubernetes-int-or-string"):
        result.pop("anyOf", None)
        result["type"] = ["integer", "string"]
    if schema.get("nullable") and "type" in result:
        types = result["type"]
        result["type"] = [*(types if isinstance(types, list) else [types]), "null"]
        if "enum" in result:
            result["enum"] = [*result["enum"], None]
    result.pop("nullable", None)
    return result


def _cause(error: jsonschema_rs.ValidationError, obj: Any) -> Cause:
    path: list[Any] = list(error.instance_path)
    at = _shown(path)
    value = _find(obj, path)
    keyword, wanted = error.kind.name, error.kind.value
    match keyword:
        case "required":
            return field_required(f"{at}.{wanted}" if at else wanted)
        case "type":
            types = ",".join(name for name in wanted if name != "null")
            found = _type(value)
            text = f"{at} in body must be of type {types}: {quoted(found)}"
            return field_type_invalid(at, found, text)
        case "enum":
            return field_unsupported(at, value, [choice for choice in wanted if choice is not None])
        case _ if keyword in _TOO_MANY:
            reason, text = _TOO_MANY[keyword]
            return Cause(at, reason, text.format(wanted, found=len(value)))
        case _ if keyword in _LIMITS:
            if isinstance(wanted, float) and wanted.is_integer():
                wanted = int(wanted)
            return field_invalid(at, value, f"{at} in body {_LIMITS[keyword](wanted)}")
        case _:
            return field_invalid(at, value, f"{at} in body: {error.message}")


def _type(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"


def _shown(path: list[Any]) -> str:
    text = ""
    for part in path:
        if isinstance(part, int) or (text and not re.fullmatch(r"[A-Za-z_][\w-]*", part)):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text


def _find(obj: Any, path: list[Any]) -> Any:
    for part in path:
        obj = obj[part]
    return obj
