"""Paths: which kind, namespace, object and subresource a URL means.

Guarantees the grammar of Kubernetes: ``/api/v1/…`` and ``/apis/GROUP/VERSION/…``,
then ``[namespaces/NS/]PLURAL[/NAME[/SUBRESOURCE]]``.
"""

from typing import NamedTuple

from kaos.local.apiserver.errors import no_such_resource
from kaos.local.apiserver.registry import Kind, Registry

# Subresources of the stored kinds that are no views of the object.
_MORE = {
    "namespaces": frozenset({"finalize"}),
    "pods": frozenset({"binding", "eviction"}),
}


class Target(NamedTuple):
    """What a request is about; ``name`` is empty for a collection."""

    kind: Kind
    namespace: str
    name: str
    subresource: str


def resolve(registry: Registry, path: str) -> Target:
    """Find what a path means.

    Raises:
        StatusError: 404, nothing is served there.
    """
    parts = path.strip("/").split("/")
    if parts[0] == "api":
        group, version, rest = "", parts[1], parts[2:]
    else:
        group, version, rest = parts[1], parts[2], parts[3:]
    namespace = ""
    if rest[0] == "namespaces" and len(rest) >= 3 and rest[2] not in {"status", "finalize"}:
        namespace, rest = rest[1], rest[2:]
    plural, name, subresource, *more = (*rest, "", "") if len(rest) < 3 else rest
    kind = registry.find(group, version, plural)
    if kind is None or any(more):
        raise no_such_resource()
    if bool(namespace) != kind.namespaced and (name or namespace):
        raise no_such_resource()
    known = kind.subresources | _MORE.get(kind.resource, frozenset())
    if subresource and subresource not in known:
        raise no_such_resource()
    return Target(kind, namespace, name, subresource)
