"""A kubeconfig, read as kubectl reads it, and cut down to one context for kr8s.

Guarantees: of several files, the first one that names a context, a cluster or a user counts; a path
in a file is relative to that file; a plugin is told what kubectl tells it. What kubectl would not
take either is a ValueError of one line, and so is a user that impersonates another: silently acting
as oneself would be more than was allowed.
Does not: run plugins, or read keys and tokens: `config` does, by kr8s.
Which failures taught it: kr8s takes the namespace of the current context for another one's, the
last of several files, and paths from the working directory; it ends with a KeyError where there is
no current context or no user.
"""

import base64
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import yaml

_PATHS = ("certificate-authority", "client-certificate", "client-key", "tokenFile")
_TOLD = ("server", "tls-server-name", "insecure-skip-tls-verify", "proxy-url")
_EXEC_EXTENSION = "client.authentication.k8s.io/exec"
_Part: TypeAlias = dict[str, Any]


class _Entry(msgspec.Struct):
    name: str
    context: _Part | None = None
    cluster: _Part | None = None
    user: _Part | None = None


class _File(msgspec.Struct, rename="kebab"):
    current_context: str | None = None
    contexts: list[_Entry] | None = None
    clusters: list[_Entry] | None = None
    users: list[_Entry] | None = None


def files(kubeconfig: Path | None) -> list[Path]:
    """The files to read: the one that is asked for, or those of the environment that are there."""
    if kubeconfig is not None:
        return [kubeconfig.expanduser()]
    named = os.environ.get("KUBECONFIG") or "~/.kube/config"
    found = [Path(path).expanduser() for path in named.split(os.pathsep) if path]
    return [path for path in found if path.exists()]


def read(paths: Sequence[Path], context: str | None = None) -> _Part | None:
    """One context with its cluster and its user; None when the files have no context at all.

    Args:
        paths: The files.
        context: The context; default: the current one.

    Raises:
        ValueError: When the files are none, or what they name is not there.
    """
    current = context or ""
    contexts: dict[str, _Part] = {}
    clusters: dict[str, _Part] = {}
    users: dict[str, _Part] = {}
    for path in paths:
        found = _parsed(path)
        folder = path.parent.absolute()
        current = current or found.current_context or ""
        for entry in found.contexts or ():
            contexts.setdefault(entry.name, _without_empty(entry.context))
        for entry in found.clusters or ():
            clusters.setdefault(entry.name, _at(folder, entry.cluster))
        for entry in found.users or ():
            users.setdefault(entry.name, _at(folder, entry.user))
    if not contexts and context is None:
        return None
    if not current:
        raise ValueError("there is no current context: see `kubectl config use-context`")
    chosen = _named("context", current, contexts)
    cluster = _named("cluster", chosen.get("cluster", ""), clusters)
    user = _named("user", chosen["user"], users) if "user" in chosen else {}
    if "server" not in cluster:
        raise ValueError(f"the cluster {chosen['cluster']!r} has no server")
    if any(field == "as" or field.startswith("as-") for field in user):
        raise ValueError(f"the user {chosen['user']!r} impersonates another: not supported")
    if "exec" in user:
        user["exec"] = _plugin(user["exec"], cluster)
    namespace = chosen.get("namespace", "default")
    names = {"cluster": "cluster", "user": "user", "namespace": namespace}
    return {
        "current-context": current,
        "contexts": [{"name": current, "context": names}],
        "clusters": [{"name": "cluster", "cluster": cluster}],
        "users": [{"name": "user", "user": user}],
    }


def _parsed(path: Path) -> _File:
    try:
        return msgspec.convert(yaml.safe_load(path.read_text("utf-8")) or {}, _File)
    except OSError as error:
        raise ValueError(f"it cannot be read: {error}") from error
    except yaml.MarkedYAMLError as error:  # whose own words repeat the line, a key maybe
        line = error.problem_mark.line + 1 if error.problem_mark is not None else 0
        raise ValueError(f"{path} is no YAML: {error.problem} in line {line}") from None
    except (yaml.YAMLError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise ValueError(f"{path} is no kubeconfig: {' '.join(str(error).split())}") from error


def _without_empty(part: _Part | None) -> _Part:
    return {field: value for field, value in (part or {}).items() if value not in (None, "")}


def _at(folder: Path, part: _Part | None) -> _Part:
    """A cluster or a user of a file in this folder; what is given as data needs no file."""
    kept = _without_empty(part)
    for field in _PATHS:
        if f"{field}-data" in kept:
            kept.pop(field, None)
        elif field in kept:
            kept[field] = str(Path(folder, kept[field]))
    plugin = kept.get("exec")
    if plugin and os.sep in plugin.get("command", ""):
        kept["exec"] = {**plugin, "command": str(Path(folder, plugin["command"]))}
    return kept


def _named(kind: str, name: str, known: Mapping[str, _Part]) -> _Part:
    found = known.get(name)
    if found is None:
        raise ValueError(f"there is no {kind} {name!r}")
    for field in _PATHS:
        if field in found and not Path(found[field]).is_file():
            raise ValueError(f"the {field} of {kind} {name!r} is missing: {found[field]}")
    return found


def _plugin(plugin: _Part, cluster: _Part) -> _Part:
    """A plugin's settings, with what it is told about the call and, if it asks, the cluster."""
    spec: _Part = {"interactive": False}
    if plugin.get("provideClusterInfo"):
        spec["cluster"] = {field: cluster[field] for field in _TOLD if field in cluster}
        authority = cluster.get("certificate-authority-data")
        if file := cluster.get("certificate-authority"):
            authority = base64.b64encode(Path(file).read_bytes()).decode()
        if authority:
            spec["cluster"]["certificate-authority-data"] = authority
        for extension in cluster.get("extensions") or ():
            if extension.get("name") == _EXEC_EXTENSION:
                spec["cluster"]["config"] = extension.get("extension")
    told = {"apiVersion": plugin.get("apiVersion"), "kind": "ExecCredential", "spec": spec}
    variable = {"name": "KUBERNETES_EXEC_INFO", "value": json.dumps(told)}
    return {**plugin, "env": [*(plugin.get("env") or ()), variable]}
