"""Port-forward: many TCP connections to a pod inside one WebSocket.

Two dialects, see ``serve``: kubectl tunnels a SPDY connection (two streams for each
forwarded connection: data, and an error stream for one sentence of text); kr8s and the
official Python client send channel bytes (two channels for each port, one connection).

Guarantees: every forwarded connection is copied both ways with half-close where the
dialect can say it; what goes wrong with one connection is told on its error stream and
ends that one only; a session is one task group and ends, with all its connections, when
the client leaves or breaks the protocol. Memory is bounded: a target that reads slowly
slows the session down and one that reads nothing loses its connection (``forward_target``),
for neither dialect has flow control of its own.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Final

from starlette.websockets import WebSocket, WebSocketDisconnect

from kaos.local.apiserver import spdy
from kaos.local.apiserver.forward_target import ForwardError, OpenPort, Target
from kaos.local.apiserver.spdy_headers import ProtocolError

SPDY_SUBPROTOCOL: Final = "SPDY/3.1+portforward.k8s.io"
CHANNEL_SUBPROTOCOL: Final = "v4.channel.k8s.io"
MAX_PORTS: Final = 127  # two channels each, and a channel is one byte

PAIR_SECONDS: Final = 30.0

_CLIENT_BUFFER: Final = 1 << 18
_CONTROL_BACKLOG: Final = 1 << 23
_NORMAL, _PROTOCOL_ERROR, _UNSUPPORTED = 1000, 1002, 1003

_log = logging.getLogger(__name__)


async def serve(websocket: WebSocket, open_port: OpenPort, ports: list[int]) -> None:
    """Accept the WebSocket and forward until the client leaves.

    Args:
        websocket: Not accepted yet.
        open_port: Connects to a port of the pod. Its ``LookupError`` and ``OSError``
            are told to the client.
        ports: The ports of the query; only the channel dialect needs them.
    """
    offered = websocket.scope.get("subprotocols", [])
    if SPDY_SUBPROTOCOL in offered:
        await websocket.accept(SPDY_SUBPROTOCOL)
        await _SpdySession(websocket, open_port).run()
    else:
        await websocket.accept(CHANNEL_SUBPROTOCOL if CHANNEL_SUBPROTOCOL in offered else None)
        await _ChannelSession(websocket, open_port, ports).run()


class _Pair:
    """The two streams of one forwarded connection."""

    def __init__(self, port: int) -> None:
        self.target = Target(port)
        self.streams: dict[str, int] = {}
        self.complete = asyncio.Event()
        self.client_done = asyncio.Event()


class _SpdySession:
    """kubectl's dialect: SPDY inside the binary messages of a WebSocket."""

    def __init__(self, websocket: WebSocket, open_port: OpenPort) -> None:
        self._websocket = websocket
        self._open_port = open_port
        self._spdy = spdy.Connection()
        self._pairs: dict[str, _Pair] = {}
        self._by_data: dict[int, _Pair] = {}
        self._to_send = asyncio.Event()
        self._room = asyncio.Event()

    async def run(self) -> None:
        code = _NORMAL
        async with asyncio.TaskGroup() as tasks:
            writer = tasks.create_task(self._write())
            forwards: set[asyncio.Task[None]] = set()
            try:
                async for message in binary_messages(self._websocket):
                    for event in self._spdy.receive(message):
                        await self._handle(event, tasks, forwards)
                    self._flush()
            except ProtocolError as error:
                _log.warning("port-forward ended: %s", error)
                code = _PROTOCOL_ERROR
            finally:
                for task in (writer, *forwards):
                    task.cancel()
        await close(self._websocket, code)

    def _flush(self) -> None:
        self._to_send.set()
        if self._spdy.pending > _CONTROL_BACKLOG:
            raise ProtocolError("the client asks for answers and reads none")

    async def _write(self) -> None:
        """The only task that sends: frames keep their order, small ones share a message."""
        while True:
            await self._to_send.wait()
            self._to_send.clear()
            while data := self._spdy.bytes_to_send():
                await send(self._websocket, data)
                self._room.set()

    async def _send_data(self, stream: int, data: bytes, *, fin: bool = False) -> None:
        while self._spdy.pending > _CLIENT_BUFFER:
            self._room.clear()
            await self._room.wait()
        self._spdy.send_data(stream, data, fin=fin)
        self._to_send.set()

    async def _handle(
        self, event: spdy.Event, tasks: asyncio.TaskGroup, forwards: set[asyncio.Task[None]]
    ) -> None:
        match event:
            case spdy.StreamOpened(stream_id, headers, fin):
                pair = self._paired(stream_id, headers)
                if pair is None:
                    self._spdy.reset(stream_id, spdy.ResetStatus.PROTOCOL_ERROR)
                    return
                self._spdy.reply(stream_id)
                if len(pair.streams) == 1:
                    task = tasks.create_task(self._forward(pair))
                    forwards.add(task)
                    task.add_done_callback(forwards.discard)
                else:
                    pair.complete.set()
                if fin and stream_id in self._by_data:
                    await self._to_target(pair, b"", fin=True)
            case spdy.DataReceived(stream_id, data, fin) if stream_id in self._by_data:
                await self._to_target(self._by_data[stream_id], data, fin=fin)
            case spdy.StreamReset(stream_id) if stream_id in self._by_data:
                pair = self._by_data[stream_id]
                pair.client_done.set()
                pair.target.abort()
            case _:
                pass

    def _paired(self, stream_id: int, headers: Mapping[str, str]) -> _Pair | None:
        """Find or make the pair that a new stream belongs to; None when it makes no sense."""
        kind, port = headers.get("streamtype"), _port(headers.get("port", ""))
        if kind not in ("data", "error") or port is None:
            return None
        # Clients before request ids existed open the error stream, then the data stream.
        request = headers.get("requestid") or f"#{stream_id - 2 * (kind == 'data')}"
        pair = self._pairs.setdefault(request, _Pair(port))
        if kind in pair.streams:
            return None
        pair.streams[kind] = stream_id
        if kind == "data":
            self._by_data[stream_id] = pair
        return pair

    async def _to_target(self, pair: _Pair, data: bytes, *, fin: bool) -> None:
        try:
            await pair.target.write(data, fin=fin)
        except ForwardError as error:
            self._tell(pair, error)
        if fin:
            pair.client_done.set()

    async def _forward(self, pair: _Pair) -> None:
        """Serve one forwarded connection from its first stream to its end."""
        try:
            async with asyncio.timeout(PAIR_SECONDS):
                await pair.complete.wait()
            await pair.target.open(self._open_port)
            while data := await pair.target.read():
                await self._send_data(pair.streams["data"], data)
            # Nothing can go wrong any more that the user has to know, and kubectl waits
            # for the end of the error stream before it lets the local connection go.
            for kind in ("data", "error"):
                await self._send_data(pair.streams[kind], b"", fin=True)
            await pair.client_done.wait()
        except ForwardError as error:
            self._tell(pair, error)
        except TimeoutError:
            _log.debug("port-forward: a stream was reset, its partner never came")
        finally:
            pair.target.close()
            self._forget(pair)

    def _tell(self, pair: _Pair, error: ForwardError) -> None:
        """Say on the error stream what is wrong; never waits, the reading task calls it."""
        for kind, text in (("error", str(error).encode()), ("data", b"")):
            self._spdy.send_data(pair.streams[kind], text, fin=True)
        pair.client_done.set()
        self._to_send.set()

    def _forget(self, pair: _Pair) -> None:
        for stream in pair.streams.values():
            self._by_data.pop(stream, None)
            self._spdy.reset(stream)
        self._pairs = {key: value for key, value in self._pairs.items() if value is not pair}
        self._to_send.set()


class _ChannelSession:
    """The dialect without SPDY: byte 2i is data of port i, byte 2i+1 its errors.

    There is no half-close in it, so the WebSocket is closed when every port has ended.
    """

    def __init__(self, websocket: WebSocket, open_port: OpenPort, ports: list[int]) -> None:
        self._websocket = websocket
        self._open_port = open_port
        self._targets = [Target(port) for port in ports]
        self._code = _NORMAL

    async def run(self) -> None:
        for index, target in enumerate(self._targets):
            for channel in (2 * index, 2 * index + 1):
                await send(self._websocket, bytes([channel]) + target.port.to_bytes(2, "little"))
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(self._read())
            copying = tasks.create_task(self._copy_all())
            await asyncio.wait((reading, copying), return_when=asyncio.FIRST_COMPLETED)
            reading.cancel()
            copying.cancel()
        await close(self._websocket, self._code)

    async def _read(self) -> None:
        try:
            async for message in binary_messages(self._websocket):
                await self._to_target(message)
        except ProtocolError as error:
            _log.warning("port-forward ended: %s", error)
            self._code = _UNSUPPORTED

    async def _copy_all(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for index, target in enumerate(self._targets):
                tasks.create_task(self._copy(index, target))

    async def _to_target(self, message: bytes) -> None:
        index, is_error = divmod(message[0], 2) if message else (0, 1)
        if is_error or index >= len(self._targets):
            return
        try:
            await self._targets[index].write(message[1:])
        except ForwardError as error:
            await self._tell(index, error)

    async def _copy(self, index: int, target: Target) -> None:
        try:
            await target.open(self._open_port)
            while data := await target.read():
                await send(self._websocket, bytes([2 * index]) + data)
        except ForwardError as error:
            await self._tell(index, error)
        finally:
            target.close()

    async def _tell(self, index: int, error: ForwardError) -> None:
        await send(self._websocket, bytes([2 * index + 1]) + str(error).encode())


async def binary_messages(websocket: WebSocket) -> AsyncIterator[bytes]:
    """The client's messages until it leaves.

    Raises:
        ProtocolError: A text message came.
    """
    while (message := await websocket.receive())["type"] == "websocket.receive":
        data = message.get("bytes")
        if data is None:
            raise ProtocolError("a text message; port-forward sends binary ones")
        yield data


async def send(websocket: WebSocket, data: bytes) -> None:
    """Send; when the client has left, the reading side ends the session, not this one."""
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        await websocket.send_bytes(data)


async def close(websocket: WebSocket, code: int) -> None:
    """Close the WebSocket; harmless when it is closed already."""
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        await websocket.close(code)


def _port(text: str) -> int | None:
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
    return number if 0 < number < 65536 else None


def parse_ports(values: list[str]) -> list[int]:
    """Read ``ports`` of the query: ``8080``, repeated or with commas.

    Raises:
        ValueError: A value is no port, or there are too many.
    """
    ports = []
    for text in ",".join(values).split(",") if values else []:
        port = _port(text.strip())
        if port is None:
            raise ValueError(f"{text!r} is not a port (1 to 65535)")
        ports.append(port)
    if len(ports) > MAX_PORTS:
        raise ValueError(f"{len(ports)} ports in one request; at most {MAX_PORTS}")
    return ports
