"""Runs: the port between the reasoning loop and whoever watches or remembers it.

Guarantees: all that a loop does to the world outside (ask the model, call a tool, delegate)
goes through `Run.step`, in an order that depends only on the results of earlier steps; all that
it waits for goes through `Run.wait`; and each result is a JSON value that is kept in a journal
before the loop sees it. So a run is replayed by giving its journal to a new one: steps that are
in it are not done again, and the loop holds no state that the journal lacks (time included:
`Run.seconds` is what the journal says).

One schema of events feeds logs, spans, `/v1/runs` and the steps in a chat stream: a step's
start, deltas, end or error, with the step's number and its parent's, so that a tree of agents
is one run. Contents are the users': they are no part of a start, an end or a log unless
`record` says so.

Does not: keep a journal beyond the request. Others can, behind `Journal`. A step that was
under way when a run was lost is not in its journal, so replaying does it again.
"""

import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import structlog

from kaos.agent.openai import add_usage, usage_of

log = structlog.get_logger(__name__)

Json = dict[str, Any]
StepKind = Literal["run", "model", "tool", "delegation", "wait"]
EventType = Literal["start", "delta", "end", "error"]
Emit = Callable[[Json], Awaitable[None]]

RUN_HEADER = "x-kaos-run"
STEP_HEADER = "x-kaos-parent-step"
_SANE_RUN = re.compile(r"[A-Za-z0-9._-]{1,128}")


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a run."""

    run: str
    step: str
    parent: str
    kind: StepKind
    name: str
    type: EventType
    data: Json
    agent: str = ""
    at: float = field(default_factory=time.time)

    def to_json(self) -> Json:
        """Return the event as others read it."""
        return {name: getattr(self, name) for name in _EVENT_FIELDS}

    @classmethod
    def from_json(cls, raw: Any) -> "Event | None":
        """Read an event that a peer sent; None when it is none."""
        texts = ("run", "step", "parent", "kind", "name", "type", "agent")
        if not isinstance(raw, dict) or not all(isinstance(raw.get(n), str) for n in texts):
            return None
        data, at = raw.get("data"), raw.get("at")
        if not isinstance(data, dict) or not isinstance(at, int | float):
            return None
        return cls(**{name: raw[name] for name in _EVENT_FIELDS})


_EVENT_FIELDS = ("run", "step", "parent", "agent", "kind", "name", "type", "data", "at")
Listener = Callable[[Event], Awaitable[None]]


async def nobody(_event: Any) -> None:
    """Listen to nothing."""


def _unseen() -> None:
    """Take no note."""


@dataclass(frozen=True, slots=True)
class Step:
    """A step under way.

    Attributes:
        id: Its number in the run.
        emit: Takes its deltas.
        relay: Takes the events of steps that others do below it.
        trace: The trace headers that what it calls is to get.
        detailed: Whether anybody wants deltas at all.
        begun: To be told when the first piece of an answer came.
    """

    id: str
    emit: Emit
    relay: Listener = nobody
    trace: Mapping[str, str] = field(default_factory=dict)
    detailed: bool = False
    begun: Callable[[], None] = _unseen


Work = Callable[[Step], Awaitable[Json]]


class Run(Protocol):
    """What the loop needs of a run."""

    @property
    def id(self) -> str:
        """The run's id, the same in every agent it passes through."""

    @property
    def usage(self) -> Mapping[str, int]:
        """The tokens of all steps so far."""

    @property
    def seconds(self) -> float:
        """The time from the run's start to the end of its latest step."""

    async def step(
        self, kind: StepKind, name: str, work: Work, details: Json | None = None
    ) -> Json:
        """Do one piece of work and return its result.

        Args:
            kind: What the work does to the world outside.
            name: The model, tool or peer.
            work: Called with the step; its result is a JSON object.
            details: What is asked, for those who may see contents.
        """

    async def wait(self, name: str, data: Json) -> Json:
        """Wait until the run may go on, and return what was decided; nothing: go on.

        Args:
            name: What is waited for.
            data: What the one who decides needs to know.
        """


@dataclass(frozen=True, slots=True)
class Entry:
    """A step that is over: a JSON value, and when it ended in the run's own time."""

    step: str
    kind: StepKind
    name: str
    result: Json
    at: float


class Journal(Protocol):
    """Where the results of a run's steps are kept."""

    async def find(self, step: str) -> Entry | None:
        """Return a step's entry, if it was done before."""

    async def keep(self, entry: Entry) -> None:
        """Keep a step's result."""


@dataclass(slots=True)
class MemoryJournal:
    """A journal that lives as long as its run; `entries` replays one of before."""

    entries: dict[str, Entry] = field(default_factory=dict)

    async def find(self, step: str) -> Entry | None:
        """See `Journal.find`."""
        return self.entries.get(step)

    async def keep(self, entry: Entry) -> None:
        """See `Journal.keep`."""
        self.entries[entry.step] = entry


class SpanOfStep(Protocol):
    """A span around a step (see `kaos.agent.spans`)."""

    trace: Mapping[str, str]

    def begun(self) -> None:
        """Take down that the first piece of an answer came."""

    def result(self, result: Json) -> None:
        """Take down what came of it."""


Spans = Callable[[StepKind, str, Json, Mapping[str, str]], AbstractContextManager[SpanOfStep]]
Gate = Callable[[str, Json], Awaitable[Json]]


@dataclass(slots=True)
class MemoryRun:
    """A run that lives as long as its request.

    Attributes:
        id: The run's id.
        parent: The step of the caller's run that this one is, if an agent called.
        listener: Gets every event, and is waited for: a slow reader slows the model's stream.
        acted: Whether a tool or a peer was called, so that a retry would call it again.
        usage: The tokens of all model calls.
        agent: Whose steps these are.
        journal: Keeps results; one that holds some already is replayed.
        spans: Makes a span of each step.
        trace: The trace headers of the request, or of the span around the run.
        gate: Decides what the loop waits for; without one it goes on.
        detailed: Whether the listener wants deltas.
        record: Whether events carry what was asked and answered.
        conversation: The session that it is a part of, if sessions are kept.
    """

    id: str
    parent: str = ""
    listener: Listener | None = None
    acted: bool = False
    usage: dict[str, int] = field(default_factory=dict)
    agent: str = ""
    journal: Journal = field(default_factory=MemoryJournal)
    spans: Spans | None = None
    trace: Mapping[str, str] = field(default_factory=dict)
    gate: Gate | None = None
    detailed: bool = True
    record: bool = False
    conversation: str = ""
    seconds: float = 0.0
    done: list[Json] = field(default_factory=list)
    _count: int = 0
    _waits: int = 0
    _live_since: float | None = None
    _before: float = 0.0

    async def step(
        self, kind: StepKind, name: str, work: Work, details: Json | None = None
    ) -> Json:
        """See `Run.step`."""
        self._count += 1
        step = f"{self.parent}.{self._count}" if self.parent else str(self._count)
        self.acted = self.acted or kind in ("tool", "delegation")
        if (entry := await self.journal.find(step)) is not None:
            self._account(entry)
            return entry.result
        return await self._do(step, kind, name, work, details or {})

    async def wait(self, name: str, data: Json) -> Json:
        """See `Run.wait`."""
        if self.gate is None:
            return {}
        self._waits += 1
        step = f"{self.parent}.w{self._waits}" if self.parent else f"w{self._waits}"
        if (entry := await self.journal.find(step)) is not None:
            self._account(entry)
            return entry.result
        gate = self.gate

        async def work(_step: Step) -> Json:
            return await gate(name, data)

        return await self._do(step, "wait", name, work, data)

    async def tell(
        self,
        type_: EventType,
        data: Json,
        *,
        step: str = "",
        kind: StepKind = "run",
        name: str = "",
    ) -> None:
        """Tell the listener of an event; by default one of the run as a whole."""
        if self.listener is not None:
            parent = self.parent
            if kind == "run":
                step, name = parent, name or self.agent
            await self.listener(
                Event(self.id, step, parent, kind, name, type_, data, agent=self.agent)
            )

    async def _do(self, step: str, kind: StepKind, name: str, work: Work, details: Json) -> Json:
        async def emit(data: Json) -> None:
            if self.detailed:
                await self.tell("delta", data, step=step, kind=kind, name=name)

        started = time.perf_counter()
        if self._live_since is None:
            self._live_since, self._before = started, self.seconds
        bound = log.bind(step=step, kind=kind, name=name)
        await self.tell("start", details if self.record else {}, step=step, kind=kind, name=name)
        try:
            with self.span(kind, name, details) as span:
                trace = span.trace if span is not None else self.trace
                relay = self.listener or nobody
                begun = span.begun if span is not None else _unseen
                result = await work(Step(step, emit, relay, trace, self.detailed, begun))
                if span is not None:
                    span.result(result)
        except Exception as error:
            seconds = round(time.perf_counter() - started, 4)
            bound.warning("step failed", seconds=seconds, error=str(error))
            failure = {"seconds": seconds, "message": str(error)}
            self.done.append({"kind": kind, "name": name, "is_error": True})
            await self.tell("error", failure, step=step, kind=kind, name=name)
            raise
        now = time.perf_counter()
        entry = Entry(step, kind, name, result, self._before + now - self._live_since)
        await self.journal.keep(entry)
        self._account(entry)
        summary: Json = {
            "seconds": round(now - started, 4),
            "is_error": bool(result.get("is_error")),
            **usage_of(result.get("usage")),
        }
        bound.info("step", **summary)
        if self.record:
            summary["result"] = result
        await self.tell("end", summary, step=step, kind=kind, name=name)
        return result

    def span(
        self, kind: StepKind, name: str, details: Json
    ) -> AbstractContextManager[SpanOfStep | None]:
        """Return a span around a step or the run, if spans are made."""
        if self.spans is None:
            return nullcontext()
        if self.conversation:
            details = {**details, "conversation": self.conversation}
        return self.spans(kind, name, details, self.trace)

    def _account(self, entry: Entry) -> None:
        self.seconds = max(self.seconds, entry.at)
        add_usage(self.usage, usage_of(entry.result.get("usage")))
        self.done.append(
            {
                "kind": entry.kind,
                "name": entry.name,
                "is_error": bool(entry.result.get("is_error")),
            }
        )


def run_id(headers: Mapping[str, str]) -> str:
    """Return the caller's run id if it gave a sane one, or a new one."""
    given = headers.get(RUN_HEADER, "")
    return given if _SANE_RUN.fullmatch(given) else f"run-{secrets.token_hex(16)}"


def parent_step(headers: Mapping[str, str]) -> str:
    """Return the caller's step, or nothing."""
    given = headers.get(STEP_HEADER, "")
    return given if _SANE_RUN.fullmatch(given) else ""
