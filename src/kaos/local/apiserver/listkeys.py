"""Which lists are sets and which are maps, for merging and for owning their items.

Guarantees the answer of the real API for the built-in kinds KAOS and its users
write; a list of a built-in kind that is not in the table is atomic. For custom
resources the schema says it (``x-kubernetes-list-type``).
"""

from typing import Any, Literal, NamedTuple

Sort = Literal["atomic", "set", "map"]


class ListType(NamedTuple):
    """How a list is to be understood; ``keys`` identify the items of a map."""

    sort: Sort
    keys: tuple[str, ...] = ()


ATOMIC = ListType("atomic")
SET = ListType("set")

Path = tuple[str, ...]  # field names, without list items


def _map(*keys: str) -> ListType:
    return ListType("map", keys)


# By the last field name, where it means the same everywhere.
_BY_NAME: dict[str, ListType] = {
    "containers": _map("name"),
    "initContainers": _map("name"),
    "ephemeralContainers": _map("name"),
    "env": _map("name"),
    "volumes": _map("name"),
    "volumeMounts": _map("mountPath"),
    "volumeDevices": _map("devicePath"),
    "imagePullSecrets": _map("name"),
    "hostAliases": _map("ip"),
    "topologySpreadConstraints": _map("topologyKey", "whenUnsatisfiable"),
    "conditions": _map("type"),
    "ownerReferences": _map("uid"),
    "finalizers": SET,
    "listeners": _map("name"),
    "podIPs": _map("ip"),
    "secrets": _map("name"),
    "schedulingGates": _map("name"),
    "resourceClaims": _map("name"),
}
# By parent and name, where the name alone would mislead.
_BY_PARENT: dict[tuple[str, str], ListType] = {
    ("containers", "ports"): _map("containerPort", "protocol"),
    ("initContainers", "ports"): _map("containerPort", "protocol"),
    ("spec", "ports"): _map("port", "protocol"),  # of a Service
    ("status", "addresses"): _map("type"),  # of a Node
}
# Objects that are one value: whoever writes a part of it owns all of it.
_ATOMIC_OBJECTS = frozenset(
    {
        "selector",
        "labelSelector",
        "namespaceSelector",
        "podSelector",
        "matchLabels",
        "nodeSelector",
        "configMapKeyRef",
        "secretKeyRef",
        "fieldRef",
        "resourceFieldRef",
        "secretRef",
        "configMapRef",
        "roleRef",
        "involvedObject",
        "regarding",
        "claimRef",
        "targetRef",
    }
)
# Strategic merge patch merges by one key, which for ports is not the pair.
_PATCH_KEYS: dict[tuple[str, str], str] = {
    ("containers", "ports"): "containerPort",
    ("initContainers", "ports"): "containerPort",
    ("spec", "ports"): "port",
}
_NO_STRATEGIC = frozenset({"listeners", "resourceClaims"})


def builtin_list(path: Path) -> ListType:
    """How a list of a built-in kind at this path is to be understood."""
    found = _BY_PARENT.get(path[-2:]) if len(path) >= 2 else None  # type: ignore[arg-type]
    return found or _BY_NAME.get(path[-1], ATOMIC)


def builtin_atomic(path: Path) -> bool:
    """Whether an object of a built-in kind at this path is one value."""
    return path[-1] in _ATOMIC_OBJECTS


def patch_key(path: Path) -> str | None:
    """By which key strategic merge patch merges a list; "" for a set, None to replace it."""
    if path[-2:] in _PATCH_KEYS:
        return _PATCH_KEYS[path[-2:]]  # type: ignore[index]
    found = builtin_list(path)
    if found.sort == "set":
        return ""
    return found.keys[0] if found.keys and path[-1] not in _NO_STRATEGIC else None


def schema_list(schema: dict[str, Any]) -> ListType:
    """How a list of a custom resource is to be understood."""
    sort = schema.get("x-kubernetes-list-type", "atomic")
    if sort == "map":
        return ListType("map", tuple(schema.get("x-kubernetes-list-map-keys", ())))
    return SET if sort == "set" else ATOMIC


def item_defaults(path: Path) -> dict[str, Any]:
    """What the keys of an item default to where the item leaves them out."""
    return {"protocol": "TCP"} if path[-1] == "ports" else {}
