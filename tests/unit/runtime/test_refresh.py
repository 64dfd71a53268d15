"""Who begins to lead lists the newest state, whatever was being done at that moment."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from kaos.runtime.client import Client, Origin
from kaos.runtime.errors import Unreachable
from kaos.runtime.informer import Informer
from kaos.runtime.resources import Request
from kaos.runtime.store import Change
from kaos.runtime.transport import HttpRequest, HttpResponse, Stream
from tests.unit.runtime.fake import FakeServer
from tests.unit.runtime.support import THING, things

pytestmark = pytest.mark.looptime


class Gated(FakeServer):
    """Holds the first answer back until it is let go: then it arrives in that turn of the loop."""

    def __init__(self, *, streaming: bool) -> None:
        super().__init__()
        self.streaming = streaming
        self.arrival: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.holds = asyncio.Event()

    async def request(self, request: HttpRequest) -> HttpResponse:
        answer = await super().request(request)
        await self._arrived()
        return answer

    @asynccontextmanager
    async def stream(self, request: HttpRequest) -> AsyncIterator[Stream]:
        async with super().stream(request) as stream:
            if self.streaming:
                await self._arrived()
            yield stream

    async def _arrived(self) -> None:
        self.holds.set()
        await self.arrival


@pytest.mark.parametrize(("streaming", "pages"), [(False, 0), (False, 2), (True, 0)])
async def test_an_answer_that_comes_in_the_turn_of_a_refresh_is_not_the_newest_state(
    streaming: bool, pages: int
) -> None:
    """The leader never synced, lacked the objects of earlier pages, or worked by an old list."""
    server = Gated(streaming=streaming)
    server.page_limit = pages
    for n in range(5):
        things(server).put(f"t{n}", spec={})
    informer = Informer(Client(server), THING)
    synced_with: list[int] = []
    informer.on_served(lambda _: synced_with.append(len(informer.store)))
    async with anyio.create_task_group() as group:
        group.start_soon(informer.run)
        await server.holds.wait()
        things(server).put("of the last leader", spec={})
        server.arrival.set_result(None)
        informer.refresh()
        await asyncio.sleep(30)
        assert informer.synced
        group.cancel_scope.cancel()
    assert synced_with == [6]


async def test_a_failure_of_what_was_given_up_delays_nothing() -> None:
    server = Gated(streaming=True)
    informer = Informer(Client(server), THING)
    things(server)
    async with anyio.create_task_group() as group:
        group.start_soon(informer.run)
        await server.holds.wait()
        server.arrival.set_exception(Unreachable("watch", "connection reset"))
        informer.refresh()
        server.arrival = asyncio.get_running_loop().create_future()
        server.arrival.set_result(None)
        await asyncio.sleep(0.1)
        assert informer.synced
        group.cancel_scope.cancel()


async def test_what_goes_while_a_first_list_is_cut_off_by_a_refresh_is_no_ghost() -> None:
    """The list after it was told as a first one too: what it lacked was never compared."""
    server = FakeServer()
    for number in range(2500):
        things(server).put(f"t-{number:04}", spec={})
    informer = Informer(Client(server), THING)
    initial: list[bool] = []
    begun = asyncio.Event()

    def handler(change: Change, _: Origin | None) -> None:
        initial.append(change.initial)
        begun.set()

    informer.add_handler(handler)
    async with anyio.create_task_group() as group:
        group.start_soon(informer.run)
        await begun.wait()
        assert len(informer.store) < 2500
        things(server).delete("t-0005")
        informer.refresh()
        await asyncio.sleep(30)
        assert informer.synced
        group.cancel_scope.cancel()
    assert informer.store.get(Request("default", "t-0005")) is None
    assert len(informer.store) == 2499
    assert initial == [True] * 2501
