"""The kind that the chaos test is about, and its reconciler: a bit of everything that can go wrong.

A Widget wants a number of copies (ConfigMaps of its own) that hold its value and that of a source
it shares with others, and a thing outside (a ConfigMap without an owner) that only its finalizer
removes.
"""

from typing import Any

from kaos.runtime import (
    CONFIG_MAP,
    AlreadyExists,
    ApplySet,
    Controller,
    Manager,
    NotFound,
    Object,
    Request,
    ResourceType,
    Watches,
)

WIDGET = ResourceType("chaos.kaos.tools", "v1", "Widget", "widgets")
COPY, SOURCE, OUTSIDE, BYSTANDER = "copy", "source", "outside", "bystander"
WORKERS = 8


def crd() -> dict[str, Any]:
    number = {"type": "integer", "minimum": 0}
    spec = {"type": "object", "properties": {"value": number, "copies": number, "source": number}}
    seen = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {
        "name": WIDGET.version,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "schema": {
            "openAPIV3Schema": {"type": "object", "properties": {"spec": spec, "status": seen}}
        },
    }
    names = {"kind": WIDGET.kind, "plural": WIDGET.plural, "singular": "widget"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": str(WIDGET)},
        "spec": {
            "group": WIDGET.group,
            "scope": "Namespaced",
            "names": names,
            "versions": [version],
        },
    }


def copy_name(widget: str, number: int) -> str:
    return f"{COPY}-{widget}-{number}"


def outside_name(widget: str) -> str:
    return f"{OUTSIDE}-{widget}"


def source_name(number: int) -> str:
    return f"{SOURCE}-{number}"


def wanted_data(value: int, source: str) -> dict[str, str]:
    return {"value": str(value), "source": source}


class Widgets:
    """See the module."""

    def __init__(self, manager: Manager) -> None:
        self.client, self.cache, self.events = manager.client, manager.cache, manager.events
        self.children = ApplySet(self.client, self.cache, kinds=[CONFIG_MAP])
        self.cache.add_index(WIDGET, SOURCE, lambda w: [source_name(w.spec["source"])])

    def users(self, config: Object) -> list[Request]:
        """The widgets that use a source."""
        return [widget.key for widget in self.cache.by_index(WIDGET, SOURCE, config.name)]

    async def reconcile(self, request: Request, /) -> None:
        widget = self.cache.get(WIDGET, request.name, request.namespace)
        if widget is None:
            return
        namespace, name, spec = widget.namespace, widget.name, widget.spec
        found = self.cache.get(CONFIG_MAP, source_name(spec["source"]), namespace)
        source = found.get("data")["value"] if found else ""
        await self._keep_outside(widget)
        data = wanted_data(spec["value"], source)
        copies = [
            CONFIG_MAP.body(copy_name(name, number), namespace, data=data)
            for number in range(spec["copies"])
        ]
        applied = await self.children.apply(widget, copies)
        if applied.written:
            self.events.event(widget, type="Normal", reason="Applied", note="copies were written")
        status = {**data, "generation": widget.metadata.generation}
        if widget.status != status and not applied.waiting:
            await self.client.patch(
                WIDGET, name, namespace, {"status": status}, subresource="status"
            )

    async def finalize(self, obj: Object, /) -> None:
        try:
            await self.client.delete(CONFIG_MAP, outside_name(obj.name), obj.namespace)
        except NotFound:
            return

    async def _keep_outside(self, widget: Object) -> None:
        name = outside_name(widget.name)
        found = self.cache.get(CONFIG_MAP, name, widget.namespace)
        if found is not None and found.get("data") == {"uid": widget.uid}:
            return
        try:
            body = CONFIG_MAP.body(name, widget.namespace, data={"uid": widget.uid})
            await self.client.create(body)
        except AlreadyExists:
            found = await self.client.get(CONFIG_MAP, name, widget.namespace)
            if found.get("data") != {"uid": widget.uid}:
                raise RuntimeError(f"{name} was not cleaned up before {widget!r} came") from None


def widgets(manager: Manager) -> Controller:
    reconciler = Widgets(manager)
    return Controller(
        "widgets",
        reconciler,
        for_=WIDGET,
        owns=[CONFIG_MAP],
        watches=[Watches(CONFIG_MAP, reconciler.users)],
        workers=WORKERS,
    )
