"""One end of a SPDY/3.1 connection, without I/O.

kubectl speaks SPDY inside a WebSocket when it forwards a port, so an API server
has to speak it too, although the rest of the world has left it behind.

Guarantees: bytes in give typed events out, and however the bytes are cut into
pieces the events are the same; a header block is unpacked even when its stream is
refused (there is one zlib context per direction, so one block left out would spoil
all later ones); sizes of frames, header blocks and the number of open streams are
bounded; what breaks the protocol raises ``ProtocolError``, after which the
connection can only be closed.

Does not: keep flow-control windows. The library behind kubectl and the kubelet
neither sends WINDOW_UPDATE nor waits for it, and a peer that did wait would stall
against every real server as well. Server push and CREDENTIAL frames are ignored.
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Final

from kaos.local.apiserver.spdy_headers import HeaderCodec, ProtocolError

_VERSION: Final = 3
_CONTROL: Final = 0x8000
_ID_MASK: Final = 0x7FFFFFFF
_HEADER: Final = struct.Struct(">HHI")
_UINT32: Final = struct.Struct(">I")
_TWO_UINT32: Final = struct.Struct(">II")
_SYN_STREAM: Final = struct.Struct(">IIBB")


class FrameType(IntEnum):
    """Control frames that this peer knows."""

    SYN_STREAM = 1
    SYN_REPLY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PING = 6
    GOAWAY = 7
    HEADERS = 8
    WINDOW_UPDATE = 9


class Flag(IntFlag):
    """Flags of SYN_STREAM, SYN_REPLY, HEADERS and DATA."""

    FIN = 0x01
    UNIDIRECTIONAL = 0x02


class ResetStatus(IntEnum):
    """Why a stream is reset."""

    PROTOCOL_ERROR = 1
    INVALID_STREAM = 2
    REFUSED_STREAM = 3
    CANCEL = 5
    INTERNAL_ERROR = 6


class GoAwayStatus(IntEnum):
    """Why a connection ends."""

    OK = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2


@dataclass(frozen=True, slots=True)
class StreamOpened:
    """The peer opened a stream. Header names are lower-case; several values are NUL-separated."""

    stream_id: int
    headers: dict[str, str]
    fin: bool = False
    unidirectional: bool = False


@dataclass(frozen=True, slots=True)
class ReplyReceived:
    """The peer accepted a stream of ours."""

    stream_id: int
    headers: dict[str, str]
    fin: bool = False


@dataclass(frozen=True, slots=True)
class HeadersReceived:
    """More headers on an open stream."""

    stream_id: int
    headers: dict[str, str]
    fin: bool = False


@dataclass(frozen=True, slots=True)
class DataReceived:
    """One DATA frame; with ``fin`` the peer sends no more on this stream."""

    stream_id: int
    data: bytes
    fin: bool = False


@dataclass(frozen=True, slots=True)
class StreamReset:
    """The peer gave a stream up, in both directions."""

    stream_id: int
    status: int


@dataclass(frozen=True, slots=True)
class PingReceived:
    """A ping of the peer (answered already) or the answer to one of ours."""

    ping_id: int
    is_answer: bool


@dataclass(frozen=True, slots=True)
class SettingsReceived:
    """The peer's settings, by number."""

    settings: dict[int, int]


@dataclass(frozen=True, slots=True)
class WindowUpdated:
    """The peer would take more data; for information only."""

    stream_id: int
    delta: int


@dataclass(frozen=True, slots=True)
class GoneAway:
    """The peer opens no more streams and wants none."""

    last_stream_id: int
    status: int


_AboutStream = StreamOpened | ReplyReceived | HeadersReceived | DataReceived | StreamReset
Event = _AboutStream | PingReceived | SettingsReceived | WindowUpdated | GoneAway


@dataclass(slots=True)
class _Stream:
    local_open: bool = True
    remote_open: bool = True


class Connection:
    """One end of a connection.

    Args:
        client: Whether this end opens streams with odd numbers.
        max_streams: Streams of the peer that may be open at once; more are refused.
        max_frame: Longest payload of a frame that is taken.
        max_headers: Longest header block, unpacked.
    """

    def __init__(
        self,
        *,
        client: bool = False,
        max_streams: int = 1000,
        max_frame: int = 1 << 20,
        max_headers: int = 1 << 16,
    ) -> None:
        self._client = client
        self._max_streams = max_streams
        self._max_frame = max_frame
        self._in = bytearray()
        self._out = bytearray()
        self._streams: dict[int, _Stream] = {}
        self._last_remote = 0
        self._next_local = 1 if client else 2
        self._next_ping = 1 if client else 2
        self._headers = HeaderCodec(max_headers)
        self._handlers: dict[int, Callable[[int, bytes], Event | None]] = {
            FrameType.SYN_STREAM: self._on_syn_stream,
            FrameType.SYN_REPLY: self._on_syn_reply,
            FrameType.RST_STREAM: self._on_rst_stream,
            FrameType.SETTINGS: self._on_settings,
            FrameType.PING: self._on_ping,
            FrameType.GOAWAY: self._on_goaway,
            FrameType.HEADERS: self._on_headers,
            FrameType.WINDOW_UPDATE: self._on_window_update,
        }

    @property
    def pending(self) -> int:
        """Bytes that wait for ``bytes_to_send``."""
        return len(self._out)

    @property
    def open_streams(self) -> int:
        """Streams that are not closed in both directions."""
        return len(self._streams)

    def can_send(self, stream_id: int) -> bool:
        """Whether ``send_data`` on this stream would reach anybody."""
        stream = self._streams.get(stream_id)
        return stream is not None and stream.local_open

    def bytes_to_send(self) -> bytes:
        """Take what is to be written to the peer now, in order."""
        data = bytes(self._out)
        self._out.clear()
        return data

    # -- sending -----------------------------------------------------------------

    def open_stream(self, headers: Mapping[str, str], *, fin: bool = False) -> int:
        """Open a stream and return its number."""
        stream_id = self._next_local
        self._next_local += 2
        self._streams[stream_id] = _Stream(local_open=not fin)
        head = _SYN_STREAM.pack(stream_id, 0, 0, 0)
        self._control(FrameType.SYN_STREAM, head + self._headers.pack(headers), Flag.FIN * fin)
        return stream_id

    def reply(self, stream_id: int, headers: Mapping[str, str] | None = None) -> None:
        """Accept a stream that the peer opened."""
        head = _UINT32.pack(stream_id)
        self._control(FrameType.SYN_REPLY, head + self._headers.pack(headers or {}))

    def send_data(self, stream_id: int, data: bytes, *, fin: bool = False) -> None:
        """Queue data on a stream; nothing happens when the stream is closed for sending."""
        stream = self._streams.get(stream_id)
        if stream is None or not stream.local_open:
            return
        for start in range(0, len(data), self._max_frame):
            part = data[start : start + self._max_frame]
            self._out += _TWO_UINT32.pack(stream_id, len(part))
            self._out += part
        if fin:
            self._out += _TWO_UINT32.pack(stream_id, Flag.FIN << 24)
            stream.local_open = False
            self._forget_if_closed(stream_id, stream)

    def reset(self, stream_id: int, status: int = ResetStatus.CANCEL) -> None:
        """Give a stream up in both directions; nothing happens when it is closed."""
        if self._streams.pop(stream_id, None) is not None:
            self._control(FrameType.RST_STREAM, _TWO_UINT32.pack(stream_id, status))

    def ping(self) -> int:
        """Queue a ping and return its number."""
        ping_id = self._next_ping
        self._next_ping += 2
        self._control(FrameType.PING, _UINT32.pack(ping_id))
        return ping_id

    def go_away(self, status: int = GoAwayStatus.OK) -> None:
        """Tell the peer that this end takes no more streams."""
        self._control(FrameType.GOAWAY, _TWO_UINT32.pack(self._last_remote, status))

    # -- receiving ---------------------------------------------------------------

    def receive(self, data: bytes) -> list[Event]:
        """Take bytes of the peer and return the events that they complete.

        Raises:
            ProtocolError: The peer broke the protocol. Events of the same call are lost:
                the connection is over.
        """
        self._in += data
        events: list[Event] = []
        at = 0
        while len(self._in) - at >= _HEADER.size:
            first, second, tail = _HEADER.unpack_from(self._in, at)
            length = tail & 0xFFFFFF
            if length > self._max_frame:
                raise ProtocolError(f"a frame of {length} bytes (at most {self._max_frame})")
            start = at + _HEADER.size
            if len(self._in) < start + length:
                break
            payload = bytes(memoryview(self._in)[start : start + length])
            at = start + length
            event = self._frame(first, second, tail >> 24, payload)
            if event is not None:
                events.append(event)
        del self._in[:at]
        return events

    def _frame(self, first: int, second: int, flags: int, payload: bytes) -> Event | None:
        if not first & _CONTROL:
            return self._on_data((first << 16) | second, flags, payload)
        if first & ~_CONTROL != _VERSION:
            raise ProtocolError(f"SPDY version {first & ~_CONTROL} (only 3 is spoken here)")
        handler = self._handlers.get(second)
        if handler is None:
            return None  # the protocol says: ignore control frames that you do not know
        try:
            return handler(flags, payload)
        except struct.error as error:
            raise ProtocolError(f"a {FrameType(second).name} frame is too short") from error

    def _on_data(self, stream_id: int, flags: int, payload: bytes) -> Event | None:
        stream = self._streams.get(stream_id)
        if stream is None and self._never_opened(stream_id):
            raise ProtocolError(f"data on stream {stream_id}, which was never opened")
        if stream is None or not stream.remote_open:
            return None  # was on its way while this end gave the stream up
        fin = self._note_fin(stream_id, flags)
        return DataReceived(stream_id, payload, fin)

    def _on_syn_stream(self, flags: int, payload: bytes) -> Event | None:
        stream_id = _SYN_STREAM.unpack_from(payload)[0] & _ID_MASK
        headers = self._headers.unpack(payload[_SYN_STREAM.size :])
        if stream_id % 2 == int(self._client) or stream_id <= self._last_remote:
            raise ProtocolError(f"stream number {stream_id} after {self._last_remote}")
        self._last_remote = stream_id
        if len(self._streams) >= self._max_streams:
            status = ResetStatus.REFUSED_STREAM
            self._control(FrameType.RST_STREAM, _TWO_UINT32.pack(stream_id, status))
            return None
        unidirectional = bool(flags & Flag.UNIDIRECTIONAL)
        self._streams[stream_id] = _Stream(local_open=not unidirectional)
        fin = self._note_fin(stream_id, flags)
        return StreamOpened(stream_id, headers, fin, unidirectional)

    def _on_syn_reply(self, flags: int, payload: bytes) -> Event | None:
        stream_id, headers = self._header_frame(payload)
        if stream_id not in self._streams:
            return None
        return ReplyReceived(stream_id, headers, self._note_fin(stream_id, flags))

    def _on_headers(self, flags: int, payload: bytes) -> Event | None:
        stream_id, headers = self._header_frame(payload)
        if stream_id not in self._streams:
            return None
        return HeadersReceived(stream_id, headers, self._note_fin(stream_id, flags))

    def _on_rst_stream(self, _flags: int, payload: bytes) -> Event | None:
        stream_id, status = _TWO_UINT32.unpack_from(payload)
        if self._streams.pop(stream_id, None) is None:
            return None
        return StreamReset(stream_id, status)

    def _on_settings(self, _flags: int, payload: bytes) -> Event | None:
        (count,) = _UINT32.unpack_from(payload)
        if len(payload) != _UINT32.size + count * _TWO_UINT32.size:
            raise ProtocolError("a SETTINGS frame whose length and count differ")
        pairs = _TWO_UINT32.iter_unpack(payload[_UINT32.size :])
        return SettingsReceived({number & 0xFFFFFF: value for number, value in pairs})

    def _on_ping(self, _flags: int, payload: bytes) -> Event | None:
        (ping_id,) = _UINT32.unpack_from(payload)
        is_answer = ping_id % 2 == int(self._client)
        if not is_answer:
            self._control(FrameType.PING, _UINT32.pack(ping_id))
        return PingReceived(ping_id, is_answer)

    def _on_goaway(self, _flags: int, payload: bytes) -> Event | None:
        return GoneAway(*_TWO_UINT32.unpack_from(payload))

    def _on_window_update(self, _flags: int, payload: bytes) -> Event | None:
        stream_id, delta = _TWO_UINT32.unpack_from(payload)
        return WindowUpdated(stream_id & _ID_MASK, delta & _ID_MASK)

    # -- helpers -----------------------------------------------------------------

    def _never_opened(self, stream_id: int) -> bool:
        mine = stream_id % 2 == int(self._client)
        return stream_id == 0 or stream_id >= (self._next_local if mine else self._last_remote + 1)

    def _note_fin(self, stream_id: int, flags: int) -> bool:
        fin = bool(flags & Flag.FIN)
        stream = self._streams[stream_id]
        if fin:
            stream.remote_open = False
            self._forget_if_closed(stream_id, stream)
        return fin

    def _forget_if_closed(self, stream_id: int, stream: _Stream) -> None:
        if not stream.local_open and not stream.remote_open:
            del self._streams[stream_id]

    def _control(self, kind: FrameType, payload: bytes, flags: int = 0) -> None:
        self._out += _HEADER.pack(_CONTROL | _VERSION, kind, flags << 24 | len(payload))
        self._out += payload

    def _header_frame(self, payload: bytes) -> tuple[int, dict[str, str]]:
        stream_id = _UINT32.unpack_from(payload)[0] & _ID_MASK
        return stream_id, self._headers.unpack(payload[_UINT32.size :])
