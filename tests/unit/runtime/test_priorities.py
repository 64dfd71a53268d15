"""Whose turn it is: edits and deletions first, then what is new, then what was listed."""

import asyncio

import pytest

from kaos.runtime import Controller, Request, Result
from tests.unit.runtime.fake import FakeServer
from tests.unit.runtime.support import (
    THING,
    Recorder,
    manager,
    running,
    settle,
    things,
)

pytestmark = pytest.mark.looptime


async def test_an_edit_goes_before_creations_and_what_was_listed(server: FakeServer) -> None:
    """5,000 objects applied at once: an edit of one was seen after 6 to 21 s."""

    async def act(request: Request) -> None:
        await asyncio.sleep(0.1)

    for number in range(20):
        things(server).put(f"listed-{number}", spec={"n": 1})
    recorder = Recorder(act)
    made = manager(server)
    made.add(Controller("t", recorder, for_=THING))
    async with running(made):
        for number in range(20):
            things(server).put(f"created-{number}", spec={"n": 1})
        await settle(0.05)
        before = len(recorder.calls)
        things(server).put("created-19", spec={"n": 2})
        await settle(0.2)
        assert recorder.names[before] == "created-19"
        things(server).put("listed-19", status={"seen": True})  # no edit: it keeps its place
        await settle(10)
    assert len(recorder.calls) == 41
    assert recorder.names[before + 1] != "listed-19"


async def test_what_was_asked_to_go_before_we_began_goes_before_the_rest_of_the_list(
    server: FakeServer,
) -> None:
    """The chaos test: a deletion waited behind 2,000 objects after each change of the leader."""
    for number in range(20):
        things(server).put(f"listed-{number}", spec={"n": 1})
    going = {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["example.com/other"]}
    things(server).put("going", spec={"n": 1}, meta=going)
    recorder = Recorder()
    made = manager(server)
    made.add(Controller("t", recorder, for_=THING))
    async with running(made):
        await settle(1)
    assert recorder.names[0] == "going"
    assert len(recorder.names) == 22


async def test_a_periodic_reconcile_is_routine_though_an_edit_began_it(server: FakeServer) -> None:
    async def act(request: Request) -> Result | None:
        await asyncio.sleep(0.1)
        return Result(requeue_after=10) if len(recorder.calls) == 2 else None

    recorder = Recorder(act)
    made = manager(server)
    made.add(Controller("t", recorder, for_=THING))
    async with running(made):
        await settle(1)
        things(server).put("a", spec={"n": 2})
        await settle(9.95)  # it is due in a moment, and the worker is busy till after that
        for number in range(3):
            things(server).put(f"new-{number}", spec={"n": 1})
        await settle(1)
    assert recorder.names[-4:] == ["new-0", "new-1", "new-2", "a"]
