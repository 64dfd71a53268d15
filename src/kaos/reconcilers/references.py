"""Secrets and ConfigMaps that a pod reads: found in its spec, watched, and hashed into it.

Guarantees: whatever way a pod refers to one (a variable, all variables of one, a volume, also those
of the user's `podSpec`), a change of it changes the pod template, so the pods are rolled; one that
is missing is told. What the process reads again by itself (an agent's list of tokens) rolls
nothing. A ConfigMap counts by its data, a Secret by its uid and resourceVersion, because
its data is not read: an edit of a Secret's labels alone rolls as well.

Does not: see a Secret when the controller was told not to watch them (`KAOS_WATCH_SECRETS=false`).
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from kaos.reconcilers.children.auth import AUTH
from kaos.reconcilers.conditions import Reason
from kaos.runtime import CONFIG_MAP, SECRET, Cache, Object, ResourceType

ANNOTATION = "kaos.tools/references-hash"
REFERENCES = "kaos.tools/references"
LIVE = AUTH
"""The volume whose files are read again when they change; of a name that users do not take."""
KINDS = {kind.kind: kind for kind in (SECRET, CONFIG_MAP)}


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """One Secret or ConfigMap, or one key of it, that a pod reads.

    Attributes:
        kind: Secret or ConfigMap.
        name: its name.
        key: the key that is needed; empty for all of them.
        optional: whether the pod starts without it.
        live: whether the process reads it again by itself, so that a change rolls nothing.
    """

    kind: str
    name: str
    key: str = ""
    optional: bool = False
    live: bool = False


def references(pod: Mapping[str, Any]) -> list[Reference]:
    """What a pod's spec refers to, in a stable order."""
    containers = [*_objects(pod.get("initContainers")), *_objects(pod.get("containers"))]
    found = {ref for container in containers for ref in _of_container(container)}
    found |= {ref for volume in _objects(pod.get("volumes")) for ref in _of_volume(volume)}
    return sorted(found)


def _of_container(container: Mapping[str, Any]) -> Iterator[Reference]:
    for variable in _objects(container.get("env")):
        if source := _object(variable.get("valueFrom")):
            yield from _named("Secret", source.get("secretKeyRef"))
            yield from _named("ConfigMap", source.get("configMapKeyRef"))
    for source in _objects(container.get("envFrom")):
        yield from _named("Secret", source.get("secretRef"))
        yield from _named("ConfigMap", source.get("configMapRef"))


def _of_volume(volume: Mapping[str, Any]) -> Iterator[Reference]:
    live = volume.get("name") == LIVE
    for source in (volume, *_objects(_object(volume.get("projected")).get("sources"))):
        secret = _object(source.get("secret"))
        name = secret.get("secretName") or secret.get("name")
        for ref in (
            *_named("Secret", {**secret, "name": name}),
            *_named("ConfigMap", source.get("configMap")),
        ):
            yield replace(ref, key="", live=live)


def _named(kind: str, value: object) -> Iterator[Reference]:
    """What a reference names; one that names nothing is the API server's to refuse."""
    ref = _object(value)
    name, key = ref.get("name"), ref.get("key")
    if name and isinstance(name, str):
        key = key if isinstance(key, str) else ""
        yield Reference(kind, name, key, bool(ref.get("optional")))


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _objects(value: object) -> list[Mapping[str, Any]]:
    return [*map(_object, value)] if isinstance(value, list) else []


def index_keys(deployment: Object) -> Iterable[str]:
    """The keys by which a Deployment is found when something that it refers to changes."""
    found = references(deployment.spec.get("template", {}).get("spec", {}))
    return {f"{ref.kind}/{deployment.namespace}/{ref.name}" for ref in found}


class References:
    """What the cache knows of what pods refer to.

    Args:
        cache: with ConfigMaps in it, and Secrets (their metadata) if they are watched.
        secrets: whether Secrets are watched.
    """

    def __init__(self, cache: Cache, *, secrets: bool) -> None:
        self._cache = cache
        self._kinds: dict[str, ResourceType] = {"ConfigMap": CONFIG_MAP}
        if secrets:
            self._kinds["Secret"] = SECRET

    def digest(self, pod: Mapping[str, Any], namespace: str, own: Iterable[str] = ()) -> str:
        """A hash of the state of all that a pod refers to; empty when it refers to nothing.

        Args:
            pod: its spec.
            namespace: where it runs.
            own: ConfigMaps that are applied together with the pod, and hashed by their builder.
        """
        states = {
            (ref.kind, ref.name): self._state(ref, namespace)
            for ref in references(pod)
            if ref.kind in self._kinds and not ref.live and not _is_own(ref, own)
        }
        if not states:
            return ""
        text = "\n".join(f"{kind}/{name}={state}" for (kind, name), state in states.items())
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def lacks(
        self, pod: Mapping[str, Any], namespace: str, own: Iterable[str] = ()
    ) -> list[tuple[Reason, str]]:
        """What a pod refers to and needs, and is not there."""
        found = []
        for ref in references(pod):
            if ref.optional or ref.kind not in self._kinds or _is_own(ref, own):
                continue
            obj = self._cache.get(self._kinds[ref.kind], ref.name, namespace)
            if obj is None:
                found.append(f'{ref.kind} "{ref.name}" does not exist')
            elif ref.kind == "ConfigMap" and ref.key and not _has_key(obj, ref.key):
                found.append(f'ConfigMap "{ref.name}" has no key "{ref.key}"')
        return [(Reason.DEPENDENCY_MISSING, words) for words in dict.fromkeys(found)]

    def _state(self, ref: Reference, namespace: str) -> str:
        obj = self._cache.get(self._kinds[ref.kind], ref.name, namespace)
        if obj is None:
            return "absent"
        if ref.kind == "Secret":
            return f"{obj.uid}/{obj.metadata.resource_version}"
        data = obj.raw("data") + b"\0" + obj.raw("binaryData")
        return hashlib.sha256(data).hexdigest()


def _is_own(ref: Reference, own: Iterable[str]) -> bool:
    return ref.kind == "ConfigMap" and ref.name in own


def _has_key(config_map: Object, key: str) -> bool:
    return any(key in (config_map.get(field) or {}) for field in ("data", "binaryData"))
