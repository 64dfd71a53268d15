"""Watching as a plain async iterator: for command lines and scripts, without a manager.

Guarantees: what is there comes first, as ADDED; then every change, across closed connections and
forgotten history: after a gap the difference is told, deletions too. It never ends by itself. What
no waiting helps against (no rights, no credentials, an unknown kind) is raised.
Does not: cache for others, or recognise own writes: a controller has a `Cache`. A consumer that is
slower than the changes for ever fills the memory.
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import Literal, NamedTuple

from kaos.runtime.client import Client, Target
from kaos.runtime.codec import Object
from kaos.runtime.errors import Forbidden, Unauthorized, UnknownKind
from kaos.runtime.reflector import Reflector
from kaos.runtime.selection import Selection
from kaos.runtime.store import Change, Store
from kaos.runtime.watcher import UNSERVED, Changed, Deleted, Effect, Listed, Replaced


class Seen(NamedTuple):
    """A change of an object; of one that is gone its last state."""

    type: Literal["ADDED", "MODIFIED", "DELETED"]
    obj: Object


class _Queue:
    """The sink of the watch: changes, and errors that end it."""

    def __init__(self, kind: str) -> None:
        self.items: asyncio.Queue[Seen | Exception] = asyncio.Queue()
        self._store = Store()
        self._kind = kind

    def effect(self, effect: Effect) -> None:
        """See `reflector.Sink`."""
        changes: list[Change] = []
        match effect:
            case Changed(obj):
                changes = self._store.put(obj)
            case Deleted(obj):
                changes = self._store.remove(obj)
            case Listed(objects, _):
                changes = [change for obj in objects for change in self._store.put(obj)]
            case Replaced(objects, version):
                changes = self._store.replace(objects, version)
            case _ if effect is UNSERVED:
                self.items.put_nowait(UnknownKind(self._kind))
        for change in changes:
            kind = "DELETED" if change.new is None else "MODIFIED" if change.old else "ADDED"
            self.items.put_nowait(Seen(kind, change.latest))  # type: ignore[arg-type]

    def failed(self, error: Exception | None) -> None:
        """See `reflector.Sink`."""
        if isinstance(error, (Forbidden, Unauthorized)):
            self.items.put_nowait(error)

    def ended(self, task: "asyncio.Task[None]") -> None:
        """The watch failed in a way it does not know."""
        if not task.cancelled():
            error = task.exception()
            broken = error if isinstance(error, Exception) else RuntimeError("the watch ended")
            self.items.put_nowait(broken)


async def watch(
    client: Client,
    resource: Target,
    namespace: str = "",
    *,
    name: str = "",
    label_selector: str = "",
    field_selector: str = "",
) -> AsyncGenerator[Seen, None]:
    """All objects of a kind as they are, and then as they change.

    Leave it by `break` inside of ``contextlib.aclosing``, or by cancelling the task.

    Args:
        client: Whose connections to use.
        resource: The kind.
        namespace: One namespace; "" for all.
        name: One object alone.
        label_selector: As kubectl takes it.
        field_selector: As kubectl takes it.

    Raises:
        UnknownKind: When the server does not serve the kind, or ceases to.
        Forbidden: When it may not be watched.
        Unauthorized: When there are no valid credentials.
    """
    kind = await client.resolve(resource)
    by_name = f"metadata.name={name}" if name else ""
    fields = ",".join(part for part in (field_selector, by_name) if part)
    sink = _Queue(str(kind))
    selection = Selection(label_selector, fields)
    reflector = Reflector(client, kind, sink, namespace=namespace, selectors=selection.params())
    task = asyncio.create_task(reflector.run())
    task.add_done_callback(sink.ended)
    try:
        while True:
            item = await sink.items.get()
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        task.cancel()
        await asyncio.wait((task,))
