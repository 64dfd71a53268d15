"""Server-sent events to one caller, and the caller's going away.

Guarantees: the response starts with the first event, so that a failure before it can still
have an HTTP status of its own; while nothing happens a comment goes out every few seconds, for
gateways that cut idle connections; a caller that hangs up cancels the work for it, down to
the model and the tools; a failure after the start is an error event and then the end.

Events that come at once go out at once: what arrived together from a fast model is one write
here, because a write costs many times what an event does. Nothing is held back for it; the
writer runs as soon as whoever fills the stream waits for anything.

Does not: resume a stream.
"""

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

from starlette.types import Receive, Send

from kaos.agent.errors import AgentError
from kaos.agent.openai import sse

T = TypeVar("T")

KEEP_ALIVE = 15.0
_DONE = b"data: [DONE]\n\n"
_COMMENT = b": keep-alive\n\n"
_FULL = 64 * 1024


class ClientGone(Exception):  # noqa: N818 - what happened, not an error of ours
    """The caller closed the connection; nobody is left to answer."""


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Do `work` for as long as the caller waits for it.

    The request's body must have been read.

    Raises:
        ClientGone: The caller hung up, and the work has been cancelled.
    """
    working = asyncio.create_task(work)
    watching = asyncio.create_task(_disconnected(receive))
    both: list[asyncio.Task[Any]] = [working, watching]
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone
        return working.result()
    finally:
        for task in both:
            task.cancel()
        await asyncio.gather(*both, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream:
    """The stream of events of one response.

    Args:
        send: The ASGI send of the request.
        headers: The response's own headers.
    """

    def __init__(self, send: Send, headers: dict[str, str]) -> None:
        self.started = False
        self.ended = False
        self._send = send
        self._headers = headers
        self._lock = asyncio.Lock()
        self._pending: list[bytes] = []
        self._size = 0
        self._head_sent = False
        self._wake = asyncio.Event()
        self._last = asyncio.get_running_loop().time()

    async def send(self, event: bytes) -> None:
        """Send one event, after the response's start if it is the first."""
        self.started = True
        self._pending.append(event)
        self._size += len(event)
        if self._size > _FULL:
            await self._flush()
        else:
            self._wake.set()

    async def done(self) -> None:
        """End the stream."""
        await self.send(_DONE)
        await self._flush()
        self.ended = True  # from here on a disconnect is the server closing what is complete
        await self._send({"type": "http.response.body", "body": b""})

    async def fail(self, error: AgentError) -> None:
        """End the stream with an error."""
        await self.send(sse(error.body()))
        await self._flush()
        self.ended = True
        await self._send({"type": "http.response.body", "body": b""})

    async def kept_alive(self, work: Awaitable[T]) -> T:
        """Wait for `work`, write what it sends, and send comments while it says nothing."""
        helpers = [asyncio.create_task(self._beat()), asyncio.create_task(self._write())]
        try:
            return await work
        finally:
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            await self._flush()

    async def _flush(self) -> None:
        async with self._lock:
            self._wake.clear()
            body = b"".join(self._pending)
            if not body:
                return
            self._pending.clear()
            self._size = 0
            self._last = asyncio.get_running_loop().time()
            if not self._head_sent:
                self._head_sent = True
                await self._send(
                    {"type": "http.response.start", "status": 200, "headers": self._raw_headers()}
                )
            await self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            wait = self._last + KEEP_ALIVE - loop.time()
            if wait > 0:
                await asyncio.sleep(wait)
            else:
                await self.send(_COMMENT)

    def _raw_headers(self) -> list[tuple[bytes, bytes]]:
        headers = {
            "content-type": "text/event-stream; charset=utf-8",
            "cache-control": "no-cache",
            "x-accel-buffering": "no",  # nginx would hold the stream back
            **self._headers,
        }
        return [
            (name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()
        ]
