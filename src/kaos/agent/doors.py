"""Doors: other protocols by which the agent is asked, built when somebody knocks.

Guarantees: an agent that nobody asks by MCP or A2A loads neither SDK (half a second and tens of
megabytes each); the first request waits for its door, the port answers others meanwhile; what a
door keeps open is closed with the app, by the task that opened it.
"""

import asyncio
import importlib
import importlib.util
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from kaos.agent.errors import AgentError, error_response
from kaos.agent.exchange import Exchanges

log = structlog.get_logger(__name__)


class OpenDoor(Protocol):
    """What a door's module has."""

    open_door: Callable[[Exchanges], AbstractAsyncContextManager[ASGIApp]]


class LateDoor:
    """An ASGI app that is made at its first request.

    Args:
        module: The module with its `open_door`.
        exchanges: Puts questions to the agent.
        needs: The package it is made of, and the extra that brings it.
    """

    def __init__(self, module: str, exchanges: Exchanges, needs: tuple[str, str]) -> None:
        self._module = module
        self._exchanges = exchanges
        self._needs = needs
        self._app: asyncio.Future[ASGIApp] | None = None
        self._owner: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    @property
    def available(self) -> bool:
        """Whether what it is made of is installed."""
        return importlib.util.find_spec(self._needs[0]) is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102
        if not self.available:
            package, extra = self._needs
            message = f"{package} is not installed in this agent: pip install 'kaos[{extra}]'"
            refusal = AgentError(message, status=501, code="not_installed")
            await error_response(refusal)(scope, receive, send)
            return
        if self._app is None:
            self._app = asyncio.get_running_loop().create_future()
            self._owner = asyncio.create_task(self._own(self._app))
        await (await asyncio.shield(self._app))(scope, receive, send)

    async def close(self) -> None:
        """Close what was opened."""
        self._closing.set()
        if self._owner is not None:
            await asyncio.wait([self._owner])

    async def _own(self, app: "asyncio.Future[ASGIApp]") -> None:
        try:
            module: OpenDoor = await asyncio.to_thread(importlib.import_module, self._module)
            async with module.open_door(self._exchanges) as opened:
                app.set_result(opened)
                await self._closing.wait()
        except Exception as error:
            log.exception("door failed", door=self._module)
            self._app = None  # the next request tries again
            if not app.done():
                app.set_exception(error)
