"""An API server without HTTP, with a clock that stands still until it is moved."""

from datetime import UTC, datetime, timedelta
from typing import Any

from kaos.local.apiserver import deletion
from kaos.local.apiserver.builtin_kinds import builtin_kinds
from kaos.local.apiserver.crd import Definitions
from kaos.local.apiserver.gc import Collector
from kaos.local.apiserver.negotiation import MERGE_PATCH
from kaos.local.apiserver.options import DeleteOptions, WriteOptions
from kaos.local.apiserver.registry import Kind, Registry
from kaos.local.apiserver.resources import Resources, Written
from kaos.local.apiserver.store import Store

Object = dict[str, Any]


class World:
    """Registry, store, verbs and garbage collection, called directly."""

    def __init__(self, store: Store | None = None) -> None:
        self.time = datetime(2026, 1, 1, tzinfo=UTC)
        self.registry = Registry(builtin_kinds())
        self.store = store or Store()
        Definitions(self.registry, self.store)
        self.resources = Resources(self.registry, self.store, now=lambda: self.time)
        self.collector = Collector(self.resources)
        if self.store.get("/namespaces", "", "default") is None:
            self.create("v1", "Namespace", {"metadata": {"name": "default"}}, namespace="")

    def tick(self) -> None:
        self.time += timedelta(seconds=1)

    def kind(self, api_version: str, kind: str) -> Kind:
        found = self.registry.find_kind(api_version, kind)
        assert found is not None, f"{api_version} {kind} is not served"
        return found

    def create(
        self,
        api_version: str,
        kind: str,
        body: Object,
        *,
        namespace: str = "default",
        manager: str = "tester",
        **options: Any,
    ) -> Object:
        kept = WriteOptions(manager, **options)
        return self.resources.create(self.kind(api_version, kind), namespace, body, kept).obj

    def config_map(self, name: str, data: dict[str, str] | None = None, **meta: Any) -> Object:
        body = {"metadata": {"name": name, **meta}, "data": data or {}}
        return self.create("v1", "ConfigMap", body)

    def merge(
        self,
        api_version: str,
        kind: str,
        name: str,
        patch: Object,
        *,
        namespace: str = "default",
        manager: str = "tester",
        subresource: str = "",
    ) -> Object:
        return self.resources.patch(
            self.kind(api_version, kind),
            namespace,
            name,
            MERGE_PATCH,
            patch,
            WriteOptions(manager),
            subresource,
        ).obj

    def apply(
        self, body: Object, manager: str, *, force: bool = False, subresource: str = ""
    ) -> Written:
        metadata = body["metadata"]
        return self.resources.apply(
            self.kind(body["apiVersion"], body["kind"]),
            metadata.get("namespace", "default"),
            metadata["name"],
            body,
            WriteOptions(manager, force=force),
            subresource,
        )

    def delete(
        self,
        api_version: str,
        kind: str,
        name: str,
        *,
        namespace: str = "default",
        **options: Any,
    ) -> bool:
        where = self.kind(api_version, kind)
        return deletion.delete(self.resources, where, namespace, name, DeleteOptions(**options))[1]

    def get(
        self, api_version: str, kind: str, name: str, *, namespace: str = "default"
    ) -> Object | None:
        found = self.store.get(self.kind(api_version, kind).bucket, namespace, name)
        return found.load() if found else None

    def names(self, api_version: str, kind: str) -> list[str]:
        return [r.key[1] for r in self.store.current(self.kind(api_version, kind).bucket)]


WIDGET_SCHEMA: Object = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "required": ["size"],
            "properties": {
                "size": {"type": "integer", "minimum": 1, "maximum": 9},
                "mode": {"type": "string", "enum": ["a", "b"], "default": "a"},
                "name": {"type": "string", "minLength": 2, "maxLength": 4, "pattern": "^x"},
                "port": {"x-kubernetes-int-or-string": True},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "opt": {"type": "string", "nullable": True},
                "tags": {
                    "type": "array",
                    "x-kubernetes-list-type": "set",
                    "items": {"type": "string"},
                },
                "items": {
                    "type": "array",
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["k"],
                    "items": {
                        "type": "object",
                        "required": ["k"],
                        "properties": {"k": {"type": "string"}, "v": {"type": "string"}},
                    },
                },
            },
        },
        "status": {"type": "object", "properties": {"n": {"type": "integer"}}},
    },
}


def definition() -> Object:
    """A custom resource with one of everything."""
    names = {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"]}
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": WIDGET_SCHEMA},
    }
    return {
        "metadata": {"name": "widgets.test.io"},
        "spec": {"group": "test.io", "scope": "Namespaced", "names": names, "versions": [version]},
    }


def widget(name: str, /, **spec: Any) -> Object:
    return {
        "apiVersion": "test.io/v1",
        "kind": "Widget",
        "metadata": {"name": name},
        "spec": spec,
    }


def with_widgets() -> World:
    world = World()
    world.create("apiextensions.k8s.io/v1", "CustomResourceDefinition", definition(), namespace="")
    return world


def deployment(name: str = "web", **spec: Any) -> Object:
    container = {"name": "c", "image": "x:1", "ports": [{"containerPort": 80}]}
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [container]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template, **spec},
    }
