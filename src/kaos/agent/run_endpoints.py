"""GET /v1/runs, /v1/runs/{id} and /v1/runs/{id}/events.

Guarantees: events are server-sent events whose `id` is what `Last-Event-ID` resumes after; the
stream ends with the run; comments keep it open while nothing happens. With auth on, the runs of
other callers are as if they were not there.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from kaos.agent.auth.caller import caller_of
from kaos.agent.errors import AgentError, BadRequest, error_response
from kaos.agent.openai import sse
from kaos.agent.run_store import Numbered, RunRecord, RunStore

KEEP_ALIVE = 15.0
_LIMIT = 100


@dataclass(frozen=True, slots=True)
class RunEndpoints:
    """The endpoints."""

    store: RunStore

    async def list(self, request: Request) -> Response:
        """GET /v1/runs, the newest first."""
        try:
            limit = _number(request.query_params.get("limit"), "limit", _LIMIT)
        except AgentError as error:
            return error_response(error)
        runs = [run.summary() for run in self.store.latest(limit, caller_of(request.scope))]
        return JSONResponse({"object": "list", "data": runs})

    async def one(self, request: Request) -> Response:
        """GET /v1/runs/{id}."""
        run = self.store.get(request.path_params["id"], caller_of(request.scope))
        return (
            _unknown()
            if run is None
            else Response(to_json(run.whole()), media_type="application/json")
        )

    async def events(self, request: Request) -> Response:
        """GET /v1/runs/{id}/events."""
        run = self.store.get(request.path_params["id"], caller_of(request.scope))
        if run is None:
            return _unknown()
        given = request.headers.get("last-event-id") or request.query_params.get("after")
        try:
            after = _number(given, "Last-Event-ID", 0)
        except AgentError as error:
            return error_response(error)
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        return StreamingResponse(
            _stream(run, after), media_type="text/event-stream", headers=headers
        )


async def _stream(run: RunRecord, after: int) -> AsyncIterator[bytes]:
    following = run.follow(after)
    following_next = asyncio.ensure_future(anext(following, None))
    try:
        while True:
            done, _ = await asyncio.wait([following_next], timeout=KEEP_ALIVE)
            if not done:
                yield b": keep-alive\n\n"
                continue
            numbered = following_next.result()
            if numbered is None:
                return
            yield _encoded(numbered)
            following_next = asyncio.ensure_future(anext(following, None))
    finally:
        following_next.cancel()
        await asyncio.wait([following_next])
        await following.aclose()  # type: ignore[attr-defined]


def _encoded(numbered: Numbered) -> bytes:
    number = b"id: %d\n" % numbered.number
    if numbered.event is None:
        return number + b"event: lost\n" + sse({"lost": numbered.lost})
    return number + sse(numbered.event.to_json())


def _number(text: str | None, name: str, default: int) -> int:
    if not text:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 16):
        raise BadRequest(f"{name} must be a number", param=name)
    return int(text)


def _unknown() -> Response:
    message = "there is no such run here, or no longer"
    return error_response(BadRequest(message, status=404, code="run_not_found"))
