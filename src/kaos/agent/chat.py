"""POST /v1/chat/completions: from an HTTP request to a run of the loop, and back.

Guarantees: what OpenAI's clients expect, whole and streamed; each request is a run with an id
(`x-kaos-run`, taken over from a calling agent); a deadline for the whole; every failure has a
true status, or is an error event when the stream has begun; a caller that hangs up stops
everything below; a request that is sent again joins its run (see `kaos.agent.replay`).
"""

import asyncio
import contextlib
from dataclasses import dataclass, field

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from kaos.agent import runs
from kaos.agent.auth.caller import caller_of
from kaos.agent.errors import AgentError, error_response
from kaos.agent.exchange import Exchange, Exchanges
from kaos.agent.memory.keeper import SESSION_HEADER
from kaos.agent.openai import Json, decode_request, indexed
from kaos.agent.replay import Replays, ticket
from kaos.agent.runs import Event
from kaos.agent.streams import ClientGone, EventStream, while_connected

log = structlog.get_logger(__name__)

STEPS_HEADER = "x-kaos-steps"
_LAST_WORDS = 1.0
_INTERNAL = "internal error; see the agent's log"


@dataclass(frozen=True, slots=True)
class ChatEndpoint:
    """The endpoint.

    Args:
        exchanges: Puts questions to the agent.
        replays: Knows the runs that may be asked for again.
    """

    exchanges: Exchanges
    replays: Replays = field(default_factory=Replays)

    async def post(self, request: Request) -> Response:
        """Answer one request."""
        run = runs.run_id(request.headers)
        headers = {runs.RUN_HEADER: run}
        caller = caller_of(request.scope)
        try:
            body = await request.body()
            chat = decode_request(body)
            session = request.headers.get(SESSION_HEADER, "")
            again = ticket(request.headers, caller, session, body)
            if again is not None and (joined := self.replays.known(again)) is not None:
                return joined
            exchange = self.exchanges.begin(request.headers, chat, run=run, caller=caller)
        except AgentError as error:
            return error_response(error, headers)
        except ClientDisconnect:
            return Response(status_code=499)
        steps = chat.include_steps or request.headers.get(STEPS_HEADER, "") in ("1", "true")
        if exchange.session is not None:
            headers[SESSION_HEADER] = exchange.session.id
        response = _Run(exchange, headers, steps)
        if again is None:
            return response
        return self.replays.start(again, response, request.scope)


class _Run(Response):
    """The response: it runs the loop while it is sent."""

    def __init__(self, exchange: Exchange, headers: dict[str, str], steps: bool) -> None:
        super().__init__()
        self._exchange = exchange
        self._own_headers = headers
        self._steps = steps
        self._failure: AgentError | None = None

    @property
    def repeatable(self) -> bool:
        """Whether a retry should be a new attempt: it failed before anything was done."""
        return self._failure is not None and not self._exchange.run.acted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        run = self._exchange.run
        answer = self._stream if self._exchange.chat.stream else self._whole
        with structlog.contextvars.bound_contextvars(run=run.id):
            await answer(scope, receive, send)

    async def _whole(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = self._exchange
        response: Response
        steps: list[Json] = []

        async def step(event: Event) -> None:
            if event.type in ("end", "error"):
                steps.append(event.to_json())

        try:
            held = exchange.hold(None, step if self._steps else None)
            outcome = await while_connected(receive, held)
            body = exchange.envelope.completion(
                outcome.message,
                outcome.finish_reason,
                exchange.run.usage,
                outcome.limit,
                logprobs=outcome.logprobs,
                done=exchange.run.done if outcome.limit else None,
                steps=steps if self._steps else None,
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

        async def step(event: Event) -> None:
            # The model's deltas of this agent are the answer itself.
            if event.type != "delta" or event.kind != "model":
                await open_once()
                await stream.send(envelope.step_chunk(event.to_json()))

        outcome = await exchange.hold(show, step if self._steps else None)
        await open_once()
        if calls := outcome.message.get("tool_calls"):
            await stream.send(envelope.chunk({"tool_calls": indexed(calls)}))
        done = exchange.run.done if outcome.limit else None
        await stream.send(envelope.chunk({}, outcome.finish_reason, outcome.limit, done))
        if exchange.chat.include_usage:
            await stream.send(envelope.usage_chunk(exchange.run.usage))
        await stream.done()

    async def _fail(
        self, stream: EventStream, error: AgentError, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if stream.started:
            self._failure = error
            log.warning("stream failed", error=error.message, code=error.code)
            await stream.fail(error)
        else:
            await self._failed(error)(scope, receive, send)

    def _failed(self, error: AgentError) -> Response:
        self._failure = error
        error.acted = self._exchange.run.acted
        log.warning("run failed", status=error.status, code=error.code, error=error.message)
        return error_response(error, self._own_headers)


def _shutting_down() -> AgentError:
    return AgentError("the agent is shutting down", status=503, code="shutting_down", retry_after=1)
