"""Structural schemas, as CustomResourceDefinitions want them, from pydantic models.

Guarantees: no $ref, no title, no null among the types, no anyOf but int-or-string; descriptions,
limits and defaults are kept.
Does not: unions and tuples of several types, and recursive models: a structural schema has no words
for them, and a ValueError says so.
Which failures taught it: API servers read the words of OpenAPI 3.0, pydantic writes those of JSON
Schema 2020, so a field with `gt=0`, a set, or examples made a kind that was refused.
"""

from typing import Any

from pydantic import BaseModel

_DROPPED = (
    *("title", "discriminator", "const", "examples", "deprecated", "propertyNames"),
    *("readOnly", "writeOnly", "contentMediaType", "contentEncoding", "contentSchema"),
)
_FLAGS = {"exclusiveMinimum": "minimum", "exclusiveMaximum": "maximum"}
_DEEPEST = 32


def structural(model: type[BaseModel]) -> dict[str, Any]:
    """The schema of a model, by its aliases."""
    raw = model.model_json_schema(by_alias=True)
    return _node(raw, raw.get("$defs", {}), model.__name__)


def _node(node: dict[str, Any], definitions: dict[str, Any], where: str) -> dict[str, Any]:
    node = {key: value for key, value in node.items() if key != "$defs"}
    if where.count(".") > _DEEPEST:
        raise ValueError(f"{where}: a model that contains itself has no structural schema")
    if "$ref" in node:
        target = definitions[node.pop("$ref").rsplit("/", 1)[1]]
        node = _node({**target, **node}, definitions, where)
    if node.get("x-kubernetes-int-or-string"):
        node.pop("anyOf", None)
        node.pop("type", None)
    if "anyOf" in node:
        options = [option for option in node.pop("anyOf") if option != {"type": "null"}]
        if len(options) != 1:
            raise ValueError(f"{where}: a union of several types has no structural schema")
        node = {**_node(options[0], definitions, where), **node}
    if "oneOf" in node:
        raise ValueError(f"{where}: a union of several types has no structural schema")
    if "prefixItems" in node:
        raise ValueError(f"{where}: a tuple of several types has no structural schema")
    for flag, limit in _FLAGS.items():
        if flag in node and node[flag] is not True:
            node[limit], node[flag] = node[flag], True
    if node.pop("uniqueItems", False):
        node["x-kubernetes-list-type"] = "set"
    if "patternProperties" in node:
        (node["additionalProperties"],) = node.pop("patternProperties").values()
    if node.get("const") is not None:
        node["enum"] = [node["const"]]
    for key in _DROPPED:
        node.pop(key, None)
    if node.get("default", ...) is None:
        del node["default"]
    if "properties" in node:
        node["properties"] = {
            name: _node(child, definitions, f"{where}.{name}")
            for name, child in node["properties"].items()
        }
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            node[key] = _node(node[key], definitions, f"{where}.{key}")
    if not node.keys() & {"type", "x-kubernetes-int-or-string"}:
        node.setdefault("x-kubernetes-preserve-unknown-fields", True)
    elif node.get("additionalProperties") is True:
        node["x-kubernetes-preserve-unknown-fields"] = True
    elif node.get("additionalProperties") is False:
        del node["additionalProperties"]  # the API server prunes, and refuses when asked to
    if node.get("x-kubernetes-preserve-unknown-fields"):
        node.pop("additionalProperties", None)
    return node
