"""The work queue: what is to be done, once, by one worker at a time, in a fair order.

Guarantees: an item that is added many times is handed out once; an item is never handed out twice
at the same time, and one that is added while it is worked on is handed out again afterwards, so the
last change is always seen. Higher priority first, first come first served inside a priority; one
turn in eight goes to the item that waits longest below, so nothing starves. Nothing blocks at
shutdown, whoever waits.
Does not: bound its length (it holds keys, each at most once), or persist anything.
Which failures taught it: low priorities that starved (controller-runtime#3496), workers stuck at
shutdown (#3540). Plain deques and futures, because memory streams cost ten times as much; and one
worker is woken at a time, who wakes the next when there is more, because a worker whose reconciles
do not wait takes all there is before the others even run.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from kaos.runtime.backoff import Backoff, Bucket
from kaos.runtime.metrics import Metrics

T = TypeVar("T", bound=Hashable)

HIGH = 100
NORMAL = 0
LOW = -100
_FAIR_TURN = 8
_FAIR_AFTER = 1.0
_CAUSES = 5


class QueueShutDown(Exception):  # noqa: N818
    """The queue hands out nothing any more."""


@dataclass(slots=True, eq=False)
class Work(Generic[T]):
    """An item, and once it is handed out: call `done` with it, whatever happened.

    Attributes:
        item: What to work on.
        priority: How urgent it is.
        since: When it was added.
        causes: Why it was added, the first few.
        waited: How long it has waited.
        moved: Whether another entry, of a higher priority, has taken its place.
    """

    item: T
    priority: int
    since: float
    causes: tuple[str, ...] = ()
    waited: float = 0.0
    moved: bool = False


@dataclass(slots=True, eq=False)
class _Lane(Generic[T]):
    """What waits with one priority."""

    priority: int
    entries: deque[Work[T]] = field(default_factory=deque)
    depth: int = 0

    def head(self) -> Work[T] | None:
        """Who is next; entries that moved up are dropped on the way."""
        entries = self.entries
        while entries:
            if not entries[0].moved:
                return entries[0]
            entries.popleft()
        return None


class QueueMetrics:
    """The series of one queue; gauges are read when they are scraped and cost nothing before."""

    def __init__(self, metrics: Metrics, name: str) -> None:
        self.adds = metrics.queue_adds.labels(name, name)
        self.retries = metrics.queue_retries.labels(name, name)
        self.waited = metrics.queue_duration.labels(name, name)
        self.worked = metrics.work_duration.labels(name, name)
        self._metrics = metrics
        self._name = name

    def watch(self, unfinished: Callable[[], float], longest: Callable[[], float]) -> None:
        """Where to read what work in progress takes."""
        name, metrics = self._name, self._metrics
        metrics.unfinished_work.labels(name, name).set_function(unfinished)
        metrics.longest_running.labels(name, name).set_function(longest)

    def priority(self, priority: int, depth: Callable[[], float]) -> None:
        """Where to read how many items of a priority wait."""
        gauge = self._metrics.queue_depth.labels(self._name, self._name, str(priority))
        gauge.set_function(depth)


class WorkQueue(Generic[T]):
    """Items to be worked on; see the module."""

    def __init__(
        self,
        metrics: QueueMetrics | None = None,
        *,
        backoff: Backoff | None = None,
    ) -> None:
        self._metrics = metrics
        self._backoff = backoff or Backoff()
        rate = self._backoff.rate
        self._bucket = Bucket(rate, self._backoff.burst) if rate is not None else None
        self._entries: dict[T, Work[T]] = {}
        self._lanes: dict[int, _Lane[T]] = {}
        self._order: list[_Lane[T]] = []
        self._ready = 0
        self._working: dict[T, float] = {}
        self._delayed: dict[T, tuple[float, int, Work[T]]] = {}
        self._heap: list[tuple[float, int, T]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._woken = False
        self._failures: dict[T, int] = {}
        self._now: Callable[[], float] = self._first_time
        self._tickets = 0
        self._turns = 0
        self._down = False
        self._on_idle: list[asyncio.Future[None]] = []
        if metrics is not None:
            metrics.watch(self._unfinished, self._longest)

    def __len__(self) -> int:
        """How many items wait to be handed out, now or after the work that is under way."""
        return len(self._entries)

    @property
    def working(self) -> int:
        """How many items are worked on."""
        return len(self._working)

    @property
    def delayed(self) -> int:
        """How many items wait for their time."""
        return len(self._delayed)

    def add(self, item: T, *, priority: int = NORMAL, cause: str = "") -> None:
        """There is something to do. An item that waits already keeps its place or moves up."""
        if self._down:
            return
        if self._metrics is not None:
            self._metrics.adds.value += 1
        entry = self._entries.get(item)
        if entry is None:
            entry = self._entries[item] = Work(item, priority, self._now())
            if item not in self._working:
                self._enqueue(entry)
        elif priority > entry.priority:
            entry = self._move_up(entry, priority)
        if cause and len(entry.causes) < _CAUSES and cause not in entry.causes:
            entry.causes += (cause,)

    def add_after(self, item: T, delay: float, *, priority: int = NORMAL, cause: str = "") -> None:
        """Add after `delay` seconds; of several times, the earliest counts."""
        if delay <= 0:
            self.add(item, priority=priority, cause=cause)
            return
        if self._down:
            return
        when = self._now() + delay
        known = self._delayed.get(item)
        if known is not None:
            if known[0] <= when:
                return
            priority = max(priority, known[2].priority)
        self._tickets += 1
        entry = Work(item, priority, when, (cause,) if cause else ())
        self._delayed[item] = (when, self._tickets, entry)
        heapq.heappush(self._heap, (when, self._tickets, item))
        self._arm()

    def add_rate_limited(self, item: T, *, priority: int = NORMAL, cause: str = "") -> float:
        """Add after a delay that doubles with each failure of the item; returns the delay."""
        failures = self._failures.get(item, 0)
        self._failures[item] = failures + 1
        if self._metrics is not None:
            self._metrics.retries.value += 1
        delay = self._backoff.delay(failures)
        if self._bucket is not None:
            delay = max(delay, self._bucket.take())
        self.add_after(item, delay, priority=priority, cause=cause)
        return delay

    def forget(self, item: T) -> None:
        """The item went well: its next failure is its first."""
        if self._failures:
            self._failures.pop(item, None)

    def failures(self, item: T) -> int:
        """How often the item failed in a row."""
        return self._failures.get(item, 0)

    async def get(self) -> Work[T]:
        """The next item; waits for one. Raises QueueShutDown when there will be none."""
        while not self._down:
            work = self._take()
            if work is not None:
                if self._ready and self._waiters:
                    self._wake()
                return work
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._woken = False
                    self._wake()  # the item we were woken for must find somebody else
                elif waiter in self._waiters:
                    self._waiters.remove(waiter)
                raise
            self._woken = False
        raise QueueShutDown

    def done(self, item: T) -> None:
        """The work on an item has ended, well or not."""
        started = self._working.pop(item, None)
        if started is not None and self._metrics is not None:
            self._metrics.worked.observe(self._now() - started)
        if not self._down and (entry := self._entries.get(item)) is not None:
            self._enqueue(entry)
        if not self._working and self._on_idle:
            waiting, self._on_idle = self._on_idle, []
            for waiter in waiting:
                if not waiter.done():
                    waiter.set_result(None)

    def shut_down(self) -> None:
        """Hand out nothing any more and release all who wait; work under way may end."""
        self._down = True
        self._entries.clear()
        self._order.clear()
        self._lanes.clear()
        self._ready = 0
        self._delayed.clear()
        self._heap.clear()
        if self._timer is not None:
            self._timer.cancel()
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    async def drained(self) -> None:
        """Wait until no work is under way."""
        while self._working:
            waiter = asyncio.get_running_loop().create_future()
            self._on_idle.append(waiter)
            await waiter

    def _take(self) -> Work[T] | None:
        if not self._ready:
            return None
        now = self._now()
        lane = self._choose(now)
        entry = lane.entries.popleft()
        lane.depth -= 1
        self._ready -= 1
        del self._entries[entry.item]
        self._working[entry.item] = now
        entry.waited = now - entry.since
        if self._metrics is not None:
            self._metrics.waited.observe(entry.waited)
        return entry

    def _choose(self, now: float) -> _Lane[T]:
        """The lane whose head is next: the highest, or one turn in eight who waits longest."""
        self._turns += 1
        fair = self._turns % _FAIR_TURN == 0
        oldest = now - _FAIR_AFTER
        chosen: _Lane[T] | None = None
        for lane in self._order:
            head = lane.head()
            if head is None:
                continue
            if chosen is None:
                chosen = lane
                if not fair:
                    break
            elif head.since <= oldest:
                oldest = head.since
                chosen = lane
        assert chosen is not None  # noqa: S101 - `_ready` counts the heads
        return chosen

    def _move_up(self, entry: Work[T], priority: int) -> Work[T]:
        if entry.item in self._working:
            entry.priority = priority
            return entry
        entry.moved = True
        self._lanes[entry.priority].depth -= 1
        self._ready -= 1
        above = Work(entry.item, priority, entry.since, entry.causes)
        self._entries[entry.item] = above
        self._enqueue(above)
        return above

    def _enqueue(self, entry: Work[T]) -> None:
        lane = self._lanes.get(entry.priority) or self._new_lane(entry.priority)
        lane.entries.append(entry)
        lane.depth += 1
        self._ready += 1
        if self._waiters and not self._woken:
            self._wake()

    def _new_lane(self, priority: int) -> _Lane[T]:
        lane: _Lane[T] = _Lane(priority)
        self._lanes[priority] = lane
        self._order = sorted(self._lanes.values(), key=lambda lane: -lane.priority)
        if self._metrics is not None and len(self._order) <= 25:
            self._metrics.priority(priority, lambda: lane.depth)
        return lane

    def _wake(self) -> None:
        """Let one worker look; it lets the next one look when there is more."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                self._woken = True
                return

    def _arm(self) -> None:
        while self._heap and not self._pending(*self._heap[0][1:]):
            heapq.heappop(self._heap)
        if self._timer is not None:
            if self._heap and self._timer.when() == self._heap[0][0]:
                return
            self._timer.cancel()
            self._timer = None
        if self._heap:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(self._heap[0][0], self._due)

    def _pending(self, ticket: int, item: T) -> bool:
        known = self._delayed.get(item)
        return known is not None and known[1] == ticket

    def _due(self) -> None:
        self._timer = None
        # The loop's clock may fire a hair early; what is due at the timer's time is due.
        now = self._now() + 1e-6
        while self._heap and self._heap[0][0] <= now:
            _, ticket, item = heapq.heappop(self._heap)
            if self._pending(ticket, item):
                entry = self._delayed.pop(item)[2]
                self.add(item, priority=entry.priority, cause=", ".join(entry.causes))
        self._arm()

    def _unfinished(self) -> float:
        now = self._now()
        return sum(now - started for started in self._working.values())

    def _longest(self) -> float:
        now = self._now()
        return max((now - started for started in self._working.values()), default=0.0)

    def _first_time(self) -> float:
        self._now = asyncio.get_running_loop().time
        return self._now()
