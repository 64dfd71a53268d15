"""One forwarded connection's far end: the pod's port.

Guarantees: what the client sends before the connection stands waits for it; writing
waits when the pod does not keep up, and gives up when it has read nothing at all for
``STALL_SECONDS`` (a slow reader is fine, a dead one would hold up every other
connection of the same client); nothing here outlives ``close`` but bytes on their way.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

OPEN_SECONDS: Final = 10.0
STALL_SECONDS: Final = 30.0

_READ: Final = 1 << 16
_TARGET_BUFFER: Final = 1 << 20

OpenPort = Callable[[int], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


class ForwardError(Exception):
    """One forwarded connection failed; the message is for the user."""


class Target:
    """The connection to the pod's port, and what the client sent before it stood."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._settled = asyncio.Event()
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def open(self, open_port: OpenPort) -> None:
        """Connect; afterwards ``write`` no longer waits, whether it worked or not."""
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                self._reader, self._writer = await open_port(self.port)
            self._writer.transport.set_write_buffer_limits(high=_TARGET_BUFFER)
        except TimeoutError as error:
            raise ForwardError(f"port {self.port} took longer than {OPEN_SECONDS:g} s") from error
        except (LookupError, OSError) as error:
            raise ForwardError(f"cannot connect to port {self.port}: {words(error)}") from error
        finally:
            self._settled.set()

    async def read(self) -> bytes:
        """What the pod sends next; empty when it has ended its side or is gone."""
        if self._reader is None:
            return b""
        try:
            return await self._reader.read(_READ)
        except OSError:
            return b""

    async def write(self, data: bytes, *, fin: bool = False) -> None:
        """Pass on what the client sent, once the connection stands; wait when it is full.

        Raises:
            ForwardError: The pod reads nothing any more.
        """
        await self._settled.wait()
        writer = self._writer
        if writer is None or writer.is_closing():
            return  # the reason was told when it failed
        if data:
            writer.write(data)
            await self._drain(writer)
        if fin and writer.can_write_eof():
            with contextlib.suppress(OSError):
                writer.write_eof()

    async def _drain(self, writer: asyncio.StreamWriter) -> None:
        size = writer.transport.get_write_buffer_size()
        while size > _TARGET_BUFFER and not writer.is_closing():
            try:
                async with asyncio.timeout(STALL_SECONDS):
                    await writer.drain()
            except ConnectionError:
                return  # reading tells the end of the connection, too
            except TimeoutError as error:
                now = writer.transport.get_write_buffer_size()
                if now >= size:
                    self.abort()
                    message = f"port {self.port} has read nothing for {STALL_SECONDS:g} s"
                    raise ForwardError(message) from error
            size = writer.transport.get_write_buffer_size()

    def abort(self) -> None:
        """Drop the connection at once; harmless when there is none."""
        self._settled.set()
        if self._writer is not None:
            self._writer.transport.abort()

    def close(self) -> None:
        """Close the connection after what was written has gone out."""
        self._settled.set()
        if self._writer is not None:
            self._writer.close()


def words(error: Exception) -> str:
    """The sentence of an exception; str() of a KeyError would put it in quotes."""
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
