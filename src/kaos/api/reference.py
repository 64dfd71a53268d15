"""docs/reference/resources.md from the models: every field with its type, default and meaning."""

from collections.abc import Iterator
from typing import Any

from kaos.api.crd import crd
from kaos.api.meta import CustomResource

HEADER = """# Resources

Generated from src/kaos/api by `nox -s manifests`. Do not edit.

All three kinds are `kaos.tools/v1alpha1` and namespaced; `kubectl get kaos` lists them together.
Names refer to objects in the same namespace. Where an Agent names another resource,
`namespace/name` is one elsewhere; a ReferenceGrant of the Gateway API in that namespace must allow
it, from group `kaos.tools`, kind `Agent`, to group `kaos.tools` and the kind that is named.
"""


def reference(models: tuple[type[CustomResource], ...]) -> str:
    """The page for these kinds."""
    return "\n".join([HEADER, *(_section(model) for model in models)])


def _section(model: type[CustomResource]) -> str:
    definition = crd(model)["spec"]
    schema = definition["versions"][0]["schema"]["openAPIV3Schema"]
    short = ", ".join(f"`{name}`" for name in definition["names"]["shortNames"])
    lines = [f"## {model.KIND}", "", schema["description"]]
    lines += ["", f"Short names: {short}."] if short else []
    for part in ("spec", "status"):
        lines += ["", f"| {part} | type | default | meaning |", "|---|---|---|---|"]
        node = schema["properties"][part]
        lines += [_row(*field) for field in _fields(node, "")]
    return "\n".join([*lines, ""])


def _fields(node: dict[str, Any], prefix: str) -> Iterator[tuple[str, dict[str, Any], bool]]:
    required = node.get("required", ())
    for name, child in node.get("properties", {}).items():
        path = f"{prefix}{name}"
        yield path, child, name in required
        yield from _fields(child, f"{path}.")
        items = child.get("items", {})
        # A variable and a condition are known from Kubernetes itself.
        if items.get("properties") and name not in ("env", "conditions"):
            yield from _fields(items, f"{path}[].")


def _row(path: str, node: dict[str, Any], required: bool) -> str:
    default = f"`{node['default']}`" if "default" in node else "required" if required else ""
    meaning = node.get("description", "").replace("|", "\\|")
    return f"| `{path}` | {_type(node)} | {default} | {meaning} |"


def _type(node: dict[str, Any]) -> str:
    if "enum" in node:
        return " or ".join(f"`{value}`" for value in node["enum"])
    if node.get("x-kubernetes-int-or-string"):
        return "quantity"
    if node.get("type") == "array":
        return f"list of {_type(node['items'])}"
    bounds = [f"{word} {node[key]}" for key, word in _BOUNDS.items() if key in node]
    return " ".join([str(node["type"]), *(["(" + ", ".join(bounds) + ")"] if bounds else [])])


_BOUNDS = {"minimum": "≥", "maximum": "≤"}
