"""One turn of a script on its way to the client: whole, streamed, late, broken, or an error."""

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from kaos.testing.model.script import Failure, Recorded, Turn, text_of, texts_of


class _ClientGone(Exception):  # noqa: N818
    """The client closed the connection."""


@dataclass
class Answer(Response):
    """One turn on its way to the client."""

    turn: Turn
    record: Recorded
    model: str
    created: int = field(default_factory=lambda: int(time.time()))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102
        del scope
        try:
            await self._play(receive, send)
        except _ClientGone:
            self.record.outcome = "cancelled"
        except asyncio.CancelledError:
            self.record.outcome = "cancelled"
            raise

    async def _play(self, receive: Receive, send: Send) -> None:
        turn = self.turn
        await _pause(receive, turn.delay)
        if turn.error is not None:
            self.record.outcome = "failed"
            await _send_whole(send, error_response(turn.error))
        elif self.record.body.get("stream") is True:
            await self._stream(receive, send)
        else:
            self.record.outcome = "answered"
            choice = {"index": 0, "message": self._message(), "finish_reason": self._finish()}
            await _send_whole(
                send,
                JSONResponse(
                    self._envelope("chat.completion", [choice]) | {"usage": self._usage()}
                ),
            )

    async def _stream(self, receive: Receive, send: Send) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-type", b"text/event-stream; charset=utf-8")],
            }
        )
        for number, delta in enumerate(self._deltas()):
            if number == self.turn.break_after:
                self.record.outcome = "failed"
                return  # without the last chunk, so the server cuts the connection
            if number == self.turn.error_after:
                self.record.outcome = "failed"
                await _event(send, {"error": {"message": "scripted failure", "code": None}})
                await send({"type": "http.response.body", "body": b""})
                return
            await _pause(receive, self.turn.piece_delay if number > 1 else 0)
            await _event(send, self._chunk(delta, None))
        await _event(send, self._chunk({}, self._finish()))
        if (self.record.body.get("stream_options") or {}).get("include_usage"):
            last = self._envelope("chat.completion.chunk", []) | {"usage": self._usage()}
            await _event(send, last)
        self.record.outcome = "answered"
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})

    def _deltas(self) -> Iterator[dict[str, Any]]:
        yield {"role": "assistant", "content": ""}
        for piece in _pieces(self._text(), self.turn.piece):
            yield {"content": piece}
        for index, call in enumerate(self._calls()):
            arguments = call["function"]["arguments"]
            middle = len(arguments) // 2
            named = {**call["function"], "arguments": arguments[:middle]}
            yield {"tool_calls": [{**call, "index": index, "function": named}]}
            rest = {"arguments": arguments[middle:]}
            yield {"tool_calls": [{"index": index, "function": rest}]}

    def _chunk(self, delta: dict[str, Any], finish: str | None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return self._envelope("chat.completion.chunk", [choice])

    def _envelope(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": "chatcmpl-scripted",
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }

    def _message(self) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": self._text() or None}
        if calls := self._calls():
            message["tool_calls"] = calls
        return message

    def _text(self) -> str:
        last = self.record.messages[-1] if self.record.messages else {}
        return self.turn.text.replace("{last}", text_of(last))

    def _calls(self) -> list[dict[str, Any]]:
        return [
            {
                "id": call.id or f"call_{index}",
                "type": "function",
                "function": {
                    "name": call.name,
                    "arguments": call.arguments
                    if isinstance(call.arguments, str)
                    else json.dumps(call.arguments),
                },
            }
            for index, call in enumerate(self.turn.tool_calls)
        ]

    def _finish(self) -> str:
        return self.turn.finish_reason or ("tool_calls" if self.turn.tool_calls else "stop")

    def _usage(self) -> dict[str, int]:
        if self.turn.usage is not None:
            return self.turn.usage
        prompt = len(texts_of(self.record).split())
        completion = len(self._text().split()) + len(self.turn.tool_calls)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        }


def _pieces(text: str, size: int) -> list[str]:
    if size:
        return [text[at : at + size] for at in range(0, len(text), size)]
    words = text.split(" ")
    return [word + " " for word in words[:-1]] + words[-1:] if text else []


async def _pause(receive: Receive, seconds: float) -> None:
    """Wait, unless the client goes away."""
    if not seconds:
        return
    try:
        async with asyncio.timeout(seconds):
            while (await receive())["type"] != "http.disconnect":
                pass
    except TimeoutError:
        return
    raise _ClientGone


async def _event(send: Send, data: dict[str, Any]) -> None:
    body = b"data: " + json.dumps(data).encode() + b"\n\n"
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def _send_whole(send: Send, response: Response) -> None:
    headers = response.raw_headers
    await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})


def error_response(failure: Failure) -> Response:
    """Make the HTTP error a script asks for."""
    error = {
        "message": failure.message,
        "type": "invalid_request_error" if failure.status < 500 else "server_error",
        "param": None,
        "code": failure.code,
    }
    after = failure.retry_after
    headers = {} if after is None else {"retry-after": f"{after:g}"}
    return JSONResponse({"error": error}, status_code=failure.status, headers=headers)
