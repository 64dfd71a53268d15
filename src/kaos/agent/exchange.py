"""An exchange: one question to this agent, whichever door it came in by.

Guarantees: chat, A2A and MCP all ask the agent in the same way; each exchange is a run (or a
part of a caller's), has a deadline (the caller's, if that is nearer), and is known to the run
store from its beginning to its end, however it ends.

Does not: know HTTP beyond a request's headers.
"""

import asyncio
import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import structlog

from kaos.agent import peers, runs
from kaos.agent.errors import AgentError, DeadlineExceeded
from kaos.agent.loop import Budgets, Conversation, Model, Outcome, Show
from kaos.agent.openai import ChatRequest, Envelope
from kaos.agent.run_store import RunRecord, RunStore, Status
from kaos.agent.runs import Event, Listener
from kaos.agent.settings import Settings
from kaos.agent.tools import CallContext, Tool, Toolbox
from kaos.telemetry.propagation import trace_headers

log = structlog.get_logger(__name__)

Tools = Callable[[], list[Tool]]
DEADLINE_HEADER = "x-kaos-deadline"
"""Seconds that the caller will wait: a duration, because clocks differ."""


@dataclass(frozen=True, slots=True)
class Exchanges:
    """Makes exchanges.

    Args:
        settings: The agent's.
        model: The client of its model.
        tools: Returns its tools as they are now.
        store: Knows its runs.
        spans: Makes spans of steps, if there is somebody to send them to.
    """

    settings: Settings
    model: Model
    tools: Tools
    store: RunStore
    spans: runs.Spans | None = None

    def begin(self, headers: Mapping[str, str], chat: ChatRequest, *, run: str = "") -> "Exchange":
        """Make an exchange of a request.

        Args:
            headers: The request's: trace, run, parent step, path, deadline.
            chat: What is asked.
            run: The run's id, if it is known already.

        Raises:
            DelegationRefused: The request has been here, or through too many agents.
        """
        settings = self.settings
        path = peers.delegation_path(headers, settings.identity, settings.max_delegation_depth)
        memory = runs.MemoryRun(
            run or runs.run_id(headers),
            runs.parent_step(headers),
            agent=settings.name,
            spans=self.spans,
            trace=trace_headers(headers),
            detailed=False,
        )
        loop = asyncio.get_running_loop()
        limit = min(settings.request_timeout, _seconds(headers.get(DEADLINE_HEADER)))
        context = CallContext(run=memory.id, path=path, deadline=loop.time() + limit)
        return Exchange(
            settings=settings,
            model=self.model,
            toolbox=Toolbox(self.tools(), chat.tools, max_result=settings.max_tool_result),
            chat=chat,
            run=memory,
            context=context,
            envelope=Envelope(model=settings.name, run=memory.id),
            store=self.store,
            limit=limit,
        )


@dataclass(frozen=True, slots=True)
class Exchange:
    """One question with all that it takes to answer it."""

    settings: Settings
    model: Model
    toolbox: Toolbox
    chat: ChatRequest
    run: runs.MemoryRun
    context: CallContext
    envelope: Envelope
    store: RunStore
    limit: float

    async def hold(self, show: Show | None, steps: Listener | None = None) -> Outcome:
        """Run the loop, within the deadline.

        Args:
            show: Gets each delta for the caller; None when the answer goes out whole.
            steps: Gets the run's events, if the caller wants to see them.
        """
        record = self.store.open(self.run.id, self.run.parent)
        self.run.listener = _both(record, steps)
        self.run.record = record.record
        self.run.detailed = record.record or steps is not None
        status: Status = "cancelled"
        limit = None
        error = ""
        try:
            await self.run.tell("start", {})
            outcome = await self._within_limit(show)
            status, limit = "limited" if outcome.limit else "completed", outcome.limit
            await self.run.tell("end", {"finish_reason": outcome.finish_reason, "limit": limit})
            return outcome
        except AgentError as failure:
            status, error = "failed", failure.message
            await self.run.tell("error", {"message": error, "code": failure.code})
            raise
        except Exception:
            status, error = "failed", "internal error"
            raise
        finally:
            record.end(status, self.run.usage, limit=limit, error=error)

    async def _within_limit(self, show: Show | None) -> Outcome:
        name = self.settings.name
        spans = self.run.spans
        span_of_run = spans("run", name, {}, self.run.trace) if spans else nullcontext()
        try:
            async with asyncio.timeout(self.limit) as deadline:
                with span_of_run as span:
                    if span is not None:
                        self.run.trace = span.trace
                    return await self._conversation(show).hold()
        except TimeoutError as error:
            if not deadline.expired():
                raise
            raise DeadlineExceeded(f"no answer within {self.limit:g} seconds") from error
        except ExceptionGroup as group:
            raise _first(group) from group

    def _conversation(self, show: Show | None) -> Conversation:
        return Conversation(
            request=self.chat,
            instructions=self.settings.instructions,
            model=self.model,
            model_name=self.settings.model_name,
            tools=self.toolbox,
            run=self.run,
            context=self.context,
            budgets=Budgets(
                steps=self.settings.max_steps,
                tokens=self.settings.max_tokens,
                seconds=self.settings.max_seconds,
                tool_calls=self.settings.max_tool_calls,
            ),
            show=show,
        )


def _both(record: RunRecord, steps: Listener | None) -> Listener:
    if steps is None:
        return record.publish

    async def tell(event: Event) -> None:
        await record.publish(event)
        await steps(event)

    return tell


def _seconds(text: str | None) -> float:
    try:
        seconds = float(text) if text else float("inf")
    except ValueError:
        return float("inf")
    return float("inf") if math.isnan(seconds) else max(0.001, seconds)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The failure at the bottom of groups of one: the first of several that happened at once."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
