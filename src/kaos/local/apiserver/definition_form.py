"""The form of a CustomResourceDefinition: which field holds what.

Guarantees that a definition of this form can be read without asking again at every step: one that
is stored and cannot be read would keep the API server from starting ever after.
"""

from typing import Any

import jsonschema_rs

Form = dict[str, Any]


def _object(**fields: Form) -> Form:
    return {"type": ["object", "null"], "properties": fields}


def _list(items: Form) -> Form:
    return {"type": ["array", "null"], "items": items}


_TEXT: Form = {"type": ["string", "null"]}
_FLAG: Form = {"type": ["boolean", "null"]}
_COUNT: Form = {"type": ["integer", "null"]}
_NUMBER: Form = {"type": ["number", "null"]}
_SCHEMA: Form = {"$ref": "#/definitions/schema"}
_SCHEMAS: Form = {"type": ["object", "null"], "additionalProperties": _SCHEMA}
_RULE: Form = {"type": "object", "properties": {"rule": {"type": "string"}}, "required": ["rule"]}
_ONE: Form = {
    "type": "object",
    "properties": {
        **dict.fromkeys(("type", "format", "pattern", "description", "title"), _TEXT),
        **dict.fromkeys(("x-kubernetes-list-type", "x-kubernetes-map-type"), _TEXT),
        **dict.fromkeys(("nullable", "uniqueItems", "exclusiveMinimum", "exclusiveMaximum"), _FLAG),
        "x-kubernetes-preserve-unknown-fields": _FLAG,
        "x-kubernetes-embedded-resource": _FLAG,
        "x-kubernetes-int-or-string": _FLAG,
        **dict.fromkeys(("minimum", "maximum", "multipleOf"), _NUMBER),
        **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems"), _COUNT),
        **dict.fromkeys(("minProperties", "maxProperties"), _COUNT),
        "enum": _list({}),
        **dict.fromkeys(("required", "x-kubernetes-list-map-keys"), _list({"type": "string"})),
        "x-kubernetes-validations": _list(_RULE),
        "properties": _SCHEMAS,
        **dict.fromkeys(("items", "not"), _SCHEMA),
        **dict.fromkeys(("allOf", "anyOf", "oneOf"), _list(_SCHEMA)),
        "additionalProperties": {"anyOf": [{"type": "boolean"}, _SCHEMA]},
    },
}
_COLUMN = _object(
    name=_TEXT, type=_TEXT, format=_TEXT, description=_TEXT, jsonPath=_TEXT, priority=_COUNT
)
_SCALE = _object(specReplicasPath=_TEXT, statusReplicasPath=_TEXT, labelSelectorPath=_TEXT)
_VERSION: Form = {
    "type": "object",
    "properties": {
        "name": _TEXT,
        "served": _FLAG,
        "storage": _FLAG,
        "schema": _object(openAPIV3Schema=_SCHEMA),
        "subresources": _object(status=_object(), scale=_SCALE),
        "additionalPrinterColumns": _list(_COLUMN),
    },
}
_NAMES = _object(
    **dict.fromkeys(("plural", "singular", "kind", "listKind"), _TEXT),
    **dict.fromkeys(("shortNames", "categories"), _list({"type": "string"})),
)
_SPEC = _object(
    group=_TEXT,
    scope=_TEXT,
    names=_NAMES,
    versions=_list(_VERSION),
    conversion=_object(strategy=_TEXT),
    preserveUnknownFields=_FLAG,
)
_validator = jsonschema_rs.Draft4Validator({**_object(spec=_SPEC), "definitions": {"schema": _ONE}})


def malformed_definition(crd: Form) -> str:
    """The first field of a definition that holds what it cannot; empty when there is none."""
    for error in _validator.iter_errors({"spec": crd.get("spec")}):
        path = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in error.instance_path)
        return f"{path.removeprefix('.')}: {error.message}"
    return ""
