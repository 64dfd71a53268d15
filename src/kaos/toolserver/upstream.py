"""The two sorts of MCP servers behind a bridge: a child process on stdio, and a URL.

Guarantees: a child is started from a list of words, never by a shell, in a process group of its
own, and is gone with all its descendants when its connection is left (the SDK closes its stdin,
then SIGTERM, then SIGKILL, each after two seconds). What it writes to standard error goes to ours,
and its last line is kept: it is, as a rule, the reason why it ended. Headers for a URL are read
from their files at each request, so a rotated token is used at once, and are never logged; a
redirect is not followed, so they reach nobody but the host that the user named.

Does not: restart anything (`bridge` does).
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Generator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import anyio
import httpx2
import mcp_types as types
from mcp.client.client import Client
from mcp.client.session import MessageHandlerFnT
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client

from kaos import __version__, discovery

CALL_TIMEOUT = 600.0
REACH_TIMEOUT = 10.0
MAX_WORDS = 500
FORGOTTEN = "kaos: session forgotten"

Gone = Callable[[], object]
INFO = types.Implementation(name="kaos-toolserver", version=__version__)


class Upstream(Protocol):
    """How to connect to an MCP server."""

    name: str
    is_child: bool

    def connect(
        self, on_message: MessageHandlerFnT, gone: Gone
    ) -> AbstractAsyncContextManager[Client]:
        """Connect; `gone` is called when the other side ends, if that can be seen."""

    def words(self, error: str) -> str:
        """What to say of an error."""


class Child:
    """An MCP server that is started here and speaks on its stdin and stdout.

    Args:
        name: What it is, for messages.
        argv: Its command line.
        env: Its whole environment.
    """

    is_child = True

    def __init__(self, name: str, argv: Sequence[str], env: Mapping[str, str]) -> None:
        self.name = name
        self._parameters = StdioServerParameters(
            command=argv[0], args=list(argv[1:]), env=dict(env)
        )
        self._errors = _Errors()

    @asynccontextmanager
    async def connect(self, on_message: MessageHandlerFnT, gone: Gone) -> AsyncIterator[Client]:
        """Start it and connect; it is gone when the block is left."""
        self._errors = _Errors()
        loop = asyncio.get_running_loop()
        read, write = os.pipe()
        with os.fdopen(write, "w") as errlog:
            reading, _ = await loop.connect_read_pipe(lambda: self._errors, os.fdopen(read, "rb"))
            try:
                child = _noticed(stdio_client(self._parameters, errlog=errlog), gone)
                async with Client(
                    child,
                    read_timeout_seconds=CALL_TIMEOUT,
                    message_handler=on_message,
                    client_info=INFO,
                ) as client:
                    yield client
            finally:
                reading.close()

    def words(self, error: str) -> str:
        """What it wrote last, or the error if it was silent."""
        return self._errors.last or error


class Remote:
    """An MCP server at a URL.

    Args:
        url: Where it speaks MCP over streamable HTTP.
        headers: A folder with a file for each header, named as the header; or None.
    """

    is_child = False

    def __init__(self, url: str, headers: Path | None) -> None:
        self.name = url.partition("?")[0]
        self._url = url
        self._headers = _Headers(headers) if headers else None
        self._guard = _Guard()

    @asynccontextmanager
    async def connect(
        self,
        on_message: MessageHandlerFnT,
        gone: Gone,  # noqa: ARG002 - the end of a server without a connection is not seen
    ) -> AsyncIterator[Client]:
        """Connect."""
        limits = httpx2.Timeout(CALL_TIMEOUT, connect=REACH_TIMEOUT)
        self._guard = _Guard()
        async with (
            httpx2.AsyncClient(transport=self._guard, timeout=limits, auth=self._headers) as http,
            Client(
                streamable_http_client(discovery.locate(self._url), http_client=http),
                read_timeout_seconds=CALL_TIMEOUT,
                message_handler=on_message,
                client_info=INFO,
            ) as client,
        ):
            yield client

    def words(self, error: str) -> str:
        """What HTTP said, or the error: the SDK makes "an error response" of them all."""
        return self._guard.said or error


class _Errors(asyncio.Protocol):
    """Passes a child's standard error on, and keeps its end."""

    def __init__(self) -> None:
        self._tail = b""

    def data_received(self, data: bytes) -> None:
        sys.stderr.buffer.write(data)
        sys.stderr.buffer.flush()
        self._tail = (self._tail + data)[-4 * MAX_WORDS :]

    @property
    def last(self) -> str:
        lines = self._tail.decode(errors="replace").split("\n")
        return next((" ".join(x.split()) for x in reversed(lines) if x.strip()), "")[:MAX_WORDS]


@asynccontextmanager
async def _noticed(transport: Any, gone: Gone) -> AsyncIterator[Any]:
    """The transport, whose end is noticed even while nobody asks anything."""
    async with transport as (read, write):
        send, receive = anyio.create_memory_object_stream[Any](0)

        async def relay() -> None:
            with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                async with send:
                    async for message in read:
                        await send.send(message)
            gone()

        async with anyio.create_task_group() as group, receive:
            group.start_soon(relay)
            yield receive, write
            group.cancel_scope.cancel()


class _Headers(httpx2.Auth):
    """Adds the headers that stand in a folder's files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response]:
        for file in self._folder.iterdir():
            if not file.name.startswith("."):  # a mounted volume's own
                request.headers[file.name] = file.read_text(encoding="utf-8").strip()
        yield request


class _Guard(httpx2.AsyncBaseTransport):
    """Turns a failure of the transport into a response, which the SDK knows how to take.

    Without it a refused connection tears the whole client down (python-sdk issue 3560). That the
    server has forgotten the session is marked: what it refused for that has not been done.
    """

    def __init__(self) -> None:
        self.said = ""
        self._inner = httpx2.AsyncHTTPTransport(
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=20)
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        for name, value in request.headers.items():
            if not value.isprintable():  # h11 would quote it, and it is a secret
                self.said = f"the value of header {name} is not one line of text"
                return _error(request, 503, self.said)
        try:
            response = await self._inner.handle_async_request(request)
        except httpx2.TransportError as error:
            self.said = f"it cannot be reached: {str(error) or type(error).__name__}"
            return _error(request, 503, self.said)
        status = response.status_code
        if status == 404 and request.method == "POST" and "mcp-session-id" in request.headers:
            await response.aclose()
            return _error(request, 404, "it has forgotten the session", FORGOTTEN)
        refused = status in (401, 403) or status >= 500
        self.said = f"it answers {status} {httpx2.codes.get_reason_phrase(status)}" * refused
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


def _error(
    request: httpx2.Request, status: int, message: str, mark: str | None = None
) -> httpx2.Response:
    error = {"code": types.INTERNAL_ERROR, "message": message, "data": mark}
    body = {"jsonrpc": "2.0", "id": None, "error": error}
    return httpx2.Response(status, json=body, request=request)
