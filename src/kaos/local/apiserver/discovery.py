"""Discovery: what is served here, in the old documents and in the aggregated one.

Guarantees that both forms tell the same and that a kind appears in them at the
moment it is served. Documents are kept per generation of the registry.
"""

from collections.abc import Callable
from typing import Any

from kaos.local.apiserver.registry import Kind, Registry
from kaos.local.apiserver.store import encode

# Subresources that are routes of their own and not properties of a kind.
_EXTRA: dict[str, tuple[tuple[str, str, str, tuple[str, ...]], ...]] = {
    "pods": (
        ("binding", "v1", "Binding", ("create",)),
        ("eviction", "policy/v1", "Eviction", ("create",)),
        ("log", "v1", "Pod", ("get",)),
        ("portforward", "v1", "PodPortForwardOptions", ("create", "get")),
    ),
    "namespaces": (("finalize", "v1", "Namespace", ("update",)),),
}
_VIEW_VERBS = ("get", "patch", "update")


def _subresources(kind: Kind) -> list[tuple[str, str, str, tuple[str, ...]]]:
    """The subresources of a kind: name, apiVersion, kind, verbs."""
    found = list(_EXTRA.get(kind.resource, ()))
    if "scale" in kind.subresources:
        found.append(("scale", "autoscaling/v1", "Scale", _VIEW_VERBS))
    if "status" in kind.subresources:
        found.append(("status", kind.api_version, kind.kind, _VIEW_VERBS))
    return sorted(found)


def _split(api_version: str) -> tuple[str, str]:
    group, _, version = api_version.rpartition("/")
    return group, version


class Discovery:
    """The discovery documents of a registry, encoded."""

    def __init__(self, registry: Registry, *, version: str) -> None:
        self._registry = registry
        self._version = version
        self._generation = -1
        self._documents: dict[str, bytes | None] = {}

    def _document(self, name: str, build: Callable[[], dict[str, Any] | None]) -> bytes | None:
        if self._generation != self._registry.generation:
            self._documents.clear()
            self._generation = self._registry.generation
        if name not in self._documents:
            document = build()
            self._documents[name] = None if document is None else encode(document)
        return self._documents[name]

    def version(self) -> bytes:
        """``/version``."""
        major, minor, *_ = self._version.split(".")
        return encode(
            {
                "major": major,
                "minor": minor,
                "gitVersion": f"v{self._version}+kaos",
                "gitCommit": "",
                "gitTreeState": "clean",
                "buildDate": "1970-01-01T00:00:00Z",
                "goVersion": "",
                "compiler": "",
                "platform": "",
            }
        )

    def core_versions(self) -> bytes:
        """``/api``."""
        document = {
            "kind": "APIVersions",
            "versions": ["v1"],
            "serverAddressByClientCIDRs": [],
        }
        return self._document("api", lambda: document) or b""

    def groups(self) -> bytes:
        """``/apis``."""
        return (
            self._document(
                "apis",
                lambda: {
                    "kind": "APIGroupList",
                    "apiVersion": "v1",
                    "groups": [self._group(group) for group in self._registry.groups()],
                },
            )
            or b""
        )

    def group(self, group: str) -> bytes | None:
        """``/apis/<group>``; None when there is no such group."""
        if group not in self._registry.groups():
            return None
        return self._document(
            f"group {group}",
            lambda: {"kind": "APIGroup", "apiVersion": "v1", **self._group(group)},
        )

    def _group(self, group: str) -> dict[str, Any]:
        versions = [
            {"groupVersion": f"{group}/{version}", "version": version}
            for version in self._registry.versions(group)
        ]
        return {"name": group, "versions": versions, "preferredVersion": versions[0]}

    def resources(self, group: str, version: str) -> bytes | None:
        """``/api/v1`` and ``/apis/<group>/<version>``; None when nothing is served there."""
        return self._document(
            f"resources {group}/{version}", lambda: self._resources(group, version)
        )

    def _resources(self, group: str, version: str) -> dict[str, Any] | None:
        resources = []
        for kind in self._kinds(group, version):
            resources.append(
                {
                    "name": kind.plural,
                    "singularName": kind.singular,
                    "namespaced": kind.namespaced,
                    "kind": kind.kind,
                    "verbs": kind.verbs,
                    **({"shortNames": kind.short_names} if kind.short_names else {}),
                    **({"categories": kind.categories} if kind.categories else {}),
                }
            )
            for name, api_version, sort, verbs in _subresources(kind):
                entry: dict[str, Any] = {
                    "name": f"{kind.plural}/{name}",
                    "singularName": "",
                    "namespaced": kind.namespaced,
                    "kind": sort,
                    "verbs": verbs,
                }
                if api_version != kind.api_version:
                    entry["group"], entry["version"] = _split(api_version)
                resources.append(entry)
        if not resources:
            return None
        return {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": f"{group}/{version}" if group else version,
            "resources": resources,
        }

    def _kinds(self, group: str, version: str) -> list[Kind]:
        kinds = self._registry.kinds()
        return [kind for kind in kinds if (kind.group, kind.version) == (group, version)]

    def aggregated(self, *, core: bool, version: str) -> bytes:
        """``/api`` (core) or ``/apis`` as one APIGroupDiscoveryList."""
        return (
            self._document(
                f"aggregated {core} {version}",
                lambda: {
                    "kind": "APIGroupDiscoveryList",
                    "apiVersion": f"apidiscovery.k8s.io/{version}",
                    "metadata": {},
                    "items": [
                        self._aggregated_group(group)
                        for group in ([""] if core else self._registry.groups())
                    ],
                },
            )
            or b""
        )

    def _aggregated_group(self, group: str) -> dict[str, Any]:
        return {
            "metadata": {**({"name": group} if group else {}), "creationTimestamp": None},
            "versions": [
                {
                    "version": version,
                    "freshness": "Current",
                    "resources": [_aggregated(kind) for kind in self._kinds(group, version)],
                }
                for version in self._registry.versions(group)
            ],
        }


def _aggregated(kind: Kind) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "resource": kind.plural,
        "responseKind": _response_kind(kind.api_version, kind.kind),
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": kind.singular,
        "verbs": kind.verbs,
    }
    if kind.short_names:
        entry["shortNames"] = kind.short_names
    if kind.categories:
        entry["categories"] = kind.categories
    subresources = [
        {
            "subresource": name,
            "responseKind": _response_kind(api_version, sort),
            "verbs": verbs,
        }
        for name, api_version, sort, verbs in _subresources(kind)
    ]
    if subresources:
        entry["subresources"] = subresources
    return entry


def _response_kind(api_version: str, kind: str) -> dict[str, str]:
    group, version = _split(api_version)
    return {"group": group, "version": version, "kind": kind}
