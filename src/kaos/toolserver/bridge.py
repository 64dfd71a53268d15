"""An MCP server of somebody else's (a child on stdio, or a URL) behind our own `/mcp`.

Guarantees: tools, resources, prompts, completions and progress pass unchanged, to clients of both
eras, whichever the upstream speaks; word of changed lists does too (found by asking, if it is not
given). Ready means that the upstream has just listed its tools. One that ends is started again
with a growing pause, and requests meanwhile are errors that say why; one that fails again and
again ends the process with its last words, which the resource's status then shows. An upstream
that is busy with a call is not asked how it is: many stdio servers do one thing at a time. A
session that a server has forgotten is made anew, and costs no request.

Does not: pass on what a server asks of its client (sampling, elicitation, roots, resource
subscriptions): between a client without a session and a server with one there is no way back.
"""

import asyncio
import contextlib
import math
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import mcp_types as types
import structlog
from mcp.client.client import Client
from mcp.client.session import IncomingMessage
from mcp.client.subscriptions import ListenNotSupportedError, SubscriptionLost
from mcp.server import Server
from mcp.server.context import ServerRequestContext
from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    ListenHandler,
    PromptsListChanged,
    ResourcesListChanged,
    ServerEvent,
    ToolsListChanged,
)
from mcp.shared.exceptions import MCPError
from starlette.applications import Starlette

from kaos import __version__
from kaos.telemetry import serving
from kaos.telemetry.http import Observed
from kaos.telemetry.traced import traced
from kaos.toolserver import packages
from kaos.toolserver.server import build_app
from kaos.toolserver.settings import Settings
from kaos.toolserver.upstream import FORGOTTEN, Child, Remote, Upstream

FAILURES = 5
RELIST = 15.0
CONNECT_TIMEOUT, LIST_TIMEOUT = 60.0, 30.0
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
RENEWAL = 5.0
_TOLD = 0.2
LONG_ENOUGH = 30.0
MAX_PAGES = 50

T = TypeVar("T")
Context = ServerRequestContext[Any, Any]
OnTools = Callable[[list[str]], object]
Paged = types.PaginatedRequestParams | None

log = structlog.get_logger(__name__)

_CHANGES: tuple[tuple[type[Any], ServerEvent], ...] = (
    (types.ToolListChangedNotification, ToolsListChanged()),
    (types.PromptListChangedNotification, PromptsListChanged()),
    (types.ResourceListChangedNotification, ResourcesListChanged()),
)


class BridgeError(Exception):
    """The upstream cannot be used; the message has its last words."""


class Bridge:
    """An MCP server of ours that asks another one.

    Args:
        name: Reported to clients.

    Attributes:
        problem: Why nothing can be asked now; empty when all is well.
        closing: Set before `keep` is cancelled: a cancellation that meets one of the SDK's own is
            swallowed with it, and would else be taken for a connection that was lost.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.problem = "it is not there yet"
        self.closing = False
        self._client: Client | None = None
        self._tools: list[types.Tool] = []
        self._calls = 0
        self._wake = asyncio.Event()
        self._renewed = asyncio.Event()
        self._renewed_by = 0.0
        self._bus = InMemorySubscriptionBus()
        self._server: Server[Any] = Server(
            name,
            version=__version__,
            get_tool_input_schema=self._schema,
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
            on_list_resources=self._list_resources,
            on_list_resource_templates=self._list_templates,
            on_read_resource=self._read_resource,
            on_list_prompts=self._list_prompts,
            on_get_prompt=self._get_prompt,
            on_completion=self._complete,
            on_subscriptions_listen=ListenHandler(self._bus),
        )

    def streamable_http_app(self, **options: Any) -> Starlette:
        """The ASGI app that serves `/mcp`."""
        return self._server.streamable_http_app(**options)

    async def list_tools(self) -> list[types.Tool]:
        """The tools as last listed."""
        return self._tools

    async def keep(self, upstream: Upstream, on_tools: OnTools) -> None:
        """Keep an upstream connected, until cancelled.

        Args:
            upstream: How to connect to what is behind.
            on_tools: Called with the tools' names when they are known, and when they change.

        Raises:
            BridgeError: It failed too often.
        """
        failures, served = 0, False
        while not self.closing:
            began = time.monotonic()
            try:
                async with contextlib.AsyncExitStack() as stack:
                    connecting = upstream.connect(self._on_message, self._gone)
                    async with asyncio.timeout(CONNECT_TIMEOUT):
                        client = await stack.enter_async_context(connecting)
                    client.session.validate_tool_result = _unchecked  # type: ignore[method-assign]
                    self._server.instructions = client.instructions
                    await self._list(client, on_tools)
                    served = True
                    await self._attend(client, on_tools)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling() or self.closing:
                    raise
                self.problem = "the connection was lost"  # the SDK cancelled itself
            except Exception as error:  # noqa: BLE001 - the SDK raises groups of all kinds
                self.problem = upstream.words(_first(error))
            finally:
                self._client = None
            failures = 1 if time.monotonic() - began > LONG_ENOUGH else failures + 1
            if failures >= _patience(upstream, served=served):
                raise BridgeError(f"{upstream.name} cannot be used: {self.problem}")
            log.warning("upstream lost", upstream=upstream.name, error=self.problem)
            await asyncio.sleep(min(FIRST_PAUSE * 2 ** min(failures - 1, 10), LONGEST_PAUSE))

    async def _attend(self, client: Client, on_tools: OnTools) -> None:
        """Keep the list of tools true, until the upstream is gone."""
        listening = asyncio.create_task(self._listen(client))
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RELIST):
                        await self._wake.wait()
                if not self._calls or self._wake.is_set():
                    self._wake.clear()
                    await self._list(client, on_tools)
        except MCPError as error:
            if error.data == FORGOTTEN:
                self._forget(client)
                await asyncio.sleep(_TOLD)  # requests under way are told so as well
            raise
        finally:
            listening.cancel()
            await asyncio.wait([listening])

    async def _list(self, client: Client, on_tools: OnTools) -> None:
        """Ask for the tools, and tell who wants to know when they are others."""
        tools: list[types.Tool] = []
        cursor: str | None = None
        async with asyncio.timeout(LIST_TIMEOUT):
            for _ in range(MAX_PAGES):
                page = await client.list_tools(cursor=cursor, cache_mode="refresh")
                tools += page.tools
                cursor = page.next_cursor
                if not cursor:
                    break
        is_new, self._client, self.problem = client is not self._client, client, ""
        self._renewed.set()
        if is_new or tools != self._tools:
            self._tools = tools
            on_tools([tool.name for tool in tools])
            await self._bus.publish(ToolsListChanged())
        if is_new:  # who knows with what
            await self._bus.publish(PromptsListChanged())
            await self._bus.publish(ResourcesListChanged())

    def _gone(self) -> None:
        self._client, self.problem = None, "it has ended"
        self._wake.set()

    async def _on_message(self, message: IncomingMessage) -> None:
        """Pass on what an upstream of the older protocol says by itself."""
        for kind, event in _CHANGES:
            if isinstance(message, kind):
                await self._changed(event)

    async def _listen(self, client: Client) -> None:
        """Pass on what an upstream of today's protocol says to those who listen."""
        with contextlib.suppress(ListenNotSupportedError, SubscriptionLost, MCPError, TimeoutError):
            async with client.listen(
                tools_list_changed=True, prompts_list_changed=True, resources_list_changed=True
            ) as events:
                async for event in events:
                    await self._changed(event)

    async def _changed(self, event: ServerEvent) -> None:
        if isinstance(event, ToolsListChanged):
            self._wake.set()  # told when the new list is here
        else:
            await self._bus.publish(event)

    async def _ask(self, call: Callable[[Client], Awaitable[T]]) -> T:
        for last in (False, True):
            client = await self._connected()
            self._calls += 1
            try:
                return await call(client)
            except MCPError as error:
                if last or error.data != FORGOTTEN:
                    raise
                self._forget(client)
            except asyncio.CancelledError as error:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                raise MCPError(types.INTERNAL_ERROR, "the connection was lost") from error
            finally:
                self._calls -= 1
        raise AssertionError

    async def _connected(self) -> Client:
        """Return the client, after a moment if its session is just being made anew."""
        left = self._renewed_by - asyncio.get_running_loop().time()
        if self._client is None and left > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._renewed.wait()
        if self._client is None:
            what = f"the MCP server behind {self.name} cannot be used now: {self.problem}"
            raise MCPError(types.INTERNAL_ERROR, what)
        return self._client

    def _forget(self, client: Client) -> None:
        """Have a session that the server does not know made anew."""
        if self._client is client:
            self._client, self.problem = None, "it has forgotten the session"
            self._renewed_by = asyncio.get_running_loop().time() + RENEWAL
            self._renewed.clear()
            self._wake.set()

    def _schema(self, name: str) -> Mapping[str, Any] | None:
        return next((tool.input_schema for tool in self._tools if tool.name == name), None)

    async def _list_tools(self, _: Context, params: Paged) -> types.ListToolsResult:
        return await self._ask(lambda c: c.list_tools(cursor=_cursor(params)))

    async def _call_tool(
        self, context: Context, params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        return await self._ask(
            lambda c: c.call_tool(
                params.name, params.arguments, progress_callback=context.session.report_progress
            )
        )

    async def _list_resources(self, _: Context, params: Paged) -> types.ListResourcesResult:
        if not self._has("resources"):
            return types.ListResourcesResult(resources=[])
        return await self._ask(lambda c: c.list_resources(cursor=_cursor(params)))

    async def _list_templates(self, _: Context, params: Paged) -> types.ListResourceTemplatesResult:
        if not self._has("resources"):
            return types.ListResourceTemplatesResult(resource_templates=[])
        return await self._ask(lambda c: c.list_resource_templates(cursor=_cursor(params)))

    async def _read_resource(
        self, _: Context, params: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult:
        return await self._ask(lambda c: c.read_resource(params.uri, cache_mode="refresh"))

    async def _list_prompts(self, _: Context, params: Paged) -> types.ListPromptsResult:
        if not self._has("prompts"):
            return types.ListPromptsResult(prompts=[])
        return await self._ask(lambda c: c.list_prompts(cursor=_cursor(params)))

    async def _get_prompt(
        self, _: Context, params: types.GetPromptRequestParams
    ) -> types.GetPromptResult:
        return await self._ask(lambda c: c.get_prompt(params.name, params.arguments))

    async def _complete(
        self, _: Context, params: types.CompleteRequestParams
    ) -> types.CompleteResult:
        argument = {"name": params.argument.name, "value": params.argument.value}
        context = params.context.arguments if params.context else None
        return await self._ask(lambda c: c.complete(params.ref, argument, context))

    def _has(self, capability: str) -> bool:
        return self._client is None or bool(getattr(self._client.server_capabilities, capability))


def _patience(upstream: Upstream, *, served: bool) -> float:
    """After how many failures in a row it is given up; the kubelet starts the process again.

    A child that has never served will not by itself. A URL that has served will, at some time.
    """
    if upstream.is_child:
        return FAILURES if served else 1
    return math.inf if served else FAILURES


def _cursor(params: Paged) -> str | None:
    return params.cursor if params else None


def _first(error: BaseException) -> str:
    """The first thing that went wrong, without the groups that the SDK wraps around it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return " ".join(str(error).split()) or type(error).__name__


async def close(bridge: Bridge, keeping: asyncio.Task[None]) -> None:
    """End a task that keeps a bridge."""
    bridge.closing = True
    while not keeping.done():
        keeping.cancel()
        await asyncio.wait([keeping], timeout=1)


async def run(settings: Settings, arguments: Sequence[str], folder: Path) -> None:
    """Serve what a package's server, or one at a URL, does; until told to stop.

    The port is opened first: an installation may take longer than a probe waits.

    Args:
        settings: With a package or a URL.
        arguments: Of the package's program.
        folder: Where the package is installed.

    Raises:
        BridgeError: The server failed too often.
        PackageError: The package cannot be run.
        ListenError: The address cannot be listened on.
    """
    bridge = Bridge(settings.name)

    def told(tools: list[str]) -> None:
        log.info("serving tools", server=settings.name, tools=tools)

    async def work() -> None:
        upstream: Upstream
        if settings.url:
            upstream = Remote(settings.url, settings.headers)
        else:
            package, env = settings.package or settings.builtin, dict(os.environ)
            argv = await packages.prepare(settings.runtime, package, folder, env)
            env["PATH"] = f"{folder / 'bin'}:{env.get('PATH', '')}"
            upstream = Child(package, [*argv, *arguments], env)
        await bridge.keep(upstream, told)

    app = build_app(bridge, allowed_hosts=settings.allowed_hosts, problem=lambda: bridge.problem)
    working = asyncio.create_task(work())
    served = Observed(traced(app, settings.name))
    serving_ = asyncio.create_task(serving.serve(served, listen=settings.listen))
    try:
        await asyncio.wait([working, serving_], return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            await working  # it never ends but by an error
        await serving_
    finally:
        serving_.cancel()
        await asyncio.wait([serving_])
        await close(bridge, working)


async def _unchecked(name: str, result: types.CallToolResult) -> None:
    """Pass on a result that does not fit its tool's schema: that is for the client to judge."""
    del name, result
