"""POST /v1/chat/completions: from an HTTP request to a run of the loop, and back.

Guarantees: what OpenAI's clients expect, whole and streamed; each request is a run with an id
(`x-kaos-run`, taken over from a calling agent); a deadline for the whole; every failure has a
true status, or is an error event when the stream has begun; a caller that hangs up stops
everything below.

Does not: keep conversations. Each request brings its messages along.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from kaos.agent import peers, runs
from kaos.agent.errors import AgentError, DeadlineExceeded, error_response
from kaos.agent.loop import Conversation, Outcome, Show
from kaos.agent.model import ModelClient
from kaos.agent.openai import ChatRequest, Envelope, Json, decode_request, indexed
from kaos.agent.settings import Settings
from kaos.agent.streams import ClientGone, EventStream, while_connected
from kaos.agent.tools import CallContext, Tool, Toolbox
from kaos.telemetry.propagation import trace_headers

log = structlog.get_logger(__name__)

Tools = Callable[[], list[Tool]]
_LAST_WORDS = 1.0
_INTERNAL = "internal error; see the agent's log"


@dataclass(frozen=True, slots=True)
class ChatEndpoint:
    """The endpoint.

    Args:
        settings: The agent's.
        model: The client of its model.
        tools: Returns its tools as they are now.
    """

    settings: Settings
    model: ModelClient
    tools: Tools

    async def post(self, request: Request) -> Response:
        """Answer one request."""
        headers = {}
        try:
            run = runs.MemoryRun(runs.run_id(request.headers), runs.parent_step(request.headers))
            headers[runs.RUN_HEADER] = run.id
            path = peers.delegation_path(
                request.headers, self.settings.identity, self.settings.max_delegation_depth
            )
            chat = decode_request(await request.body())
        except AgentError as error:
            return error_response(error, headers)
        except ClientDisconnect:
            return Response(status_code=499)
        trace = trace_headers(request.headers)
        exchange = _Exchange(
            settings=self.settings,
            model=self.model,
            toolbox=Toolbox(self.tools(), chat.tools),
            chat=chat,
            run=run,
            context=CallContext(run=run.id, path=path, trace=trace),
            envelope=Envelope(model=self.settings.name, run=run.id),
        )
        return _Run(exchange, headers)


@dataclass(frozen=True, slots=True)
class _Exchange:
    """One request with all that it takes to answer it."""

    settings: Settings
    model: ModelClient
    toolbox: Toolbox
    chat: ChatRequest
    run: runs.MemoryRun
    context: CallContext
    envelope: Envelope

    async def hold(self, show: Show | None) -> Outcome:
        """Run the loop, within the deadline."""
        conversation = Conversation(
            request=self.chat,
            instructions=self.settings.instructions,
            model=self.model,
            model_name=self.settings.model_name,
            tools=self.toolbox,
            run=self.run,
            context=self.context,
            headers={**self.context.trace, runs.RUN_HEADER: self.run.id},
            max_steps=self.settings.max_steps,
            show=show,
        )
        limit = self.settings.request_timeout
        try:
            async with asyncio.timeout(limit) as deadline:
                return await conversation.hold()
        except TimeoutError as error:
            if not deadline.expired():
                raise
            raise DeadlineExceeded(f"no answer within {limit:g} seconds") from error
        except ExceptionGroup as group:
            raise _first(group) from group


class _Run(Response):
    """The response: it runs the loop while it is sent."""

    def __init__(self, exchange: _Exchange, headers: dict[str, str]) -> None:
        super().__init__()
        self._exchange = exchange
        self._own_headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        run = self._exchange.run
        answer = self._stream if self._exchange.chat.stream else self._whole
        with structlog.contextvars.bound_contextvars(run=run.id):
            await answer(scope, receive, send)

    async def _whole(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = self._exchange
        response: Response
        try:
            outcome = await while_connected(receive, exchange.hold(None))
            body = exchange.envelope.completion(
                outcome.message, outcome.finish_reason, exchange.run.usage, outcome.limit
            )
            response = Response(body, media_type="application/json", headers=self._own_headers)
        except ClientGone:
            log.info("the caller hung up")
            return
        except asyncio.CancelledError:
            # Only the server cancels us, when its grace is over: the caller is still there.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_WORDS):
                    await self._failed(_shutting_down())(scope, receive, send)
            raise
        except AgentError as error:
            response = self._failed(error)
        except Exception:
            log.exception("run failed")
            response = self._failed(AgentError(_INTERNAL))
        await response(scope, receive, send)

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        stream = EventStream(send, self._own_headers)
        try:
            await while_connected(receive, stream.kept_alive(self._events(stream)))
        except ClientGone:
            if not stream.ended:
                log.info("the caller hung up")
        except asyncio.CancelledError:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_WORDS):
                    await self._fail(stream, _shutting_down(), scope, receive, send)
            raise
        except AgentError as error:
            await self._fail(stream, error, scope, receive, send)
        except Exception:
            log.exception("run failed")
            await self._fail(stream, AgentError(_INTERNAL), scope, receive, send)

    async def _events(self, stream: EventStream) -> None:
        exchange, envelope = self._exchange, self._exchange.envelope
        opening: Json | None = {"role": "assistant", "content": ""}

        async def open_once() -> None:
            nonlocal opening
            if opening is not None:
                delta, opening = opening, None
                await stream.send(envelope.chunk(delta))

        async def show(delta: Json) -> None:
            await open_once()
            await stream.send(envelope.chunk(delta))

        outcome = await exchange.hold(show)
        await open_once()
        if calls := outcome.message.get("tool_calls"):
            await stream.send(envelope.chunk({"tool_calls": indexed(calls)}))
        await stream.send(envelope.chunk({}, outcome.finish_reason, outcome.limit))
        if exchange.chat.include_usage:
            await stream.send(envelope.usage_chunk(exchange.run.usage))
        await stream.done()

    async def _fail(
        self, stream: EventStream, error: AgentError, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if stream.started:
            log.warning("stream failed", error=error.message, code=error.code)
            await stream.fail(error)
        else:
            await self._failed(error)(scope, receive, send)

    def _failed(self, error: AgentError) -> Response:
        error.acted = self._exchange.run.acted
        log.warning("run failed", status=error.status, code=error.code, error=error.message)
        return error_response(error, self._own_headers)


def _shutting_down() -> AgentError:
    return AgentError("the agent is shutting down", status=503, code="shutting_down", retry_after=1)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The failure at the bottom of groups of one: the first of several that happened at once."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
