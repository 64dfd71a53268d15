"""What happens beside a first list."""

import asyncio

import anyio
import pytest

from kaos.runtime.client import Client
from kaos.runtime.informer import Informer
from tests.unit.runtime.fake import FakeServer
from tests.unit.runtime.support import THING, things

pytestmark = pytest.mark.looptime


async def test_a_first_list_is_taken_in_by_parts_and_counts_when_it_is_whole() -> None:
    """Told at once, 50,000 objects kept the loop, and the lease on it, for a fifth of a second."""
    server = FakeServer()
    for number in range(2500):
        things(server).put(f"t-{number:04}", spec={})
    informer = Informer(Client(server), THING)
    told: list[bool] = []
    informer.add_handler(lambda change, _: told.append(change.initial and not informer.synced))
    seen_beside: set[int] = set()

    async def beside() -> None:
        while not informer.synced:
            seen_beside.add(len(told))
            await asyncio.sleep(0)

    async with anyio.create_task_group() as group:
        group.start_soon(informer.run)
        group.start_soon(beside)
        await informer.wait_synced()
        group.cancel_scope.cancel()
    assert told == [True] * 2500
    assert {1000, 2000} <= seen_beside
