"""The model's API: one call to /v1/chat/completions, whole or streamed.

Guarantees: deltas are handed on as they arrive; an answer that breaks off is an error, never a
short answer; every wait has a deadline; a call is tried again only when it cannot have been
seen by anybody (no delta handed on yet) and the failure is one that passes (refused, 429, 502,
503, a connection lost before the answer), for a few seconds at most.

Does not: run tools, or interpret an answer (see `kaos.agent.loop`).

What a failure becomes for the caller: not reachable or 503 is 503 with Retry-After; any other
5xx, a 401, 403 or 404 (the agent's own settings are wrong, not the caller's) and nonsense are
502; 429 stays 429; other 4xx are the caller's parameters and stay what they are.
"""

import asyncio
import contextlib
import io
import json
import secrets
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import aiohttp
import structlog
from pydantic_core import from_json, to_json

from kaos import discovery
from kaos.agent.errors import (
    AgentError,
    BadRequest,
    ModelFailed,
    ModelTimeout,
    ModelUnavailable,
    RateLimited,
    reason,
)
from kaos.agent.openai import LOGPROBS, Json, Logprobs, Turn, add_logprobs, text_of, usage_of
from kaos.agent.runs import Emit

log = structlog.get_logger(__name__)

CONNECT_TIMEOUT = 5.0
PROBE_TIMEOUT = 2.0
RETRY_DELAYS = (0.2, 0.8, 2.0)
RETRY_AFTER = 5.0  # what we tell a caller when the model's API does not say
END_OF_STREAM = 0.02
MAX_ANSWER = 32 * 1024 * 1024
_LONGEST_RETRY_AFTER = 3.0  # beyond it the caller waits better than we do
_QUOTED = 500
_LARGE = 512 * 1024
_OWN_FIELDS = frozenset({"role", "tool_calls", "function_call"})


class ModelClient:
    """The client of one model API.

    Args:
        http: The session to use; the caller closes it.
        url: The API's base URL, without /v1.
        key: A bearer token, or nothing.
        timeout: Seconds for the next piece of an answer to arrive.
    """

    def __init__(
        self, http: aiohttp.ClientSession, url: str, *, key: str = "", timeout: float = 300.0
    ) -> None:
        self._http = http
        self._url = url
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        self._timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_TIMEOUT, sock_read=timeout
        )

    async def complete(
        self, body: Json, *, headers: Mapping[str, str] | None = None, emit: Emit | None = None
    ) -> Turn:
        """Ask the model for one answer.

        Args:
            body: The request, without `stream`.
            headers: Sent along: trace context, the run's id.
            emit: Gets each delta of a streamed answer; without it the answer comes whole.

        Raises:
            AgentError: Said as this agent's caller should hear it.
        """
        payload = _encode(body, stream=emit is not None)
        for delay in (*RETRY_DELAYS, None):
            answer = _Answer(emit)
            try:
                return await self._attempt(payload, headers or {}, answer)
            except (ModelUnavailable, RateLimited, ModelFailed) as error:
                wait = max(delay or 0.0, error.retry_after or 0.0)
                if (
                    delay is None
                    or answer.begun
                    or wait > _LONGEST_RETRY_AFTER
                    or (isinstance(error, ModelFailed) and not error.passing)
                ):
                    error.retry_after = error.retry_after or RETRY_AFTER
                    raise
                log.info("model call failed, trying again", seconds=wait, error=error.message)
                await asyncio.sleep(wait)
        raise AssertionError

    async def reachable(self) -> str | None:
        """Return None if the API answers at all, else what is wrong."""
        try:
            async with self._http.get(
                discovery.locate(f"{self._url}/v1/models"),
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=PROBE_TIMEOUT),
            ) as response:
                return f"HTTP {response.status}" if response.status >= 500 else None
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return reason(error)

    async def _attempt(self, payload: bytes, headers: Mapping[str, str], answer: "_Answer") -> Turn:
        try:
            async with self._http.post(
                discovery.locate(f"{self._url}/v1/chat/completions"),
                data=upload(payload),
                headers={"content-type": "application/json", **headers, **self._headers},
                timeout=self._timeout,
                allow_redirects=False,
            ) as response:
                if response.status != 200:
                    raise await _refusal(response)
                if response.content_type == "text/event-stream":
                    async for event in _events(response):
                        await answer.add(event)
                    return answer.turn()
                return await answer.whole(await _read(response, MAX_ANSWER))
        except aiohttp.ConnectionTimeoutError as error:
            raise ModelUnavailable(f"the model at {self._url} cannot be reached in time") from error
        except TimeoutError as error:
            raise ModelTimeout(f"the model at {self._url} did not answer in time") from error
        except (aiohttp.ClientConnectorError, discovery.ServiceNotFound) as error:
            raise ModelUnavailable(
                f"the model at {self._url} cannot be reached: {reason(error)}"
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            if answer.begun:
                raise ModelFailed(f"the model's answer broke off: {reason(error)}") from error
            raise ModelUnavailable(f"the model at {self._url} hung up: {reason(error)}") from error


@dataclass(slots=True)
class _Answer:
    """An answer as it grows."""

    emit: Emit | None
    begun: bool = False
    _texts: dict[str, list[str]] = field(default_factory=dict)
    _extra: Json = field(default_factory=dict)
    _calls: list[Json] = field(default_factory=list)
    _finish: str | None = None
    _usage: dict[str, int] = field(default_factory=dict)
    _logprobs: Logprobs = field(default_factory=dict)

    async def add(self, event: Json) -> None:
        """Take in one event of a stream."""
        if (error := event.get("error")) is not None:
            raise _failed(f"the model's answer failed: {_message_of(error)}")
        self._usage = usage_of(event.get("usage")) or self._usage
        choices = event.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict):
            return
        self._finish = choice.get("finish_reason") or self._finish
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            return
        for call in delta.get("tool_calls") or ():
            self._add_call(call)
        if isinstance(delta.get("content"), list):
            delta = {**delta, "content": text_of(delta)}
        shown = {name: value for name, value in delta.items() if name not in _OWN_FIELDS and value}
        for name, value in shown.items():
            if isinstance(value, str):
                self._texts.setdefault(name, []).append(value)
            else:
                self._extra[name] = value
        if (logprobs := choice.get(LOGPROBS)) and not delta.get("tool_calls"):
            add_logprobs(self._logprobs, logprobs)
            shown[LOGPROBS] = logprobs
        if shown and self.emit is not None:
            self.begun = True
            await self.emit(shown)

    def _add_call(self, piece: Any) -> None:
        if not isinstance(piece, dict):
            return
        function = piece.get("function") or {}
        if not isinstance(function, dict):
            raise _failed("the model's answer calls a function that is no object")
        call = self._call_of(piece, begins=bool(function.get("name")))
        call["id"] = piece.get("id") or call["id"]
        call["name"] = function.get("name") or call["name"]
        arguments = function.get("arguments")
        call["arguments"] += arguments if isinstance(arguments, str) else _as_text(arguments)

    def _call_of(self, piece: Json, *, begins: bool) -> Json:
        """Return the call that a piece belongs to.

        Ollama and adapters of Gemini send each call whole, all with the index 0 (ollama#15457);
        others leave the index out; old vLLM gave each further piece an id of its own.
        """
        index, given = piece.get("index"), piece.get("id")
        if isinstance(index, int):
            same = [call for call in self._calls if call["index"] == index]
            new = not same or (begins and given and same[-1]["id"] not in ("", given))
        else:
            same, new = self._calls, bool(given) or not self._calls
            index = len(self._calls)
        if new:
            call: Json = {"index": index, "id": "", "name": "", "arguments": ""}
            self._calls.append(call)
            return call
        return same[-1]

    def turn(self) -> Turn:
        """Return the answer, if it is complete.

        Raises:
            ModelFailed: The stream ended before the answer did.
        """
        if self._finish is None:
            raise _failed("the model's answer broke off before its end")
        message: Json = {"role": "assistant", "content": None, **self._extra}
        message |= {name: "".join(pieces) for name, pieces in self._texts.items()}
        if self._calls:
            message["tool_calls"] = [
                {
                    "id": call["id"] or f"call_{secrets.token_hex(12)}",
                    "type": "function",
                    "function": {"name": call["name"], "arguments": call["arguments"]},
                }
                for call in sorted(self._calls, key=itemgetter("index"))
            ]
        turn = Turn(message=message, finish_reason=self._finish, usage=self._usage)
        if self._logprobs:
            turn[LOGPROBS] = self._logprobs
        return turn

    async def whole(self, body: bytes) -> Turn:
        """Take in an answer that came in one piece."""
        try:
            answer = from_json(body)
            choice = answer["choices"][0]
            message = choice["message"]
            delta = {**message, "tool_calls": indexed_calls(message.get("tool_calls"))}
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise _failed(f"the model's answer is not a chat completion: {error!r}") from error
        finish = choice.get("finish_reason") or "stop"
        await self.add(
            {
                "choices": [{**choice, "delta": delta, "finish_reason": finish}],
                "usage": answer.get("usage"),
            }
        )
        return self.turn()


def indexed_calls(calls: Any) -> list[Json]:
    """Number the tool calls of a whole answer."""
    return [
        {**call, "index": index} for index, call in enumerate(calls or ()) if isinstance(call, dict)
    ]


def _as_text(arguments: Any) -> str:
    # Arguments as an object instead of JSON text: wrong, common, and harmless to accept.
    return "" if arguments is None else json.dumps(arguments)


def _encode(body: Json, *, stream: bool) -> bytes:
    options: Json = {"stream": stream}
    if stream:
        options["stream_options"] = {"include_usage": True}
    try:
        return to_json({**body, **options})
    except ValueError as error:
        raise BadRequest(f"the request cannot be sent to the model: {error}") from error


def upload(payload: bytes) -> bytes | io.BytesIO:
    """Return a body as aiohttp likes it: small ones go out at once, large ones from a file."""
    return payload if len(payload) < _LARGE else io.BytesIO(payload)


def _failed(message: str) -> ModelFailed:
    """A failure that is no outage: the same question would fail the same way."""
    error = ModelFailed(message)
    error.passing = False
    return error


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[Json]:
    """Read the events of a stream, until it says that it is done."""
    async for line in _lines(response):
        if not line.startswith(b"data:"):
            continue  # comments, event names, blank lines
        data = line[5:].strip()
        if data == b"[DONE]":
            await read_to_end(response)
            return
        try:
            event = from_json(data)
        except ValueError as error:
            raise _failed(f"the model's stream is not JSON: {error}") from error
        if isinstance(event, dict):
            yield event


async def read_to_end(response: aiohttp.ClientResponse) -> None:
    """Read the end of a stream, which comes after its last event.

    A connection that was not read to the end is not used again, and the next answer would begin
    with a new one, TLS and all. Who does not end a stream at once is not waited for.
    """
    with contextlib.suppress(aiohttp.ClientError, OSError):
        async with asyncio.timeout(END_OF_STREAM):
            while await response.content.readany():
                pass


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Split a stream into lines of any length (aiohttp's own reader gives up at 128 KiB)."""
    pending: list[bytes] = []  # of one line: joined once, however many pieces it comes in
    size = 0
    async for data in response.content.iter_any():
        first, *lines = data.split(b"\n")
        pending.append(first)
        size += len(first)
        if lines:
            yield b"".join(pending)
            *whole, last = lines
            for line in whole:
                yield line
            pending, size = [last], len(last)
        if size > MAX_ANSWER:
            raise _failed("the model's answer is too large")
    if size:
        yield b"".join(pending)


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for data in response.content.iter_any():
        size += len(data)
        if size > limit:
            raise _failed("the model's answer is too large")
        parts.append(data)
    return b"".join(parts)


async def _refusal(response: aiohttp.ClientResponse) -> AgentError:
    """Make the error for an answer that is not 200."""
    status = response.status
    body = (await response.content.read(64 * 1024)).decode(errors="replace")
    try:
        details = json.loads(body).get("error")
    except (ValueError, AttributeError, RecursionError):
        details = body
    said = _message_of(details)[:_QUOTED] or f"HTTP {status}"
    code = details.get("code") if isinstance(details, dict) else None
    code = code if isinstance(code, str) else None
    after = _seconds(response.headers.get("retry-after"))
    if status == 429:
        return RateLimited(f"the model is busy: {said}", retry_after=after)
    if status == 503:
        return ModelUnavailable(f"the model is not available: {said}", retry_after=after)
    if status in (401, 403, 404):
        error = _failed(f"the model's API refused this agent (HTTP {status}): {said}")
        error.code = code or "model_refused"
        return error
    if 400 <= status < 500:
        return BadRequest(f"the model refused the request: {said}", status=status, code=code)
    failed = ModelFailed(f"the model failed (HTTP {status}): {said}", retry_after=after)
    failed.passing = status in (502, 504)  # a gateway that found nobody behind it
    return failed


def _message_of(error: Any) -> str:
    if isinstance(error, dict):
        return str(error.get("message") or error)
    return str(error or "").strip()


def _seconds(text: str | None) -> float | None:
    try:
        return max(0.0, float(text)) if text else None
    except ValueError:
        return None  # an HTTP date: rare, and not worth a parser
