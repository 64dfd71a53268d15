"""A cluster for each test that asks for one."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.node.harness import Cluster, cluster


@pytest.fixture
async def small(tmp_path: Path) -> AsyncIterator[Cluster]:
    """A running cluster with an empty state."""
    # In a task of its own: the two halves of a fixture run in two tasks, a task group must not.
    started: asyncio.Future[Cluster] = asyncio.get_running_loop().create_future()
    enough = asyncio.Event()

    async def host() -> None:
        async with cluster(tmp_path / "node") as running:
            started.set_result(running)
            await enough.wait()

    task = asyncio.create_task(host())

    def ended(done: "asyncio.Task[None]") -> None:
        if not started.done():
            started.set_exception(done.exception() or RuntimeError("the cluster did not start"))

    task.add_done_callback(ended)
    yield await started
    enough.set()
    await task
