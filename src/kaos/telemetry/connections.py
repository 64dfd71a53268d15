"""Hypercorn's connections, without one defect of 0.18 and without some of its work.

A client that resets its connection, as one does that closes it without having read all of the
answer, or that closes it while its request is being read, left it behind: nobody stopped the wait
for a next request, and socket, tasks and memory (7 KB) were held for the whole keep-alive time.
At 75 s of it, a hundred such callers a second are more open files than a process may have.
Found by the soak test (tests/load).

Hypercorn begins that wait anew after each request and cancels it at the next: two tasks, which
were 7 % of the processor time of a request to an agent. Here each connection has one wait, which
looks at the clock when it is over.
"""

import asyncio
from typing import Any

from hypercorn.asyncio import run
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.events import Event, Updated


class Connection(TCPServer):
    """A connection that is closed when nobody has used it for the keep-alive time."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._idle_since: float | None = self.loop.time()

    async def protocol_send(self, event: Event) -> None:
        """Send, or take note of what the protocol says."""
        if isinstance(event, Updated):
            self._idle_since = self.loop.time() if event.idle else None
        else:
            await super().protocol_send(event)

    async def _read_data(self) -> None:
        try:
            await super()._read_data()
        finally:
            await self.idle_task.stop()

    async def _idle_timeout(self) -> None:
        """Close the connection when it was idle for too long, or the server stops."""
        while (left := self._idle_left()) > 0:
            try:
                async with asyncio.timeout(left):
                    await self.context.terminated.wait()
            except TimeoutError:
                continue
            if self._idle_since is None:
                return  # the protocol closes it after the answer
            break
        await asyncio.shield(self._initiate_server_close())

    def _idle_left(self) -> float:
        now = self.loop.time()
        since = now if self._idle_since is None else self._idle_since
        return since + self.config.keep_alive_timeout - now


def install() -> None:
    """Make hypercorn use them."""
    run.TCPServer = Connection  # type: ignore[attr-defined,assignment]
