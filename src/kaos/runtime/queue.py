"""The work queue: what is to be done, once, by one worker at a time, in a fair order.

Guarantees: an item that is added many times is handed out once; an item is never handed out twice
at the same time, and one that is added while it is worked on is handed out again afterwards, so the
last change is always seen. Higher priority first, first come first served inside a priority; one
turn in eight goes to the item that waits longest below, so nothing starves. Nothing blocks at
shutdown, whoever waits.
Does not: bound its length (it holds keys, each at most once), or persist anything.
Which failures taught it: low priorities that starved (controller-runtime#3496), workers stuck at
shutdown (#3540). Plain deques and futures, because memory streams cost ten times as much.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

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


@dataclass(slots=True)
class _Entry:
    priority: int
    since: float
    ticket: int
    causes: list[str] = field(default_factory=list)


class Work(NamedTuple, Generic[T]):
    """An item handed out: call `done` with it, whatever happened."""

    item: T
    priority: int
    causes: tuple[str, ...]
    waited: float


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
        self._entries: dict[T, _Entry] = {}
        self._ready: dict[int, deque[tuple[int, T]]] = {}
        self._order: list[int] = []
        self._depths: dict[int, int] = {}
        self._working: dict[T, float] = {}
        self._delayed: dict[T, tuple[float, int, _Entry]] = {}
        self._heap: list[tuple[float, int, T]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._failures: dict[T, int] = {}
        self._clock: Callable[[], float] | None = None
        self._tickets = 0
        self._turns = 0
        self._down = False
        self._idle = asyncio.Event()
        self._idle.set()
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
            self._metrics.adds.inc()
        entry = self._entries.get(item)
        if entry is None:
            entry = _Entry(priority, self._now(), 0)
            self._entries[item] = entry
            if item not in self._working:
                self._enqueue(item, entry)
        elif priority > entry.priority:
            if item in self._working:
                entry.priority = priority
            else:
                self._depths[entry.priority] -= 1
                entry.priority = priority
                self._enqueue(item, entry)
        if cause and len(entry.causes) < _CAUSES and cause not in entry.causes:
            entry.causes.append(cause)

    def add_after(self, item: T, delay: float, *, priority: int = NORMAL, cause: str = "") -> None:
        """Add after `delay` seconds; of several times, the earliest counts."""
        if delay <= 0:
            self.add(item, priority=priority, cause=cause)
            return
        if self._down:
            return
        when = self._now() + delay
        known = self._delayed.get(item)
        causes = [cause] if cause else []
        if known is not None:
            if known[0] <= when:
                return
            priority = max(priority, known[2].priority)
        self._tickets += 1
        self._delayed[item] = (when, self._tickets, _Entry(priority, when, 0, causes))
        heapq.heappush(self._heap, (when, self._tickets, item))
        self._arm()

    def add_rate_limited(self, item: T, *, priority: int = NORMAL, cause: str = "") -> float:
        """Add after a delay that doubles with each failure of the item; returns the delay."""
        failures = self._failures.get(item, 0)
        self._failures[item] = failures + 1
        if self._metrics is not None:
            self._metrics.retries.inc()
        delay = self._backoff.delay(failures)
        if self._bucket is not None:
            delay = max(delay, self._bucket.take())
        self.add_after(item, delay, priority=priority, cause=cause)
        return delay

    def forget(self, item: T) -> None:
        """The item went well: its next failure is its first."""
        self._failures.pop(item, None)

    def failures(self, item: T) -> int:
        """How often the item failed in a row."""
        return self._failures.get(item, 0)

    async def get(self) -> Work[T]:
        """The next item; waits for one. Raises QueueShutDown when there will be none."""
        while not self._down:
            work = self._take()
            if work is not None:
                return work
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._wake()  # the item we were woken for must find somebody else
                raise
            finally:
                if not waiter.done() or waiter.cancelled():
                    self._discard(waiter)
        raise QueueShutDown

    def done(self, item: T) -> None:
        """The work on an item has ended, well or not."""
        started = self._working.pop(item, None)
        if started is not None and self._metrics is not None:
            self._metrics.worked.observe(self._now() - started)
        entry = self._entries.get(item)
        if entry is not None and not self._down:
            self._enqueue(item, entry)
        if not self._working:
            self._idle.set()

    def shut_down(self) -> None:
        """Hand out nothing any more and release all who wait; work under way may end."""
        self._down = True
        self._entries.clear()
        self._ready.clear()
        self._order.clear()
        self._depths.clear()
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
        await self._idle.wait()

    def _take(self) -> Work[T] | None:
        queue = self._choose()
        if queue is None:
            return None
        _, item = queue.popleft()
        entry = self._entries.pop(item)
        self._depths[entry.priority] -= 1
        now = self._now()
        self._working[item] = now
        self._idle.clear()
        waited = now - entry.since
        if self._metrics is not None:
            self._metrics.waited.observe(waited)
        return Work(item, entry.priority, tuple(entry.causes), waited)

    def _choose(self) -> deque[tuple[int, T]] | None:
        """The queue whose head is next; heads of items that moved up are dropped on the way."""
        first: deque[tuple[int, T]] | None = None
        self._turns += 1
        fair = self._turns % _FAIR_TURN == 0
        oldest = self._now() - _FAIR_AFTER
        for priority in self._order:
            queue = self._ready[priority]
            while queue and not self._valid(*queue[0]):
                queue.popleft()
            if not queue:
                continue
            if first is None:
                first = queue
                if not fair:
                    break
            elif self._entries[queue[0][1]].since <= oldest:
                oldest = self._entries[queue[0][1]].since
                first = queue
        return first

    def _valid(self, ticket: int, item: T) -> bool:
        entry = self._entries.get(item)
        return entry is not None and entry.ticket == ticket

    def _enqueue(self, item: T, entry: _Entry) -> None:
        self._tickets += 1
        entry.ticket = self._tickets
        priority = entry.priority
        queue = self._ready.get(priority)
        if queue is None:
            queue = self._ready[priority] = deque()
            self._order = sorted(self._ready, reverse=True)
            self._depths[priority] = 0
            if self._metrics is not None and len(self._order) <= 25:
                self._metrics.priority(priority, lambda: self._depths.get(priority, 0))
        queue.append((entry.ticket, item))
        self._depths[priority] += 1
        self._wake()

    def _wake(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _discard(self, waiter: asyncio.Future[None]) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)

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

    def _now(self) -> float:
        if self._clock is None:
            self._clock = asyncio.get_running_loop().time
        return self._clock()
