"""The embedded API server without a socket, so that a test with a virtual clock can use it.

Guarantees: the same server, called as an ASGI application in this event loop: nothing waits for
I/O, so a virtual clock may jump over every pause.
Does not: TLS, retries after lost connections, timeouts of connections: there are none to lose. For
those there is a server on a port, with a `FaultProxy` before it.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

from starlette.types import ASGIApp, Message

from kaos.local.apiserver import APIServer
from kaos.runtime import ClusterConfig, Unreachable
from kaos.runtime.transport import HttpRequest, HttpResponse, Stream

CONFIG = ClusterConfig.direct("http://in-process")
"""For a `Manager`, which wants one; its `transport` is what is used."""


@asynccontextmanager
async def in_process(server: APIServer | None = None) -> AsyncIterator["InProcess"]:
    """A transport to an API server in this event loop.

    Args:
        server: The server; default: a new, empty one. It must not ask for a token.
    """
    server = server or APIServer()
    async with server.running():
        yield InProcess(server.app)


class InProcess:
    """A `Transport` that calls an ASGI application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def request(self, request: HttpRequest) -> HttpResponse:
        """See `Transport`."""
        try:
            async with asyncio.timeout(request.timeout), self.stream(request) as stream:
                return HttpResponse(stream.status, await stream.read(), stream.retry_after)
        except TimeoutError as error:
            raise Unreachable(str(request), f"no answer in {request.timeout:.3g} s") from error

    @asynccontextmanager
    async def stream(self, request: HttpRequest) -> AsyncIterator[Stream]:
        """See `Transport`."""
        call = _Call(request)
        task = asyncio.create_task(call.run(self._app))
        try:
            await call.answered(task)
            yield call
        finally:
            call.gone.set()
            task.cancel()
            await asyncio.wait((task,))

    async def close(self) -> None:
        """See `Transport`; there is nothing to close."""


class _Call:
    """One request to the application, and its answer as it comes."""

    def __init__(self, request: HttpRequest) -> None:
        self.status = 0
        self.retry_after: float | None = None
        self.gone = asyncio.Event()
        self._request = request
        self._asked = False
        self._failure: Exception | None = None
        self._started = asyncio.Event()
        self._chunks: asyncio.Queue[bytes | None] = asyncio.Queue(64)

    async def run(self, app: ASGIApp) -> None:
        asked = self._request
        headers = {"accept": asked.accept}
        if asked.body is not None:
            headers |= {"content-type": asked.content_type, "content-length": str(len(asked.body))}
        scope: MutableMapping[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": asked.method,
            "scheme": "http",
            "path": asked.path,
            "raw_path": asked.path.encode(),
            "root_path": "",
            "query_string": urlencode(asked.params).encode(),
            "headers": [(k.encode(), v.encode()) for k, v in headers.items()],
            "client": ("127.0.0.1", 0),
            "server": ("127.0.0.1", 80),
        }
        try:
            await app(scope, self._receive, self._send)
        except Exception as error:
            self._failure = error
            if not self.status:
                raise
            await self._chunks.put(None)
        finally:
            self._started.set()

    async def answered(self, task: "asyncio.Task[None]") -> None:
        """Wait for the status; an application that failed before it raises here."""
        await self._started.wait()
        if not self.status:
            await task

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes."""
        while (chunk := await self._chunks.get()) is not None:
            yield chunk
        if self._failure is not None:
            raise Unreachable(str(self._request), f"the server failed: {self._failure!r}")

    async def read(self) -> bytes:
        """All of the body."""
        return b"".join([chunk async for chunk in self.chunks()])

    async def _receive(self) -> Message:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": self._request.body or b"", "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = {k.lower(): v for k, v in message.get("headers", ())}
            after = headers.get(b"retry-after", b"").decode()
            self.retry_after = float(after) if after.isdecimal() else None
            self._started.set()
            return
        if body := message.get("body"):
            await self._chunks.put(body)
        if not message.get("more_body"):
            await self._chunks.put(None)
