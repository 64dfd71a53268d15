"""From a container's manifest to the environment and command line of a process. Pure.

Guarantees: variables in the order and with the precedence of Kubernetes (image, envFrom, env; a
later one wins), `$(VAR)` expanded in values, command and args exactly as there (`$$` escapes, an
unknown name stays as it is written), and of the machine's own environment only a short list.

What a container has and a process has not is translated in values and arguments:

- addresses: `0.0.0.0:P`, `127.0.0.1:P`, `localhost:P`, `[::]:P` of a declared container port P of
  the same pod become `127.0.0.1:<the host port that stands for P>`;
- paths: a mount path, or a path below it, becomes the volume's folder.

Does not: translate addresses and paths that a program has inside, or `resourceFieldRef`.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

INHERITED = (
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE",
    "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY",
    "http_proxy", "https_proxy", "all_proxy", "no_proxy",
    "XDG_CACHE_HOME", "KAOS_MODEL_OVERRIDES",
)  # fmt: skip
INHERITED_PREFIXES = ("PIP_", "UV_")

_REFERENCE = re.compile(r"\$\$|\$\(([^)]*)\)")
_ADDRESS = re.compile(r"(?<![\w.\-])(?:0\.0\.0\.0|127\.0\.0\.1|localhost|\[::1?\]):(\d{1,5})(?!\d)")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")


class ConfigError(Exception):
    """A container's configuration cannot be resolved (reason `CreateContainerConfigError`)."""


class Sources(Protocol):
    """The ConfigMaps and Secrets of the pod's namespace; None for one that does not exist."""

    def config_map(self, name: str) -> Mapping[str, str] | None:
        """The text entries of a ConfigMap."""

    def secret(self, name: str) -> Mapping[str, bytes] | None:
        """The decoded entries of a Secret."""


@dataclass(frozen=True, slots=True)
class Translation:
    """What stands on this machine for a pod's ports and paths."""

    ports: Mapping[int, int] = field(default_factory=dict)
    """Host port by container port, of the whole pod."""
    mounts: Mapping[str, Path] = field(default_factory=dict)
    """Folder or file by mount path, of one container."""

    def apply(self, text: str) -> str:
        """Translate the addresses and paths in a text."""
        return self._paths(_ADDRESS.sub(self._address, text))

    def _address(self, match: re.Match[str]) -> str:
        port = self.ports.get(int(match[1]))
        return match[0] if port is None else f"127.0.0.1:{port}"

    def _paths(self, text: str) -> str:
        if not self.mounts:
            return text
        # One pass over all mount paths, the longest first: what was put in is not looked at again.
        paths = sorted((m for m in self.mounts if m != "/"), key=len, reverse=True)
        pattern = "|".join(re.escape(path) for path in paths)
        return re.sub(
            rf"(?<![\w.\-}}])(?:{pattern})(?![\w.\-])",
            lambda match: str(self.mounts[match[0]]),
            text,
        )


def expand(text: str, values: Mapping[str, str]) -> str:
    """Expand `$(NAME)` as Kubernetes does: unknown names stay, `$$` is a dollar sign."""

    def replace(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return values.get(match[1], match[0])

    return _REFERENCE.sub(replace, text)


def inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """What a pod's process gets of the machine's environment."""
    kept = {
        name: value
        for name, value in environ.items()
        if name in INHERITED or name.startswith(INHERITED_PREFIXES)
    }
    if home := kept.get("HOME"):
        # A container may set HOME to a volume of its own; caches (packages, models) stay shared.
        kept.setdefault("XDG_CACHE_HOME", f"{home}/.cache")
    if any(name.lower().endswith("_proxy") for name in kept):
        # Pods talk to each other over loopback, where no proxy can help.
        for name in ("NO_PROXY", "no_proxy"):
            listed = [host.strip() for host in kept.get(name, "").split(",") if host.strip()]
            kept[name] = ",".join(dict.fromkeys([*listed, *_LOOPBACK]))
    return kept


def container_env(
    container: Mapping[str, Any],
    pod: Mapping[str, Any],
    sources: Sources,
    *,
    translation: Translation,
    image_env: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The variables that a container's manifest asks for, expanded but not yet translated.

    Only `PORT` is: as a host port it can be referred to where an address is put together. All else
    is translated once, after everything is expanded, or what was put in would be translated again
    (a folder below /tmp, in a pod that mounts a volume at /tmp).

    Raises:
        ConfigError: A ConfigMap, Secret or key is missing and not optional.
    """
    values: dict[str, str] = dict(image_env or {})
    for entry in container.get("envFrom") or []:
        values.update(_env_from(entry, pod, sources))
    for entry in container.get("env") or []:
        name = entry["name"]
        if (reference := entry.get("valueFrom")) is not None:
            value = _value_from(reference, pod, sources)
            if value is not None:
                values[name] = value
        else:
            values[name] = expand(str(entry.get("value") or ""), values)
    _set_port(values, container, translation)
    return values


def translated(values: Mapping[str, str], translation: Translation) -> dict[str, str]:
    """Variables with the addresses and paths of this machine."""
    return {name: translation.apply(value) for name, value in values.items()}


def command_line(
    words: Iterable[str], env: Mapping[str, str], translation: Translation
) -> list[str]:
    """Expand and translate a command or an argument list."""
    return [translation.apply(expand(str(word), env)) for word in words]


def _set_port(
    values: dict[str, str], container: Mapping[str, Any], translation: Translation
) -> None:
    declared = [int(port["containerPort"]) for port in container.get("ports") or []]
    if "PORT" not in values:
        if declared and (port := translation.ports.get(declared[0])):
            values["PORT"] = str(port)
    elif values["PORT"].isdigit() and (port := translation.ports.get(int(values["PORT"]))):
        values["PORT"] = str(port)


def _env_from(entry: Mapping[str, Any], pod: Mapping[str, Any], sources: Sources) -> dict[str, str]:
    prefix = entry.get("prefix") or ""
    found: Mapping[str, str] | None
    if (reference := entry.get("configMapRef")) is not None:
        kind, found = "configmap", sources.config_map(reference["name"])
    elif (reference := entry.get("secretRef")) is not None:
        secret = sources.secret(reference["name"])
        kind, found = "secret", None if secret is None else _texts(secret)
    else:
        return {}
    if found is None:
        if reference.get("optional"):
            return {}
        raise ConfigError(f'{kind} "{reference["name"]}" not found in {_namespace(pod)}')
    return {prefix + name: value for name, value in found.items()}


def _value_from(
    reference: Mapping[str, Any], pod: Mapping[str, Any], sources: Sources
) -> str | None:
    if (ref := reference.get("fieldRef")) is not None:
        return field_value(ref.get("fieldPath", ""), pod)
    found: Mapping[str, str] | None
    if (ref := reference.get("configMapKeyRef")) is not None:
        kind, found = "ConfigMap", sources.config_map(ref["name"])
    elif (ref := reference.get("secretKeyRef")) is not None:
        secret = sources.secret(ref["name"])
        kind, found = "Secret", None if secret is None else _texts(secret)
    else:
        named = ", ".join(reference) or "nothing"
        raise ConfigError(f"valueFrom: {named} is not supported by the embedded cluster")
    if found is not None and ref["key"] in found:
        return found[ref["key"]]
    if ref.get("optional"):
        return None
    name = f"{_namespace(pod)}/{ref['name']}"
    if found is None:
        raise ConfigError(f"{kind} {name} not found")
    raise ConfigError(f"couldn't find key {ref['key']} in {kind} {name}")


def field_value(path: str, pod: Mapping[str, Any]) -> str:
    """The value of a downward API field.

    Raises:
        ConfigError: Kubernetes or the embedded cluster has no such field.
    """
    metadata = pod.get("metadata", {})
    spec = pod.get("spec", {})
    fields: dict[str, Callable[[], Any]] = {
        "metadata.name": lambda: metadata.get("name"),
        "metadata.namespace": lambda: metadata.get("namespace"),
        "metadata.uid": lambda: metadata.get("uid"),
        "metadata.labels": lambda: _key_values(metadata.get("labels") or {}),
        "metadata.annotations": lambda: _key_values(metadata.get("annotations") or {}),
        "spec.nodeName": lambda: spec.get("nodeName"),
        "spec.serviceAccountName": lambda: spec.get("serviceAccountName") or "default",
        "status.podIP": lambda: "127.0.0.1",
        "status.podIPs": lambda: "127.0.0.1",
        "status.hostIP": lambda: "127.0.0.1",
        "status.hostIPs": lambda: "127.0.0.1",
    }
    if path in fields:
        return str(fields[path]() or "")
    if match := _SUBSCRIPT.fullmatch(path):
        return str((metadata.get(match[1]) or {}).get(match[2], ""))
    raise ConfigError(f"unsupported fieldPath: {path}")


def _key_values(entries: Mapping[str, str]) -> str:
    return "".join(f'{name}="{value}"\n' for name, value in sorted(entries.items()))


def _texts(entries: Mapping[str, bytes]) -> dict[str, str]:
    return {name: value.decode(errors="replace") for name, value in entries.items()}


def _namespace(pod: Mapping[str, Any]) -> str:
    return str(pod.get("metadata", {}).get("namespace", "default"))


def host_port_names(container: Mapping[str, Any]) -> dict[str, int]:
    """Container ports by name."""
    return {
        str(port["name"]): int(port["containerPort"])
        for port in container.get("ports") or []
        if port.get("name")
    }


def declared_ports(containers: Sequence[Mapping[str, Any]]) -> list[int]:
    """All declared TCP container ports of a pod, in order, each once."""
    ports = [
        int(port["containerPort"])
        for container in containers
        for port in container.get("ports") or []
        if port.get("protocol", "TCP") == "TCP"
    ]
    return list(dict.fromkeys(ports))
