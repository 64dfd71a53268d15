"""The life of a CustomResourceDefinition: its kind appears, and goes with all its objects.

Guarantees that a kind is served from the moment its definition is stored (a
client that waits for Established waits for nothing), and that a definition goes
only after its objects, which go through their finalizers.
"""

from kaos.local.apiserver import deletion
from kaos.local.apiserver.definitions import CLEANUP, DEFINITIONS_BUCKET, kinds_of
from kaos.local.apiserver.metadata import drop_finalizer
from kaos.local.apiserver.options import DeleteOptions
from kaos.local.apiserver.registry import Registry
from kaos.local.apiserver.resources import Resources
from kaos.local.apiserver.store import Event, Record, Store


class Definitions:
    """Follows the definitions in the store and keeps the registry as they say."""

    def __init__(self, registry: Registry, store: Store) -> None:
        self._registry = registry
        for record in store.current(DEFINITIONS_BUCKET):
            self._serve(record)
        store.on_write.append(self._follow)

    def _follow(self, event: Event) -> None:
        if event.bucket != DEFINITIONS_BUCKET:
            return
        if event.type == "DELETED":
            self._registry.set_custom(event.record.key[1], [])
        else:
            self._serve(event.record)

    def _serve(self, record: Record) -> None:
        self._registry.set_custom(record.key[1], kinds_of(record.load()))


def clean_up(resources: Resources, record: Record) -> None:
    """Go on with removing a definition that is marked as deleted: first its objects."""
    definition = resources.registry.find("apiextensions.k8s.io", "v1", "customresourcedefinitions")
    for kind in kinds_of(record.load())[:1]:
        for held in resources.store.current(kind.bucket):
            if b'"deletionTimestamp"' not in held.raw:
                deletion.delete_record(resources, kind, held, DeleteOptions())
        if resources.store.count(kind.bucket):
            return  # finalizers hold some of them; the last one calls again

    current = resources.store.get(DEFINITIONS_BUCKET, *record.key)
    if definition is not None and current is not None:
        resources.rewrite(definition, current, lambda crd: drop_finalizer(crd, CLEANUP))
