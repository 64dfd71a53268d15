"""The ConfigMaps and Secrets that a pod refers to, read right before they are needed.

Guarantees: a container starts with their present content (read from the API server, not from a
cache that may lag behind a write the user has just made), and only what is referred to is read.
"""

import base64
import binascii
from collections.abc import Iterator, Mapping
from typing import Any

from kaos.runtime import CONFIG_MAP, SECRET, Client, NotFound, ResourceType

_NAMED = {
    "configMapRef": (CONFIG_MAP, "name"),
    "configMapKeyRef": (CONFIG_MAP, "name"),
    "configMap": (CONFIG_MAP, "name"),
    "secretRef": (SECRET, "name"),
    "secretKeyRef": (SECRET, "name"),
}


class LoadedSources:
    """What was read; implements `environment.Sources`."""

    def __init__(
        self,
        config_maps: Mapping[str, Mapping[str, str]],
        secrets: Mapping[str, Mapping[str, bytes]],
    ) -> None:
        self._config_maps = config_maps
        self._secrets = secrets

    def config_map(self, name: str) -> Mapping[str, str] | None:
        """The text entries of a ConfigMap."""
        return self._config_maps.get(name)

    def secret(self, name: str) -> Mapping[str, bytes] | None:
        """The decoded entries of a Secret."""
        return self._secrets.get(name)


async def load(client: Client, pod: Mapping[str, Any]) -> LoadedSources:
    """Read all ConfigMaps and Secrets that a pod refers to; missing ones are left out."""
    namespace = pod["metadata"]["namespace"]
    config_maps: dict[str, dict[str, str]] = {}
    secrets: dict[str, dict[str, bytes]] = {}
    for kind, name in sorted(set(references(pod)), key=lambda found: (found[0].kind, found[1])):
        try:
            obj = await client.get(kind, name, namespace)
        except NotFound:
            continue
        if kind is CONFIG_MAP:
            binary = {k: _decoded(v).decode(errors="replace") for k, v in _data(obj, "binaryData")}
            config_maps[name] = binary | {key: str(value) for key, value in _data(obj, "data")}
        else:
            secrets[name] = {key: _decoded(value) for key, value in _data(obj, "data")}
    return LoadedSources(config_maps, secrets)


def references(pod: Mapping[str, Any]) -> Iterator[tuple[ResourceType, str]]:
    """Kind and name of everything that a pod's variables and volumes refer to."""
    spec = pod.get("spec", {})
    for container in [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]:
        for entry in container.get("envFrom") or []:
            yield from _named(entry)
        for entry in container.get("env") or []:
            yield from _named(entry.get("valueFrom") or {})
    for volume in spec.get("volumes") or []:
        projected = (volume.get("projected") or {}).get("sources") or []
        for source in [volume, *projected]:
            yield from _named(source)
            secret = source.get("secret") or {}
            if name := secret.get("secretName") or secret.get("name"):
                yield SECRET, name


def _named(entry: Mapping[str, Any]) -> Iterator[tuple[ResourceType, str]]:
    for key, (kind, field) in _NAMED.items():
        if (reference := entry.get(key)) and reference.get(field):
            yield kind, reference[field]


def _data(obj: Any, field: str) -> list[tuple[str, str]]:
    return list((obj.get(field) or {}).items())


def _decoded(value: str) -> bytes:
    try:
        return base64.b64decode(value)
    except (binascii.Error, ValueError):
        return value.encode()  # the API server refuses this; better a wrong value than a crash
