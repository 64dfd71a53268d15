"""The agent's MCP servers: one long-lived connection each, kept by a task of its own.

Guarantees: a server that is down, at the start or later, makes the agent degraded and not
dead; its tools come back by themselves (backoff with jitter up to a few seconds); tools are
listed again when the server says they changed, when its own time limit for the list ran out,
and at least every half minute; the SDK is imported after the agent's port answers.

Does not: start servers, or authenticate to them.

A connection that was refused is asked again before it is given up: rebuilding it would break
the calls that other requests have under way on it. For the same reason a server that is too busy
with calls to say which tools it has keeps them: many do one thing at a time. In the current
protocol, which keeps no session, that is all a restarted server needs; an older server forgot the
session, says so, and then the connection is built anew at once, and the call that was told so is
made on the new one.
"""

import asyncio
import contextlib
import importlib
import random
import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import structlog

from kaos.agent.errors import reason
from kaos.agent.openai import Json
from kaos.agent.runs import Step
from kaos.agent.tools import CallContext, Tool, ToolFailed

log = structlog.get_logger(__name__)

State = Literal["connecting", "ready", "down"]
RELIST = 30.0
_SHORTEST_RELIST = 1.0
_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 5.0
_CONNECT_TIMEOUT = 20.0  # the SDK gives up on today's protocol after ten, and tries the older one
_LIST_TIMEOUT = 10.0
_BETWEEN_LISTS = 0.2
_REFUSALS_BEFORE_REBUILD = 8
_SILENT = "it does not answer"
_PATIENCE = 2.0  # for a call to a server that has been down for less than this


class SessionForgotten(ToolFailed):
    """The session is over (an older server was restarted, say); nothing was done in it."""


class Session(Protocol):
    """What the pool needs of a connection (see `kaos.agent.mcp_session`)."""

    async def list_tools(self) -> tuple[list[Any], float]:
        """Return the tools and the seconds they hold.

        Raises:
            ConnectionError: The server cannot be reached now; the session may still be good.
            SessionForgotten: It knows no such session.
            TimeoutError: It does not answer.
        """

    async def call(self, name: str, arguments: Json, timeout: float) -> Json:
        """Call a tool.

        Raises:
            SessionForgotten: It was not called, and can be on another connection.
            ToolFailed: It could not be called, or failed.
        """

    async def watch(self) -> None:
        """Wait for word of changed tools."""


class Connect(Protocol):
    """Makes a connection."""

    def __call__(
        self, url: str, changed: asyncio.Event, timeout: float
    ) -> AbstractAsyncContextManager[Session]:
        """Connect to `url`; `changed` is set when its tools change."""


@dataclass(slots=True)
class ServerState:
    """How it stands with one server, for /readyz."""

    state: State = "connecting"
    error: str = ""


class Server:
    """One MCP server and the task that keeps the connection to it.

    Args:
        name: Its name in `MCP_SERVERS`.
        url: Its URL; `/mcp` is added to one without a path.
        timeout: Seconds for one call.
        chosen: The tools that are offered and their names here (`*`: all others); empty: all.
    """

    def __init__(
        self, name: str, url: str, timeout: float, chosen: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self._chosen = chosen or {"*": "*"}
        self.url = url if url.count("/") > 2 else f"{url}/mcp"
        self.status = ServerState()
        self.tools: tuple[Tool, ...] = ()
        self.settled = asyncio.Event()
        self.answered = False
        self._timeout = timeout
        self._session: Session | None = None
        self._wake = asyncio.Event()
        self._up = asyncio.Event()
        self._down_since = float("-inf")
        self._calls = 0
        self._closing = False

    async def close(self, keeping: asyncio.Task[None]) -> None:
        """End the task that keeps the connection."""
        self._closing = True
        while not keeping.done():  # a cancellation that meets one of the SDK's own is lost with it
            keeping.cancel()
            await asyncio.wait([keeping], timeout=1)

    async def keep(self, connect: Connect) -> None:
        """Keep a connection, until closed."""
        pause = _FIRST_PAUSE
        while not self._closing:
            try:
                async with contextlib.AsyncExitStack() as stack:
                    connecting = connect(self.url, self._wake, self._timeout)
                    try:
                        async with asyncio.timeout(_CONNECT_TIMEOUT) as clock:
                            session = await stack.enter_async_context(connecting)
                    except Exception as error:
                        if clock.expired():  # whatever the SDK makes of it
                            raise TimeoutError(_SILENT) from error
                        raise
                    await self._list(session)
                    pause = _FIRST_PAUSE
                    await self._attend(session)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling() or self._closing:
                    raise
                self.fail("the connection was lost")  # the SDK cancelled itself
            except Exception as error:  # noqa: BLE001 - the SDK raises groups of all kinds
                self.fail(_reason(error))
            finally:
                self._session = None
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _attend(self, session: Session) -> None:
        """Keep the list of tools true for as long as this connection can be used."""
        watching = asyncio.create_task(session.watch())
        refusals = 0
        wait = RELIST
        try:
            while refusals < _REFUSALS_BEFORE_REBUILD:
                await asyncio.sleep(_BETWEEN_LISTS)  # whatever a server says, and how often
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._wake.wait()
                try:
                    ttl = await self._list(session)
                except ConnectionError as error:
                    refusals += 1
                    self.fail(reason(error))
                    wait = _FIRST_PAUSE
                    continue
                except SessionForgotten:
                    self._lose()
                    await asyncio.sleep(_BETWEEN_LISTS)  # calls under way are told so as well
                    raise
                except TimeoutError:
                    if not self._calls:
                        raise
                    continue
                if watching.done():
                    watching = asyncio.create_task(session.watch())
                refusals = 0
                wait = max(_SHORTEST_RELIST, min(ttl, RELIST)) if ttl else RELIST
        finally:
            self._lose()
            watching.cancel()
            await asyncio.wait([watching])

    async def _list(self, session: Session) -> float:
        self._wake.clear()
        try:
            async with asyncio.timeout(_LIST_TIMEOUT):
                listed, ttl = await session.list_tools()
        except TimeoutError as error:
            raise TimeoutError(_SILENT) from error
        self.tools = tuple(self._tool(tool) for tool in listed if self._offered(tool.name))
        self._session = session
        if self.status.state != "ready":
            log.info("MCP server ready", server=self.name, tools=len(self.tools))
        self.status = ServerState("ready")
        self.answered = True
        self.settled.set()
        self._up.set()
        return ttl

    def fail(self, why: str) -> None:
        """Note that the server cannot be used, and why."""
        if self.status.state != "down":
            log.warning("MCP server down", server=self.name, url=self.url, error=why)
            self._down_since = time.monotonic()
        self.status = ServerState("down", why)
        self.settled.set()
        self._up.clear()

    def _offered(self, name: str) -> bool:
        return name in self._chosen or "*" in self._chosen

    def _tool(self, listed: Any) -> Tool:
        async def call(arguments: Json, context: CallContext, step: Step) -> Json:
            del context, step
            return await self._call(listed.name, arguments)

        return Tool(
            name=self._chosen.get(listed.name, listed.name),
            source=self.name,
            description=listed.description or listed.title or "",
            parameters=listed.input_schema,
            call=call,
            timeout=self._timeout,
        )

    async def _call(self, name: str, arguments: Json) -> Json:
        for last in (False, True):
            session = await self._connected()
            self._calls += 1
            try:
                return await session.call(name, arguments, self._timeout)
            except ToolFailed as error:
                self._wake.set()  # see at once whether the server is still there
                if last or not isinstance(error, SessionForgotten):
                    raise
                if self._session is session:
                    self._lose()
            finally:
                self._calls -= 1
        raise AssertionError

    async def _connected(self) -> Session:
        if self._session is None and time.monotonic() - self._down_since < _PATIENCE:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE):
                    await self._up.wait()
        if self._session is None:
            raise ToolFailed(f"the MCP server {self.name!r} is down: {self.status.error}")
        return self._session

    def _lose(self) -> None:
        """Let calls wait for another connection."""
        self._session = None
        self._up.clear()
        self._down_since = time.monotonic()


class ToolPool:
    """All MCP servers of an agent.

    Args:
        servers: Name to URL.
        timeout: Seconds for one call.
        chosen: For some servers, the tools that are offered; see `Server`.
    """

    def __init__(
        self,
        servers: Mapping[str, str],
        timeout: float,
        chosen: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self.servers = tuple(
            Server(name, url, timeout, (chosen or {}).get(name)) for name, url in servers.items()
        )

    @property
    def settled(self) -> bool:
        """Whether every server has answered or failed to."""
        return all(server.settled.is_set() for server in self.servers)

    @property
    def answered(self) -> bool:
        """Whether every server has answered at least once."""
        return all(server.answered for server in self.servers)

    def tools(self) -> Iterable[Tool]:
        """Return the tools as last listed, also of servers that are down just now."""
        return [tool for server in self.servers for tool in server.tools]

    async def run(self) -> None:
        """Keep all connections, until cancelled."""
        if not self.servers:
            return
        # In a thread: the import takes half a second, and probes must be answered meanwhile.
        try:
            module = await asyncio.to_thread(importlib.import_module, "kaos.agent.mcp_session")
        except ImportError as error:
            for server in self.servers:
                server.fail(f"the MCP SDK cannot be imported: {error}")
            raise
        async with asyncio.TaskGroup() as group:
            keeping = [group.create_task(server.keep(module.connect)) for server in self.servers]
            try:
                await asyncio.wait(keeping)
            finally:
                await asyncio.gather(*map(Server.close, self.servers, keeping))


def _reason(error: BaseException) -> str:
    """The first thing that went wrong, without the groups the SDK wraps around it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return reason(error)
