"""Runs: the port between the reasoning loop and whoever watches or remembers it.

Guarantees: all that a loop does to the world outside (ask the model, call a tool, delegate)
goes through `Run.step`, in an order that depends only on the results of earlier steps, and
each result is a JSON value. So a journal that keeps results can replay a lost run, one that
waits can pause it, and the loop holds no state that the journal lacks.

Does not: keep anything. `MemoryRun` counts, logs and passes events to one listener; the
journals of later are other implementations of `Run`.

One schema of events feeds logs and streams (and spans, history and replay later): a step's
start, deltas, end or error, with the step's number and its parent's, so that a tree of agents
is one run. Contents are not logged: instructions and answers are the users'.
"""

import re
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import structlog

from kaos.agent.openai import add_usage, usage_of

log = structlog.get_logger(__name__)

Json = dict[str, Any]
StepKind = Literal["model", "tool", "delegation"]
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
    at: float = field(default_factory=time.time)


Listener = Callable[[Event], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Step:
    """A step under way: its number in the run, and where its deltas go."""

    id: str
    emit: Emit


Work = Callable[[Step], Awaitable[Json]]


class Run(Protocol):
    """What the loop needs of a run."""

    @property
    def id(self) -> str:
        """The run's id, the same in every agent it passes through."""

    async def step(self, kind: StepKind, name: str, work: Work) -> Json:
        """Do one piece of work and return its result.

        Args:
            kind: What the work does to the world outside.
            name: The model, tool or peer.
            work: Called with the step; its result is a JSON object.
        """


@dataclass(slots=True)
class MemoryRun:
    """A run that lives as long as its request.

    Attributes:
        id: The run's id.
        parent: The step of the caller's run that this one is, if an agent called.
        listener: Gets every event, and is waited for: a slow reader slows the model's stream.
        acted: Whether a tool or a peer was called, so that a retry would call it again.
        usage: The tokens of all model calls.
    """

    id: str
    parent: str = ""
    listener: Listener | None = None
    acted: bool = False
    usage: dict[str, int] = field(default_factory=dict)
    _count: int = 0

    async def step(self, kind: StepKind, name: str, work: Work) -> Json:
        """See `Run.step`."""
        self._count += 1
        step = f"{self.parent}.{self._count}" if self.parent else str(self._count)
        self.acted = self.acted or kind != "model"

        async def tell(type_: EventType, data: Json) -> None:
            if self.listener is not None:
                await self.listener(Event(self.id, step, self.parent, kind, name, type_, data))

        async def emit(data: Json) -> None:
            await tell("delta", data)

        bound = log.bind(step=step, kind=kind, name=name)
        started = time.perf_counter()
        await tell("start", {})
        try:
            result = await work(Step(step, emit))
        except Exception as error:
            seconds = round(time.perf_counter() - started, 4)
            bound.warning("step failed", seconds=seconds, error=str(error))
            await tell("error", {"seconds": seconds, "message": str(error)})
            raise
        seconds = round(time.perf_counter() - started, 4)
        tokens = usage_of(result.get("usage"))
        add_usage(self.usage, tokens)
        summary = {"seconds": seconds, "is_error": bool(result.get("is_error")), **tokens}
        bound.info("step", **summary)
        await tell("end", summary)
        return result


def run_id(headers: Mapping[str, str]) -> str:
    """Return the caller's run id if it gave a sane one, or a new one."""
    given = headers.get(RUN_HEADER, "")
    return given if _SANE_RUN.fullmatch(given) else f"run-{uuid.uuid4().hex}"


def parent_step(headers: Mapping[str, str]) -> str:
    """Return the caller's step, or nothing."""
    given = headers.get(STEP_HEADER, "")
    return given if _SANE_RUN.fullmatch(given) else ""
