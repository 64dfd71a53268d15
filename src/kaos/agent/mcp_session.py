"""One connection to one MCP server, by the official SDK.

This and what it imports are the only modules of the agent that import `mcp` (0.4 s and
15 MB), and that late, in a thread, in an agent that has MCP servers (see `kaos.agent.mcp_pool`).

Guarantees: a server that is gone is an error of the call that found out (see
`kaos.agent.mcp_transport`). A call whose connection was refused is tried again for a moment,
because then nobody can have seen it: a restarting server costs no call that was not under way.

Does not: reconnect, or re-list (the pool does).
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import httpx2
import mcp_types as types
from pydantic_core import to_json

from kaos import __version__, discovery
from kaos.agent.mcp_client import (
    Client,
    IncomingMessage,
    ListenNotSupportedError,
    MCPError,
    SubscriptionLost,
    streamable_http_client,
)
from kaos.agent.mcp_pool import SessionForgotten
from kaos.agent.mcp_transport import FORGOTTEN, LOST, REFUSED, Transport
from kaos.agent.openai import Json
from kaos.agent.tools import ToolFailed, result

CONNECT_TIMEOUT = 5.0
PATIENCE = (0.05, 0.1, 0.25, 0.5, 1.0)  # between tries of a connection that was refused
_MAX_PAGES = 50
_MAX_TOOLS = 500


class Session:
    """A connected client; made by `connect`, shared by all requests.

    Args:
        client: The SDK's client, entered and left by its owner's task.
        changed: Set when the server says that its tools changed.

    Attributes:
        closed: Set when the client is about to be left.
    """

    def __init__(self, client: Client, changed: asyncio.Event) -> None:
        self.closed = False
        self._client = client
        self._changed = changed

    async def list_tools(self) -> tuple[list[types.Tool], float]:
        """Return the server's tools, and for how many seconds it says they hold (0: unsaid).

        Raises:
            ConnectionError: The server cannot be reached now; the session may still be good.
            SessionForgotten: It knows no such session.
            TimeoutError: It does not answer.
        """
        tools: list[types.Tool] = []
        cursor: str | None = None
        ttl = 0.0
        for _ in range(_MAX_PAGES):
            try:
                page = await self._client.list_tools(cursor=cursor, cache_mode="refresh")
            except MCPError as error:
                if error.data in (REFUSED, LOST):
                    raise ConnectionError(error.message) from error
                if error.data == FORGOTTEN:
                    raise SessionForgotten(error.message) from error
                if error.code == types.REQUEST_TIMEOUT:
                    raise TimeoutError(error.message) from error
                raise
            tools.extend(page.tools)
            ttl = page.ttl_ms / 1000
            cursor = page.next_cursor
            if not cursor or len(tools) >= _MAX_TOOLS:
                break
        return tools[:_MAX_TOOLS], ttl

    async def call(self, name: str, arguments: Json, timeout: float) -> Json:
        """Call a tool.

        Raises:
            SessionForgotten: The call was not made: there is no such session any more.
            ToolFailed: The server could not be asked, or refused to.
        """
        for pause in (*PATIENCE, None):
            try:
                return await self._call(name, arguments, timeout)
            except MCPError as error:
                if error.data == FORGOTTEN:
                    raise SessionForgotten(error.message) from error
                if error.data != REFUSED or pause is None:
                    raise ToolFailed(error.message) from error
                await asyncio.sleep(pause)
        raise AssertionError

    async def _call(self, name: str, arguments: Json, timeout: float) -> Json:
        if self.closed:  # while we waited to try again
            raise SessionForgotten("the connection to the MCP server was closed")
        try:
            answer = await self._client.call_tool(name, arguments, read_timeout_seconds=timeout)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Not we were cancelled but the SDK's own tasks, when the connection went away.
            raise ToolFailed("the connection to the MCP server was lost") from error
        return to_result(answer)

    async def watch(self) -> None:
        """Wait for word of changed tools and pass it on; returns when the server gives none.

        A subscription that ends may mean that the server did, so that counts as a change.
        """
        try:
            async with self._client.listen(tools_list_changed=True) as subscription:
                async for _ in subscription:
                    self._changed.set()
            self._changed.set()
        except SubscriptionLost:
            self._changed.set()
        except (ListenNotSupportedError, MCPError, TimeoutError):
            return  # an older server notifies by itself; any server is asked again in time


@asynccontextmanager
async def connect(url: str, changed: asyncio.Event, timeout: float) -> AsyncIterator[Session]:
    """Connect to an MCP server (streamable HTTP, either era of the protocol)."""

    async def on_message(message: IncomingMessage) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            changed.set()

    limits = httpx2.Timeout(timeout, connect=CONNECT_TIMEOUT)
    async with (
        # Calls are limited by the agent, not by connections; cookies are the SDK's business.
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, use_dns_cache=False),
            cookie_jar=aiohttp.DummyCookieJar(),
        ) as connections,
        httpx2.AsyncClient(transport=Transport(connections), timeout=limits) as http,
        Client(
            streamable_http_client(discovery.locate(url), http_client=http),
            read_timeout_seconds=timeout,
            message_handler=on_message,
            client_info=types.Implementation(name="kaos-agent", version=__version__),
        ) as client,
    ):
        client.session.validate_tool_result = _unchecked  # type: ignore[method-assign]
        session = Session(client, changed)
        try:
            yield session
        finally:
            session.closed = True


async def _unchecked(name: str, result: types.CallToolResult) -> None:
    """Take a result that does not fit its tool's schema, which the SDK would throw away.

    The call has been made, and a model that reads of an error would make it again.
    """
    del name, result


def to_result(answer: types.CallToolResult) -> Json:
    """Turn a tool's result into what a `tool` message can hold: text.

    All blocks are kept in their order. What is no text is named, with its type and size, so
    that the model knows that it exists; structured content is used when there is no text.
    """
    texts = [_text(block) for block in answer.content]
    if not any(texts) and answer.structured_content is not None:
        texts = [to_json(answer.structured_content, fallback=str).decode()]
    content = "\n".join(text for text in texts if text)
    if answer.is_error:
        return result(f"Error: {content or 'the tool failed without a message'}", is_error=True)
    return result(content)


def _text(block: Any) -> str:
    match block:
        case types.TextContent():
            return block.text
        case types.ImageContent() | types.AudioContent():
            return f"[{block.type} {block.mime_type}, {_bytes(block.data)} bytes, not shown]"
        case types.EmbeddedResource(resource=types.TextResourceContents() as resource):
            return resource.text
        case types.EmbeddedResource(resource=resource):
            kind = resource.mime_type or "binary"
            size = _bytes(resource.blob) if isinstance(resource, types.BlobResourceContents) else 0
            return f"[resource {resource.uri} {kind}, {size} bytes, not shown]"
        case types.ResourceLink():
            return f"[{block.name}]({block.uri}) {block.description or ''}".strip()
        case _:
            return f"[{getattr(block, 'type', 'content')}, not shown]"


def _bytes(base64: str) -> int:
    return len(base64) * 3 // 4
