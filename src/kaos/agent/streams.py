"""Server-sent events to one caller, and the caller's going away.

Guarantees: the response starts with the first event, so that a failure before it can still
have an HTTP status of its own; while nothing happens a comment goes out every few seconds, for
gateways that cut idle connections; a caller that hangs up cancels the work for it, down to
the model and the tools; a failure after the start is an error event and then the end.

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
        self._last = asyncio.get_running_loop().time()

    async def send(self, event: bytes) -> None:
        """Send one event, after the response's start if it is the first."""
        async with self._lock:
            if not self.started:
                self.started = True
                await self._send(
                    {"type": "http.response.start", "status": 200, "headers": self._raw_headers()}
                )
            self._last = asyncio.get_running_loop().time()
            await self._send({"type": "http.response.body", "body": event, "more_body": True})

    async def done(self) -> None:
        """End the stream."""
        await self.send(_DONE)
        self.ended = True  # from here on a disconnect is the server closing what is complete
        await self._send({"type": "http.response.body", "body": b""})

    async def fail(self, error: AgentError) -> None:
        """End the stream with an error."""
        await self.send(sse(error.body()))
        self.ended = True
        await self._send({"type": "http.response.body", "body": b""})

    async def kept_alive(self, work: Awaitable[T]) -> T:
        """Wait for `work`, and send comments while it says nothing."""
        beat = asyncio.create_task(self._beat())
        try:
            return await work
        finally:
            beat.cancel()
            await asyncio.gather(beat, return_exceptions=True)

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
