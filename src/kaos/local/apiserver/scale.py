"""The scale subresource: one number of an object as an object of its own.

Guarantees the autoscaling/v1 form for every kind that has a scale, whatever its
own fields are called.
"""

from typing import Any

from kaos.local.apiserver.errors import (
    bad_request,
    conflict,
    field_invalid,
    invalid,
    no_such_resource,
)
from kaos.local.apiserver.registry import Kind, Scale

Object = dict[str, Any]


def get_scale(kind: Kind, obj: Object) -> Object:
    """The Scale of an object.

    Raises:
        StatusError: 404, the kind has no scale.
    """
    paths = _paths(kind)
    metadata = obj["metadata"]
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    status: Object = {"replicas": _find(obj, paths.status_replicas) or 0}
    if selector := _find(obj, paths.selector):
        status["selector"] = selector if isinstance(selector, str) else _selector(selector)
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {name: metadata[name] for name in kept if name in metadata},
        "spec": {"replicas": _find(obj, paths.spec_replicas) or 0},
        "status": status,
    }


def set_scale(kind: Kind, obj: Object, scale: Any) -> None:
    """Put the number of a Scale into an object.

    Raises:
        StatusError: The Scale is malformed, negative, or that of an older revision.
    """
    paths = _paths(kind)
    if not isinstance(scale, dict) or not isinstance(scale.get("spec") or {}, dict):
        raise bad_request("the body of the request is no Scale")
    metadata = scale.get("metadata") or {}
    version = metadata.get("resourceVersion")
    if version and version != obj["metadata"]["resourceVersion"]:
        raise conflict(kind, obj["metadata"]["name"])
    replicas = (scale.get("spec") or {}).get("replicas", 0)
    if not isinstance(replicas, int) or replicas < 0:
        text = "must be greater than or equal to 0"
        cause = field_invalid("spec.replicas", replicas, text)
        raise invalid(kind, obj["metadata"]["name"], [cause])
    for name in paths.spec_replicas[:-1]:
        obj = obj.setdefault(name, {})
    obj[paths.spec_replicas[-1]] = replicas


def _paths(kind: Kind) -> Scale:
    if kind.scale is None:
        raise no_such_resource()
    return kind.scale


def _find(obj: Any, path: tuple[str, ...]) -> Any:
    if not path:
        return None
    for name in path:
        obj = obj.get(name) if isinstance(obj, dict) else None
    return obj


def _selector(selector: Object) -> str:
    parts = [f"{name}={value}" for name, value in (selector.get("matchLabels") or {}).items()]
    for term in selector.get("matchExpressions") or ():
        values = ",".join(term.get("values") or ())
        match term.get("operator"):
            case "In" | "NotIn":
                parts.append(f"{term['key']} {term['operator'].lower()} ({values})")
            case "DoesNotExist":
                parts.append(f"!{term['key']}")
            case _:
                parts.append(term["key"])
    return ",".join(parts)
