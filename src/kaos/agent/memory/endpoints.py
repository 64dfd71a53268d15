"""/sessions: what is remembered, for those it belongs to.

Guarantees: with auth on, a caller sees its own sessions only; somebody else's are 404, as if
they were not there. Without auth whoever knows an id may read and delete that session, as it may
continue it; the list of all ids is refused then, unless `MEMORY_OPEN_LIST` says otherwise (an
earlier agent showed everybody's conversations to everybody).
"""

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from kaos.agent.auth.caller import caller_of
from kaos.agent.errors import AgentError, BadRequest, error_response
from kaos.agent.memory.keeper import Memory, checked_id
from kaos.agent.memory.store import Key
from kaos.agent.openai import Json

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000

_Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class SessionEndpoints:
    """The endpoints.

    Args:
        memory: The agent's.
        open_list: Whether callers nobody has checked may list all sessions.
    """

    memory: Memory
    open_list: bool

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/sessions", _answered(self.list), methods=["GET"]),
            Route("/sessions/{id}", _answered(self.read), methods=["GET"]),
            Route("/sessions/{id}", _answered(self.delete), methods=["DELETE"]),
        ]

    async def list(self, request: Request) -> Json:
        """GET /sessions?limit=&before=: the last used first."""
        owner = caller_of(request.scope)
        if not owner and not self.open_list:
            raise AgentError(
                "sessions are listed only for authenticated callers (KAOS_AUTH_*), or for all "
                "with MEMORY_OPEN_LIST=true",
                status=403,
                code="listing_refused",
            )
        limit = int(_number(request, "limit", DEFAULT_LIMIT) or 0)
        if not 1 <= limit <= MAX_LIMIT:
            raise BadRequest(f"limit must be 1 to {MAX_LIMIT}", param="limit")
        before = _number(request, "before", None)
        found = await self.memory.ask("list", self.memory.store.sessions(owner, limit + 1, before))
        return {
            "object": "list",
            "data": [
                {
                    "id": info.id,
                    "object": "session",
                    "created_at": info.created,
                    "updated_at": info.updated,
                    "messages": info.messages,
                }
                for info in found[:limit]
            ],
            "has_more": len(found) > limit,
        }

    async def read(self, request: Request) -> Json:
        """GET /sessions/{id}: with its messages, oldest first."""
        key = _key(request)
        stored = await self.memory.ask("load", self.memory.store.load(key))
        if stored is None:
            raise _not_found(key)
        return {
            "id": key.session,
            "object": "session",
            "created_at": stored.created,
            "updated_at": stored.updated,
            "messages": stored.messages(),
        }

    async def delete(self, request: Request) -> Json:
        """DELETE /sessions/{id}."""
        key = _key(request)
        if not await self.memory.ask("delete", self.memory.store.delete(key)):
            raise _not_found(key)
        return {"id": key.session, "object": "session.deleted", "deleted": True}


def _answered(handler: Callable[[Request], Awaitable[Json]]) -> _Handler:
    async def answer(request: Request) -> Response:
        try:
            return JSONResponse(await handler(request))
        except AgentError as error:
            return error_response(error)

    return answer


def _key(request: Request) -> Key:
    return Key(caller_of(request.scope), checked_id(request.path_params["id"], "id"))


def _not_found(key: Key) -> AgentError:
    return BadRequest(f"there is no session {key.session!r}", status=404, code="not_found")


def _number(request: Request, name: str, default: float | None) -> float | None:
    text = request.query_params.get(name)
    if not text:
        return default
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise BadRequest(f"{name} must be a number", param=name)
    return number
