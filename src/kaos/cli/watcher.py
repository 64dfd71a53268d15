"""Our resources and their pods, as informers see them, for the terminal.

Guaranteed: `rows` and `pods` read what the API server last said; `changed` returns when something
did change, or after its timeout.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import anyio

from kaos.api import MODELS
from kaos.cli.connect import FIELD_MANAGER
from kaos.cli.errors import CliError
from kaos.cli.resources import Key, Row, key_of, row_of
from kaos.runtime import (
    POD,
    ClusterConfig,
    Controller,
    Manager,
    Object,
    Request,
    ResourceType,
    Result,
)

_START_PATIENCE = 15.0  # a list takes milliseconds; a kind that is gone is never listed
MANAGED = {"app.kubernetes.io/managed-by": "kaos"}


class Watcher:
    """A manager whose only controllers say that something changed."""

    def __init__(self, config: ClusterConfig) -> None:
        """Prepare; nothing is watched before `running`."""
        self._manager = Manager(config, field_manager=FIELD_MANAGER)
        self._changed = asyncio.Event()
        for resource in (*map(ResourceType.of, MODELS), POD):
            name = f"cli-{resource.kind.lower()}"
            self._manager.add(
                Controller(name, self, for_=resource, predicate=lambda _old, _new: True)
            )

    async def reconcile(self, _request: Request, /) -> Result | None:
        """Something changed (this makes the watcher a reconciler)."""
        self._changed.set()
        return None

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Watch for the length of the block."""
        started = anyio.Event()
        async with anyio.create_task_group() as group:

            async def run() -> None:
                await self._manager.run(started=started)

            group.start_soon(run)
            with anyio.move_on_after(_START_PATIENCE):
                await started.wait()
            if not started.is_set():
                raise CliError(self._missing())
            yield
            group.cancel_scope.cancel()

    def _missing(self) -> str:
        """Why there is nothing to look at: somebody has deleted a CRD, most likely."""
        kinds = [model.KIND for model in MODELS if not self._manager.cache.synced(model)]
        return (
            f"the cluster serves no {' and no '.join(kinds) or 'pods'} (a deleted CRD?): "
            "`kaos down` and `kaos up` bring them back"
        )

    def rows(self, keys: Sequence[Key]) -> list[Row]:
        """How those objects do; one that is not there (any more) is pending."""
        return [self._row(key) for key in keys]

    def keys(self) -> list[Key]:
        """All objects of our kinds."""
        return [
            key_of(obj.to_dict()) for model in MODELS for obj in self._manager.cache.list(model)
        ]

    def pods(self) -> list[Object]:
        """The pods of our resources."""
        return self._manager.cache.list(POD, labels=MANAGED)

    async def changed(self, timeout: float) -> None:
        """Wait until something changed since the last call, ``timeout`` seconds at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._changed.wait()
        self._changed.clear()

    def body(self, key: Key) -> dict[str, Any] | None:
        """That object, as the API server last had it."""
        model = next(model for model in MODELS if key.kind == model.KIND)
        found = self._manager.cache.get(model, key.name, key.namespace)
        return found.to_dict() if found else None

    def _row(self, key: Key) -> Row:
        found = self.body(key)
        return row_of(found) if found else Row(key, "Pending", "does not exist")
