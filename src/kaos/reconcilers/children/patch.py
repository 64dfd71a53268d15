"""A user's patch laid over a pod's spec, in the way that kubectl's strategic merge works.

Guarantees: objects are merged, lists whose items have an identity (containers, volumes, variables,
ports …) are merged item by item, other lists are replaced; null removes a field, and an item that
says `$patch: delete` is removed. What cannot be merged is told with its place, never swallowed
(the earlier KAOS logged such an error and started the pod without the patch).

Does not: know every field of a pod. A field that does not exist is refused by the API server when
the Deployment is applied, and told in the resource's Accepted condition.
"""

from collections.abc import Mapping
from typing import Any

IDENTITIES = {
    "containers": "name",
    "initContainers": "name",
    "ephemeralContainers": "name",
    "env": "name",
    "imagePullSecrets": "name",
    "resourceClaims": "name",
    "volumes": "name",
    "hostAliases": "ip",
    "ports": "containerPort",
    "topologySpreadConstraints": "topologyKey",
    "volumeDevices": "devicePath",
    "volumeMounts": "mountPath",
}
"""Lists that are merged, and the field by which two items are the same."""

DIRECTIVE = "$patch"
UNIONS = {
    "env": ("value", "valueFrom"),
    "volumes": (
        *("emptyDir", "configMap", "secret", "persistentVolumeClaim", "projected", "hostPath"),
        *("downwardAPI", "csi", "ephemeral", "nfs", "image"),
    ),
}
"""Fields of an item of which only one can stand: the patch's choice drops the other."""


class PatchError(ValueError):
    """The patch does not fit; the message names the place."""


def merged(
    base: Mapping[str, Any], patch: Mapping[str, Any], at: str = "podSpec"
) -> dict[str, Any]:
    """The base with the patch laid over it; neither is changed.

    Args:
        base: what there is.
        patch: what is to be different.
        at: where the patch stands, for messages.

    Raises:
        PatchError: an object meets a list, or an item has no identity.
    """
    result = dict(base)
    for name, value in patch.items():
        where = f"{at}.{name}"
        old = result.get(name)
        if value is None:
            result.pop(name, None)
        elif isinstance(value, Mapping):
            if old is not None and not isinstance(old, Mapping):
                raise PatchError(f"{where}: must be {_kind(old)}, not an object")
            result[name] = merged(old or {}, value, where)
        elif name in IDENTITIES:
            result[name] = _items(old or [], value, name, where)
        elif isinstance(old, Mapping):
            raise PatchError(f"{where}: must be an object, not {_kind(value)}")
        else:
            result[name] = value
    return result


def _items(base: list[Any], patch: Any, name: str, at: str) -> list[Any]:
    if not isinstance(patch, list):
        raise PatchError(f"{at}: must be a list, not {_kind(patch)}")
    key = IDENTITIES[name]
    found = {item[key]: item for item in base}
    for index, item in enumerate(patch):
        where = f"{at}[{index}]"
        identity = item.get(key) if isinstance(item, Mapping) else None
        if not isinstance(identity, str | int) or identity == "":
            raise PatchError(f"{where}: needs {key}, by which it is merged")
        if item.get(DIRECTIVE) == "delete":
            found.pop(identity, None)
            continue
        if DIRECTIVE in item:
            raise PatchError(f"{where}: {DIRECTIVE} can only be delete")
        union = UNIONS.get(name, ())
        chosen = any(field in item for field in union)
        old = found.get(identity, {})
        kept = {k: v for k, v in old.items() if not (chosen and k in union and k not in item)}
        found[identity] = merged(kept, item, where)
    return list(found.values())


def _kind(value: Any) -> str:
    if isinstance(value, Mapping):
        return "an object"
    return "a list" if isinstance(value, list) else "a plain value"
