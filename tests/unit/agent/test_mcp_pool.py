"""The pool of MCP connections on virtual time: when it lists, rebuilds, rests and ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from kaos.agent.mcp_pool import Server, ToolPool
from kaos.agent.runs import Step, nobody
from kaos.agent.tools import CallContext, ToolFailed


class FakeSession:
    """A connection on virtual time."""

    def __init__(self) -> None:
        self.lists = 0
        self.fails: Exception | None = None
        self.ttl = 0.0

    async def list_tools(self) -> tuple[list[Any], float]:
        self.lists += 1
        if self.fails:
            raise self.fails
        return [], self.ttl

    async def call(self, name: str, arguments: Any, timeout: float) -> Any:
        raise ToolFailed("gone")

    async def watch(self) -> None:
        await asyncio.Event().wait()


def opening(sessions: list[FakeSession]) -> Any:
    """How to connect: each time by a new session, which is added."""

    @asynccontextmanager
    async def connect(url: str, changed: asyncio.Event, timeout: float) -> AsyncIterator[Any]:
        sessions.append(FakeSession())
        yield sessions[-1]

    return connect


@asynccontextmanager
async def kept(server: Server, connect: Any) -> AsyncIterator[None]:
    task = asyncio.create_task(server.keep(connect))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.looptime
async def test_reconnecting_backs_off_to_a_few_seconds_and_never_ends() -> None:
    loop = asyncio.get_running_loop()
    times: list[float] = []

    @asynccontextmanager
    async def refuse(url: str, changed: asyncio.Event, timeout: float) -> AsyncIterator[Any]:
        times.append(loop.time())
        if url:
            raise ConnectionRefusedError("refused")
        yield

    async with kept(Server("s", "http://s", 5), refuse):
        await asyncio.sleep(120)
    gaps = [after - before for before, after in pairwise(times)]
    assert gaps[0] < 0.3
    assert all(gap < 6.1 for gap in gaps)
    assert 20 < len(times) < 40


@pytest.mark.looptime
async def test_tools_are_listed_again_in_time_and_a_lost_session_is_rebuilt() -> None:
    sessions: list[FakeSession] = []
    server = Server("s", "http://s", 5)
    async with kept(server, opening(sessions)):
        await asyncio.sleep(95)
        assert sessions[0].lists == 4  # at the start and every half minute
        sessions[0].ttl = 5.0
        await asyncio.sleep(60)
        assert sessions[0].lists > 8
        sessions[0].fails = RuntimeError("session not found")
        await asyncio.sleep(20)
        assert len(sessions) == 2
        assert server.status.state == "ready"


@pytest.mark.looptime
async def test_a_short_outage_does_not_cost_the_connection_and_a_long_one_does() -> None:
    sessions: list[FakeSession] = []
    server = Server("s", "http://s", 5)
    async with kept(server, opening(sessions)):
        await asyncio.sleep(1)
        sessions[0].fails = ConnectionRefusedError("refused")
        await asyncio.sleep(31)
        assert server.status.state == "down"
        sessions[0].fails = None
        await asyncio.sleep(1)
        assert (server.status.state, len(sessions)) == ("ready", 1)
        sessions[0].fails = ConnectionRefusedError("refused")
        await asyncio.sleep(40)
        assert (server.status.state, len(sessions)) == ("ready", 2)


class BusySession(FakeSession):
    """A server that does one thing at a time: while it is called it lists nothing."""

    called = False

    async def list_tools(self) -> tuple[list[Any], float]:
        if self.called:
            await asyncio.Event().wait()
        return [SimpleNamespace(name="t", title="", description="", input_schema={})], 0.0

    async def call(self, name: str, arguments: Any, timeout: float) -> Any:
        self.called = True
        await asyncio.sleep(100)
        return {"content": "done", "is_error": False}


@pytest.mark.looptime
async def test_a_server_that_is_busy_with_a_call_is_not_taken_for_lost() -> None:
    """The list was waited for ten seconds; then the connection went, and the call with it."""
    sessions: list[BusySession] = []

    @asynccontextmanager
    async def connect(url: str, changed: asyncio.Event, timeout: float) -> AsyncIterator[Any]:
        sessions.append(BusySession())
        yield sessions[-1]

    server = Server("s", "http://s", 200)
    async with kept(server, connect):
        await server.settled.wait()
        step = Step("1", nobody)
        called = asyncio.ensure_future(server.tools[0].call({}, CallContext("run"), step))
        await asyncio.sleep(99)
        assert (server.status.state, len(sessions)) == ("ready", 1)
        assert (await called)["content"] == "done"
        await asyncio.sleep(50)
        assert len(sessions) == 2, "and when it is not busy, it is"


@pytest.mark.looptime
async def test_a_server_that_takes_connections_and_says_nothing_is_down_soon() -> None:
    """It was waited for as long as for a call, and the agent was not ready for all that time."""

    @asynccontextmanager
    async def connect(url: str, changed: asyncio.Event, timeout: float) -> AsyncIterator[Any]:
        await asyncio.sleep(timeout)
        yield FakeSession()

    server = Server("s", "http://s", 600)
    async with kept(server, connect), asyncio.timeout(30):
        await server.settled.wait()
        assert (server.status.state, server.status.error) == ("down", "it does not answer")


@pytest.mark.looptime
async def test_an_sdk_that_cancels_itself_does_not_end_the_task() -> None:
    sessions = 0

    @asynccontextmanager
    async def connect(url: str, changed: asyncio.Event, timeout: float) -> AsyncIterator[Any]:
        nonlocal sessions
        sessions += 1
        if sessions == 1:
            raise asyncio.CancelledError
        yield FakeSession()

    server = Server("s", "http://s", 5)
    async with kept(server, connect):
        await asyncio.sleep(5)
        assert server.status.state == "ready"
    assert sessions == 2


@pytest.mark.looptime
async def test_an_sdk_that_loses_our_cancellation_does_not_keep_the_agent_alive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @asynccontextmanager
    async def connect(url: str, changed: asyncio.Event, timeout: float) -> AsyncIterator[Any]:
        try:
            yield FakeSession()
        finally:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                task.uncancel()

    monkeypatch.setattr("kaos.agent.mcp_session.connect", connect)
    pool = ToolPool({"s": "http://s"}, 5)
    running = asyncio.create_task(pool.run())
    await pool.servers[0].settled.wait()
    running.cancel()
    await asyncio.wait([running], timeout=30)
    assert running.cancelled()
