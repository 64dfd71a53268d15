"""Synchronous reads of the watched kinds, shared by all controllers of a manager.

Guarantees: one watch per kind however many controllers use it; a read shows our own writes at once;
a kind that cannot be listed blocks no other kind. What a read returns is immutable.
Does not: fetch. Reading a kind that nobody watches is a mistake and says so, because a silent empty
answer makes a controller delete or recreate things.
"""

import builtins
from collections.abc import Callable, Iterable, Mapping, Sequence

import anyio
import anyio.abc

from kaos.runtime.client import Client, Write
from kaos.runtime.codec import Object
from kaos.runtime.errors import RuntimeFailure
from kaos.runtime.informer import Informer
from kaos.runtime.metrics import Metrics
from kaos.runtime.resources import Request, Resource, ResourceType
from kaos.runtime.selection import Selection
from kaos.runtime.store import OWNERS


class NotWatched(RuntimeFailure):
    """The kind is not in the cache."""

    def __init__(self, resource: ResourceType) -> None:
        super().__init__(
            f"{resource} is not in the cache: name it in a controller's for_, owns or watches, "
            "or call manager.watch()"
        )


class Cache:
    """What the watches delivered, and our own writes at once."""

    def __init__(
        self,
        client: Client,
        *,
        namespaces: Sequence[str] = (),
        metrics: Metrics | None = None,
    ) -> None:
        self._client = client
        self._namespaces = tuple(namespaces)
        self._metrics = metrics or Metrics()
        self._informers: dict[ResourceType, Informer] = {}
        self._group: anyio.abc.TaskGroup | None = None
        client.observe(self)

    def informer(self, resource: Resource, select: Selection | None = None) -> Informer:
        """The informer of a kind, created (and started, when the cache runs) on first use.

        Args:
            resource: The kind.
            select: What of it is kept; None for whatever somebody else asks for, default all.

        Raises:
            ValueError: When another selection of this kind is kept already.
        """
        kind = ResourceType.of(resource)
        informer = self._informers.get(kind)
        if informer is None:
            informer = self._informers[kind] = Informer(
                self._client, kind, namespaces=self._namespaces, metrics=self._metrics
            )
            if select is not None:
                informer.select(select)
            if self._group is not None:
                self._group.start_soon(informer.run)
        elif select is not None:
            informer.select(select)
        return informer

    def informers(self) -> builtins.list[Informer]:
        """All informers."""
        return builtins.list(self._informers.values())

    async def run(self) -> None:
        """Run the informers until cancelled."""
        async with anyio.create_task_group() as group:
            self._group = group
            try:
                for informer in self.informers():
                    group.start_soon(informer.run)
                await anyio.sleep_forever()
            finally:
                self._group = None

    def refresh(self) -> None:
        """List the newest state of all kinds; until then they are not synced."""
        for informer in self.informers():
            informer.refresh()

    def get(self, resource: Resource, name: str, namespace: str = "") -> Object | None:
        """One object, or None."""
        return self._known(resource).store.get(Request(namespace, name))

    def add_index(
        self, resource: Resource, index: str, keys: Callable[[Object], Iterable[str]]
    ) -> None:
        """Keep an index of a kind; `keys` gives the keys under which an object is found."""
        self.informer(resource).store.add_index(index, keys)

    def by_index(self, resource: Resource, index: str, key: str) -> builtins.list[Object]:
        """The objects under a key of an index; KeyError when there is no such index."""
        return self._known(resource).store.find(index, key)

    def owned_by(self, resource: Resource, owner: Object) -> builtins.list[Object]:
        """The objects of a kind that this owner (by uid) controls."""
        return self._known(resource).store.find(OWNERS, owner.uid)

    def whole(self, resource: Resource) -> bool:
        """Whether objects are kept with all their fields, and not their metadata alone."""
        return not self._known(resource).selection.metadata_only

    def synced(self, resource: Resource) -> bool:
        """Whether the kind is served and was listed."""
        informer = self._informers.get(ResourceType.of(resource))
        return informer is not None and informer.synced

    def list(
        self, resource: Resource, namespace: str = "", *, labels: Mapping[str, str] | None = None
    ) -> builtins.list[Object]:
        """The objects of a kind; of all namespaces when none is given."""
        return self._known(resource).store.select(namespace, labels)

    def write_started(self, write: Write) -> None:
        """See `WriteObserver`."""
        informer = self._informers.get(write.resource)
        if informer is not None:
            informer.write_started(write)

    def write_ended(
        self, write: Write, written: Object | None, *, created: bool = False, gone: str = ""
    ) -> None:
        """See `WriteObserver`."""
        informer = self._informers.get(write.resource)
        if informer is not None:
            informer.write_ended(write, written, created=created, gone=gone)

    def _known(self, resource: Resource) -> Informer:
        kind = ResourceType.of(resource)
        informer = self._informers.get(kind)
        if informer is None:
            raise NotWatched(kind)
        return informer
