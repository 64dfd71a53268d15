"""A TCP relay: one listening port, many possible ends.

Guarantees: bytes both ways with back-pressure (a slow reader slows the sender down, nothing is
gathered in memory), half-closed connections are passed on, and an end that cannot be reached is
passed over for the next one. A connection that nobody can take is reset, which a client sees at
once as a failed connection and not as an empty answer.

Does not: look into the bytes, or end connections that live when the ends change: those belong to
the pod, and end with it.

What a client sends before its other end is connected is kept. Not reading until then is not enough:
early Pythons (3.11.2 is Debian's) begin to read after `connection_made` although it said to pause,
and what came was lost: a request that nobody answered, until the client's timeout.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable, Sequence

Choose = Callable[[], Sequence[int]]
"""The host ports to try for a new connection, in order."""

_CONNECT_SECONDS = 2.0
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 seconds: close by a reset


class Relay:
    """Listens on 127.0.0.1 and relays each connection to one of the chosen ports."""

    def __init__(self, port: int, choose: Choose) -> None:
        self.port = port
        self._choose = choose
        self._server: asyncio.Server | None = None
        self._dials: set[asyncio.Task[None]] = set()
        self._sides: set[_Side] = set()

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: The port is taken.
        """
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Side(self._sides, self._accepted), "127.0.0.1", self.port
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening and end all connections."""
        if self._server is not None:
            self._server.close()
        for task in self._dials:
            task.cancel()
        for side in list(self._sides):
            side.abort()
        await asyncio.gather(*self._dials, return_exceptions=True)
        await asyncio.sleep(0)  # an aborted transport is closed in the loop's next round

    def _accepted(self, client: "_Side") -> None:
        task = asyncio.get_running_loop().create_task(self._dial(client))
        self._dials.add(task)
        task.add_done_callback(self._dials.discard)

    async def _dial(self, client: "_Side") -> None:
        loop = asyncio.get_running_loop()
        for port in self._choose():
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(_CONNECT_SECONDS):
                    _, pod = await loop.create_connection(
                        lambda: _Side(self._sides), "127.0.0.1", port
                    )
                client.join(pod)
                return
        client.reset()


class _Side(asyncio.Protocol):
    """One side of a relayed connection; what it receives goes to its peer."""

    def __init__(
        self, sides: "set[_Side]", accepted: "Callable[[_Side], None] | None" = None
    ) -> None:
        self._sides = sides
        self._accepted = accepted
        self.peer: _Side | None = None
        self.transport: asyncio.Transport | None = None
        self.lost = False
        self.early = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101
        self.transport = transport
        self._sides.add(self)
        transport.pause_reading()  # until there is a peer to write to
        if self._accepted is not None:
            self._accepted(self)

    def join(self, peer: "_Side") -> None:
        """Connect two sides, and let the bytes flow."""
        self.peer, peer.peer = peer, self
        for side, other in ((self, peer), (peer, self)):
            if side.early and other.transport is not None:
                other.transport.write(bytes(side.early))
                side.early.clear()
            if side.lost:
                other.abort()
            elif side.transport is not None:
                side.transport.resume_reading()

    def reset(self) -> None:
        """End the connection in a way that the other end sees as an error."""
        if self.transport is None:
            return
        if (raw := self.transport.get_extra_info("socket")) is not None:
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()

    def abort(self) -> None:
        """End the connection now."""
        if self.transport is not None:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        if self.peer is None:
            self.early += data
            if self.transport is not None:  # paused already, in name: now it holds
                self.transport.resume_reading()
                self.transport.pause_reading()
        elif self.peer.transport is not None:
            self.peer.transport.write(data)

    def eof_received(self) -> bool:
        if self.peer is None:
            return True  # told again when reading resumes
        peer = self.peer.transport
        if peer is None or peer.is_closing():
            return False
        peer.write_eof()
        return True  # the other direction may go on

    def pause_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._sides.discard(self)
        if self.peer is not None and self.peer.transport is not None:
            # What is on its way still arrives, unless this end broke off.
            if exc is None:
                self.peer.transport.close()
            else:
                self.peer.reset()
