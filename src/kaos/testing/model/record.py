"""Recording: what a real model answered, written down as a script.

Guarantees: everything goes to the model behind and back as it comes, streamed or not; after each
answer the file is a whole script, which `--script` plays without that model: for the same user
message, the same turns in the same order.

Does not: record failures, timings, or anything of a request but its last user message; two
conversations that begin with the same message become one.
"""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from kaos.testing.model.script import (
    Conversation,
    Script,
    ToolCall,
    Turn,
    answers_since_user,
    text_of,
)

Json = dict[str, Any]
_PASSED_ON = ("authorization", "content-type", "traceparent")


class Recorder:
    """A server between an agent and its model, with a pen.

    Args:
        upstream: The model's base URL, without /v1.
        file: Where the script goes.
    """

    def __init__(self, upstream: str, file: Path) -> None:
        self._upstream = upstream.rstrip("/").removesuffix("/v1")
        self._file = file
        self._conversations: dict[str, list[Turn]] = {}
        self._http: aiohttp.ClientSession
        self.app = Starlette(
            routes=[
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
                Route("/{path:path}", self._other),
            ],
            lifespan=self._open,
        )

    @asynccontextmanager
    async def _open(self, _app: Starlette) -> AsyncIterator[None]:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        async with aiohttp.ClientSession(timeout=timeout) as self._http:
            yield

    async def _other(self, request: Request) -> Response:
        url = f"{self._upstream}/{request.path_params['path']}"
        async with self._http.get(url, headers=_passed_on(request)) as answer:
            body = await answer.read()
            return Response(body, answer.status, media_type=answer.content_type)

    async def _chat(self, request: Request) -> Response:
        asked = await request.body()
        answer = await self._http.post(
            f"{self._upstream}/v1/chat/completions", data=asked, headers=_passed_on(request)
        )
        return StreamingResponse(
            self._passing(asked, answer), answer.status, media_type=answer.content_type
        )

    async def _passing(self, asked: bytes, answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        body = b""
        async with answer:
            async for piece in answer.content.iter_any():
                body += piece
                yield piece
        if answer.status == 200:
            streamed = answer.content_type == "text/event-stream"
            self._take_down(json.loads(asked), _joined(body) if streamed else _whole(body))

    def _take_down(self, asked: Json, turn: Turn) -> None:
        messages: list[Json] = asked["messages"]
        users = [text_of(message) for message in messages if message.get("role") == "user"]
        turns = self._conversations.setdefault(users[-1] if users else "", [])
        turns[answers_since_user(messages) :] = [turn]
        # The latest first: a later request holds the earlier messages, too.
        script = Script(
            conversations=tuple(
                Conversation(when=when, by="step", turns=tuple(said))
                for when, said in reversed(self._conversations.items())
            )
        )
        text = script.model_dump_json(indent=2, exclude_defaults=True)
        draft = self._file.with_name(f".{self._file.name}.new")
        draft.write_text(f"{text}\n", encoding="utf-8")
        draft.replace(self._file)


def _passed_on(request: Request) -> dict[str, str]:
    return {name: value for name, value in request.headers.items() if name in _PASSED_ON}


def _whole(body: bytes) -> Turn:
    answer = json.loads(body)
    choice = answer["choices"][0]
    message = choice["message"]
    calls = dict(enumerate(message.get("tool_calls") or []))
    return _turn(message.get("content") or "", calls, choice["finish_reason"], answer.get("usage"))


def _joined(body: bytes) -> Turn:
    text, finish, usage = "", "", None
    calls: dict[int, Json] = {}
    for line in body.splitlines():
        data = line.removeprefix(b"data:").strip()
        if not line.startswith(b"data:") or data == b"[DONE]":
            continue
        event = json.loads(data)
        usage = event.get("usage") or usage
        for choice in event.get("choices") or ():
            finish = choice.get("finish_reason") or finish
            text += choice["delta"].get("content") or ""
            for piece in choice["delta"].get("tool_calls") or ():
                call = calls.setdefault(piece.get("index", 0), {"function": {"arguments": ""}})
                function = piece.get("function") or {}
                call["id"] = piece.get("id") or call.get("id", "")
                call["function"]["name"] = function.get("name") or call["function"].get("name")
                call["function"]["arguments"] += function.get("arguments") or ""
    return _turn(text, calls, finish, usage)


def _turn(text: str, calls: Mapping[int, Json], finish: str, usage: Json | None) -> Turn:
    made = tuple(
        ToolCall(
            name=call["function"]["name"],
            arguments=_arguments(call["function"]["arguments"]),
            id=call.get("id") or "",
        )
        for call in calls.values()
    )
    counts = {n: v for n, v in (usage or {}).items() if isinstance(v, int)} or None
    expected = finish == ("tool_calls" if made else "stop")
    return Turn(text=text, tool_calls=made, finish_reason="" if expected else finish, usage=counts)


def _arguments(text: str) -> Json | str:
    try:
        found = json.loads(text)
    except ValueError:
        return text
    return found if isinstance(found, dict) else text
