"""The runs of this agent, as others may look at them: under way, and a while after.

Guarantees: bounded in runs, in events of a run and in all events, so that a busy agent holds
megabytes and not more; a reader that comes late or was cut off goes on where it was, and is
told how many events it missed when they are gone; a slow reader slows nobody; the same run
coming through twice (two delegations of one caller) is one run here too.

With auth on a run belongs to the caller that began it: no other sees it, or joins it by its id.

Does not: hold contents unless told to record them (`KAOS_RECORD_CONTENT`): without auth whoever
may reach this port may list the runs, and what users asked is not everybody's. (An earlier agent
showed all its sessions to any caller.) Nothing here outlives the process.
"""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from kaos.agent.runs import Event, Json

Status = Literal["running", "completed", "limited", "failed", "cancelled"]

MAX_RUNS = 200
MAX_EVENTS = 500
MAX_ALL_EVENTS = 20_000
MAX_STEPS = 500
_COUNT_EVERY = 32  # runs: counting all events at each would cost more than a short run does
_CONTENTS = ("content", "result", "messages", "arguments", "calls")


@dataclass(frozen=True, slots=True)
class Numbered:
    """An event and its place in the run's buffer; without one: how many were lost before."""

    number: int
    event: Event | None
    lost: int = 0


@dataclass(slots=True)
class RunRecord:
    """One run, as far as it went through this agent."""

    id: str
    agent: str
    parent: str = ""
    owner: str = ""
    status: Status = "running"
    started: float = field(default_factory=time.time)
    ended: float | None = None
    limit: str | None = None
    error: str = ""
    usage: dict[str, int] = field(default_factory=dict)
    steps: dict[str, Json] = field(default_factory=dict)
    events: deque[Numbered] = field(default_factory=lambda: deque(maxlen=MAX_EVENTS))
    record: bool = False
    _active: int = 0
    _last: int = 0
    _waiting: list[asyncio.Future[None]] = field(default_factory=list)

    @property
    def over(self) -> bool:
        """Whether nothing more will happen in it, as far as is known here."""
        return self._active == 0

    async def publish(self, event: Event) -> None:
        """Take an event of the run in."""
        if event.type == "delta" and not self.record:
            return
        if not self.record and any(name in event.data for name in _CONTENTS):
            data = {name: value for name, value in event.data.items() if name not in _CONTENTS}
            event = Event(**{**event.to_json(), "data": data})
        self._last += 1
        self.events.append(Numbered(self._last, event))
        self._note(event)
        self._wake()

    def begin(self) -> None:
        """Note that the run came in (again)."""
        self._active += 1
        self.status, self.ended = "running", None

    def end(
        self, status: Status, usage: Mapping[str, int], *, limit: str | None = None, error: str = ""
    ) -> None:
        """Note how it went."""
        self._active -= 1
        for name, tokens in usage.items():
            self.usage[name] = self.usage.get(name, 0) + tokens
        self.limit, self.error = limit or self.limit, error or self.error
        if self.over:
            self.status, self.ended = status, time.time()
        self._wake()

    async def follow(self, after: int) -> AsyncIterator[Numbered]:
        """Yield the events after a number, as they come, until the run is over."""
        while True:
            oldest = self.events[0].number if self.events else self._last + 1
            if after + 1 < oldest:
                yield Numbered(oldest - 1, None, lost=oldest - 1 - after)
                after = oldest - 1
            for numbered in [n for n in self.events if n.number > after]:
                yield numbered
                after = numbered.number
            if self._last > after:
                continue
            if self.over:
                return
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter

    def summary(self) -> Json:
        """Return the run without its steps."""
        ended = self.ended
        return {
            "id": self.id,
            "object": "kaos.run",
            "agent": self.agent,
            "parent": self.parent,
            "status": self.status,
            "started": round(self.started, 3),
            "ended": None if ended is None else round(ended, 3),
            "seconds": round((ended or time.time()) - self.started, 3),
            "limit": self.limit,
            "error": self.error,
            "usage": self.usage,
            "last_event": self._last,
        }

    def whole(self) -> Json:
        """Return the run with its steps."""
        return {**self.summary(), "steps": list(self.steps.values())}

    def _note(self, event: Event) -> None:
        if event.kind == "run" or event.type == "delta":
            return
        step = self.steps.get(event.step)
        if step is None:
            if len(self.steps) >= MAX_STEPS:
                return
            step = self.steps[event.step] = {
                "id": event.step,
                "parent": event.parent,
                "agent": event.agent,
                "kind": event.kind,
                "name": event.name,
                "status": "running",
            }
        if event.type in ("end", "error"):
            failed = event.type == "error" or event.data.get("is_error")
            step.update(event.data, status="failed" if failed else "completed")

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)


class RunStore:
    """The latest runs of an agent.

    Args:
        agent: Its name.
        record: Whether contents may be kept.
    """

    def __init__(self, agent: str, *, record: bool = False) -> None:
        self._agent = agent
        self._record = record
        self._opened = 0
        self._runs: OrderedDict[tuple[str, str], RunRecord] = OrderedDict()

    def open(self, run: str, parent: str, owner: str = "") -> RunRecord:
        """Return the record of a caller's run that comes in; `begin` has been called."""
        key = (owner, run)
        found = self._runs.get(key)
        if found is None:
            found = self._runs[key] = RunRecord(
                run, self._agent, parent, owner=owner, record=self._record
            )
        self._runs.move_to_end(key)
        found.begin()
        self._forget()
        return found

    def get(self, run: str, owner: str = "") -> RunRecord | None:
        """Return a caller's run, if it is still known."""
        return self._runs.get((owner, run))

    def latest(self, limit: int, owner: str = "") -> list[RunRecord]:
        """Return a caller's latest runs, the newest first."""
        return [run for run in reversed(self._runs.values()) if run.owner == owner][:limit]

    def _forget(self) -> None:
        self._opened += 1
        counted = self._opened % _COUNT_EVERY == 0
        events = sum(len(run.events) for run in self._runs.values()) if counted else 0
        while len(self._runs) > MAX_RUNS or events > MAX_ALL_EVENTS:
            oldest = next((run for run in self._runs.values() if run.over), None)
            if oldest is None:
                return
            events -= len(oldest.events)
            del self._runs[oldest.owner, oldest.id]
