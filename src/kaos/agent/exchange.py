"""An exchange: one question to this agent, whichever door it came in by.

Guarantees: chat, A2A and MCP all ask the agent in the same way; each exchange is a run (or a
part of a caller's), has a deadline (the caller's, if that is nearer), and is known to the run
store from its beginning to its end, however it ends; its id is in every log line between.

Does not: know HTTP beyond a request's headers.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import structlog

from kaos.agent import peers, runs
from kaos.agent.errors import AgentError, DeadlineExceeded
from kaos.agent.limits import Slots, time_limit
from kaos.agent.loop import Budgets, Conversation, Model, Outcome, Show
from kaos.agent.memory.keeper import Memory, Session, derived_id
from kaos.agent.openai import ChatRequest, Envelope
from kaos.agent.run_store import RunRecord, RunStore, Status
from kaos.agent.runs import Event, Listener
from kaos.agent.settings import Settings
from kaos.agent.tools import CallContext, Tool, Toolbox
from kaos.telemetry.propagation import trace_headers

log = structlog.get_logger(__name__)

Tools = Callable[[], list[Tool]]


def _for_peers(session: str, caller: str) -> str:
    """The id of a session at the peers.

    There it is ours, whoever asked us: the id alone would let two callers who name theirs alike
    share one.
    """
    if not (session and caller):
        return session
    return derived_id("peer", f"{caller}\0{session}")


@dataclass(frozen=True, slots=True)
class Exchanges:
    """Makes exchanges.

    Args:
        settings: The agent's.
        model: The client of its model.
        tools: Returns its tools as they are now.
        store: Knows its runs.
        spans: Makes spans of steps, if there is somebody to send them to.
        memory: Keeps sessions, if they are kept.
        slots: Room for runs.
    """

    settings: Settings
    model: Model
    tools: Tools
    store: RunStore
    spans: runs.Spans | None = None
    memory: Memory | None = None
    slots: Slots = field(default_factory=lambda: Slots(0))

    def begin(
        self, headers: Mapping[str, str], chat: ChatRequest, *, run: str = "", caller: str = ""
    ) -> "Exchange":
        """Make an exchange of a request.

        Args:
            headers: The request's: trace, run, parent step, path, deadline, session.
            chat: What is asked.
            run: The run's id, if it is known already.
            caller: Who asks, if that was checked; its sessions and runs are nobody else's.

        Raises:
            DelegationRefused: The request has been here, or through too many agents.
            BadRequest: A header is not what it should be.
        """
        settings = self.settings
        path = peers.delegation_path(headers, settings.identity, settings.max_delegation_depth)
        session = self.memory.session(caller, headers, chat) if self.memory else None
        memory = runs.MemoryRun(
            run or runs.run_id(headers),
            runs.parent_step(headers),
            agent=settings.name,
            spans=self.spans,
            trace=trace_headers(headers),
            detailed=False,
            conversation=session.id if session else "",
        )
        loop = asyncio.get_running_loop()
        limit = time_limit(headers, settings.request_timeout)
        context = CallContext(
            run=memory.id,
            path=path,
            deadline=loop.time() + limit,
            session=_for_peers(memory.conversation, caller),
        )
        return Exchange(
            settings=settings,
            model=self.model,
            toolbox=Toolbox(
                self.tools(),
                chat.tools,
                allowed=chat.allowed,
                max_result=settings.max_tool_result,
            ),
            chat=chat,
            run=memory,
            context=context,
            envelope=Envelope(model=settings.name, run=memory.id),
            store=self.store,
            caller=caller,
            limit=limit,
            session=session,
            slots=self.slots,
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
    caller: str
    limit: float
    session: Session | None
    slots: Slots

    async def hold(self, show: Show | None, steps: Listener | None = None) -> Outcome:
        """Run the loop, within the deadline.

        Args:
            show: Gets each delta for the caller; None when the answer goes out whole.
            steps: Gets the run's events, if the caller wants to see them.

        Raises:
            RateLimited: There are as many runs as may be.
        """
        with self.slots.taken(), structlog.contextvars.bound_contextvars(run=self.run.id):
            return await self._hold(show, steps)

    async def _hold(self, show: Show | None, steps: Listener | None) -> Outcome:
        record = self.store.open(self.run.id, self.run.parent, self.caller)
        self.run.listener = _both(record, steps)
        self.run.record = record.record
        self.run.detailed = record.record or steps is not None
        status: Status = "cancelled"
        limit = None
        error = ""
        try:
            await self.run.tell("start", {})
            outcome = await self._within_limit(show)
            await self._remember(outcome)
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
        span_of_run = self.run.span("run", name, {})
        try:
            async with asyncio.timeout(self.limit) as deadline:
                with span_of_run as span:
                    if span is not None:
                        self.run.trace = span.trace
                    return await self._conversation(await self._request(), show).hold()
        except TimeoutError as error:
            if not deadline.expired():
                raise
            raise DeadlineExceeded(f"no answer within {self.limit:g} seconds") from error
        except ExceptionGroup as group:
            raise _first(group) from group

    async def _request(self) -> ChatRequest:
        """Return what is asked, with the session's history in front if sessions are kept."""
        return self.chat if self.session is None else await self.session.open()

    async def _remember(self, outcome: Outcome) -> None:
        """Add the turn to its session: after the deadline if need be, for the answer is there."""
        if self.session is not None:
            self.envelope.session["session"] = self.session.id
            if not await self.session.remember(outcome.message):
                self.envelope.session["remembered"] = False

    def _conversation(self, request: ChatRequest, show: Show | None) -> Conversation:
        return Conversation(
            request=request,
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


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The failure at the bottom of groups of one: the first of several that happened at once."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
