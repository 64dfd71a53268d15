"""The laws of the work queue."""

import asyncio

import looptime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kaos.runtime.backoff import Backoff
from kaos.runtime.queue import LOW, QueueShutDown, WorkQueue

pytestmark = pytest.mark.looptime


async def test_an_item_added_many_times_is_handed_out_once() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for _ in range(3):
        queue.add("a", cause="changed")
    work = await queue.get()
    assert work.causes == ("changed",)
    queue.done("a")
    assert len(queue) == 0


async def test_an_item_added_while_worked_on_comes_again_afterwards() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    await queue.get()
    queue.add("a", cause="again")
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(1)
    assert not waiting.done()  # never twice at the same time
    queue.done("a")
    assert (await waiting).causes == ("again",)


async def test_higher_priority_first_and_fifo_inside() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("low", priority=LOW)
    queue.add("one")
    queue.add("two")
    assert [(await queue.get()).item for _ in range(3)] == ["one", "two", "low"]


async def test_an_item_moves_up_and_never_down() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a", priority=LOW)
    queue.add("b", priority=LOW)
    queue.add("b")
    queue.add("b", priority=LOW)
    assert (await queue.get()).item == "b"
    assert (await queue.get()).item == "a"
    assert len(queue) == 0


async def test_delayed_items_come_in_time_and_the_earliest_counts() -> None:
    queue: WorkQueue[str] = WorkQueue()
    loop = asyncio.get_running_loop()
    start = loop.time()
    queue.add_after("a", 30)
    queue.add_after("a", 10)
    queue.add_after("a", 20)
    queue.add_after("b", 5)
    assert (await queue.get()).item == "b"
    assert loop.time() - start == pytest.approx(5, abs=0.01)
    assert (await queue.get()).item == "a"
    assert loop.time() - start == pytest.approx(10, abs=0.01)
    queue.done("a")
    await asyncio.sleep(60)
    assert len(queue) == 0


async def test_failures_double_the_delay_until_forgotten() -> None:
    queue: WorkQueue[str] = WorkQueue()
    delays = [queue.add_rate_limited("a") for _ in range(30)]
    assert delays[:4] == [0.005, 0.01, 0.02, 0.04]
    assert delays[-1] == Backoff().last
    queue.forget("a")
    assert queue.add_rate_limited("a") == 0.005


async def test_low_priorities_are_not_starved() -> None:
    """controller-runtime#3496: with a steady load above, low priorities were never served."""
    queue: WorkQueue[str] = WorkQueue()
    for i in range(10):
        queue.add(f"low-{i}", priority=LOW)
    served: dict[str, float] = {}
    loop = asyncio.get_running_loop()
    start = loop.time()
    number = 0
    while len(served) < 10:
        for _ in range(2):  # more comes than can be worked off
            queue.add(f"normal-{number}")
            number += 1
        work = await queue.get()
        await asyncio.sleep(0.1)
        queue.done(work.item)
        if work.priority == LOW:
            served[work.item] = loop.time() - start
    # one in eight turns of 0.1 s each, from the first second on
    assert max(served.values()) < 1 + 10 * 8 * 0.1 + 0.5


async def test_an_urgent_item_is_not_held_up_by_a_large_backlog() -> None:
    """controller-runtime#2374: after a restart, a user's edit waited for 10,000 listed objects."""
    queue: WorkQueue[int] = WorkQueue()
    for i in range(10_000):
        queue.add(i, priority=LOW)
    await asyncio.sleep(5)  # all of them have waited for long
    queue.add(-1)
    assert -1 in [(await queue.get()).item for _ in range(2)]


async def test_shutdown_releases_blocked_getters_while_work_is_in_flight() -> None:
    """controller-runtime#3540: getters were stuck for ever when the queue was shut down."""
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    await queue.get()
    getters = [asyncio.create_task(queue.get()) for _ in range(16)]
    await asyncio.sleep(0)
    queue.shut_down()
    results = await asyncio.gather(*getters, return_exceptions=True)
    assert all(isinstance(r, QueueShutDown) for r in results)
    drained = asyncio.create_task(queue.drained())
    await asyncio.sleep(1)
    assert not drained.done()
    queue.add("b")  # ignored
    queue.done("a")
    await drained
    with pytest.raises(QueueShutDown):
        await queue.get()


async def test_a_cancelled_getter_loses_no_item() -> None:
    queue: WorkQueue[str] = WorkQueue()
    first = asyncio.create_task(queue.get())
    second = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add("a")  # wakes the first
    first.cancel()
    assert (await asyncio.wait_for(second, 1)).item == "a"
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_every_waiting_worker_is_woken_while_there_is_work() -> None:
    """One at a time, and each by the one before it: none may be forgotten on the way."""
    queue: WorkQueue[int] = WorkQueue()
    busy = 0
    most = 0

    async def work() -> None:
        nonlocal busy, most
        while True:
            try:
                item = (await queue.get()).item
            except QueueShutDown:
                return
            busy += 1
            most = max(most, busy)
            await asyncio.sleep(1)
            busy -= 1
            queue.done(item)

    async with asyncio.TaskGroup() as group:
        workers = [group.create_task(work()) for _ in range(8)]
        await asyncio.sleep(1)
        for item in range(6):
            queue.add(item)
        workers[0].cancel()  # the one that was woken first
        await asyncio.sleep(0.5)
        assert busy == 6
        for item in range(6, 20):
            queue.add(item)
        await asyncio.sleep(0.1)
        assert busy == 7
        await asyncio.sleep(10)
        queue.shut_down()
    assert most == 7


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("abcde"), st.sampled_from([LOW, 0, 5]), st.floats(0, 3)),
        max_size=60,
    ),
    st.integers(1, 4),
)
def test_every_item_is_worked_on_after_its_last_add_and_never_twice_at_once(
    adds: list[tuple[str, int, float]], workers: int
) -> None:
    async def run() -> None:
        queue: WorkQueue[str] = WorkQueue()
        loop = asyncio.get_running_loop()
        working: set[str] = set()
        began: dict[str, float] = {}
        added: dict[str, float] = {}

        async def work() -> None:
            while True:
                try:
                    item = (await queue.get()).item
                except QueueShutDown:
                    return
                assert item not in working
                working.add(item)
                began[item] = loop.time()
                await asyncio.sleep(0.5)
                working.remove(item)
                queue.done(item)

        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(work())
            for item, priority, delay in adds:
                await asyncio.sleep(delay / 10)
                queue.add_after(item, delay, priority=priority)
                added[item] = loop.time()
            await asyncio.sleep(200)
            assert len(queue) == 0
            assert queue.delayed == 0
            queue.shut_down()
        assert all(began[item] >= at for item, at in added.items())

    with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
        runner.run(run())


class QueueModel(RuleBasedStateMachine):
    """The queue against a model: what was added and not handed out since must come."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=looptime.new_event_loop)
        self.runner.__enter__()
        self.queue: WorkQueue[int] = WorkQueue()
        self.dirty: set[int] = set()
        self.working: set[int] = set()

    def teardown(self) -> None:
        self.runner.__exit__(None, None, None)

    @rule(item=st.integers(0, 5), priority=st.sampled_from([LOW, 0, 7]))
    def add(self, item: int, priority: int) -> None:
        async def act() -> None:
            self.queue.add(item, priority=priority)

        self.runner.run(act())
        self.dirty.add(item)

    @precondition(lambda self: self.dirty - self.working)
    @rule()
    def get(self) -> None:
        work = self.runner.run(self.queue.get())
        assert work.item in self.dirty
        assert work.item not in self.working
        self.dirty.remove(work.item)
        self.working.add(work.item)

    @precondition(lambda self: self.working)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        item = data.draw(st.sampled_from(sorted(self.working)))

        async def act() -> None:
            self.queue.done(item)

        self.runner.run(act())
        self.working.remove(item)

    @invariant()
    def as_many_wait(self) -> None:
        assert len(self.queue) == len(self.dirty)


QueueModel.TestCase.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
TestQueueModel = QueueModel.TestCase
