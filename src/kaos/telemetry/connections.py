"""Hypercorn's connections, without one defect of 0.18.

A client that resets its connection, as one does that closes it without having read all of the
answer, or that closes it while its request is being read, left it behind: nobody stopped the wait
for a next request, and socket, tasks and memory (7 KB) were held for the whole keep-alive time.
At 75 s of it, a hundred such callers a second are more open files than a process may have.
Found by the soak test (tests/load).
"""

from typing import Any

from hypercorn.asyncio import run
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.events import Event, Updated


class Connection(TCPServer):
    """A connection that waits for another request only while somebody can send one."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._gone = False

    async def protocol_send(self, event: Event) -> None:
        """Send, or take note of what the protocol says."""
        if not (self._gone and isinstance(event, Updated) and event.idle):
            await super().protocol_send(event)

    async def _read_data(self) -> None:
        try:
            await super()._read_data()
        finally:
            self._gone = True
            await self.idle_task.stop()


def install() -> None:
    """Make hypercorn use them."""
    run.TCPServer = Connection  # type: ignore[attr-defined,assignment]
