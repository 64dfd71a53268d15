"""HTTP/1.1 as a client of one API server needs it: an answer's parser, and one connection.

Guarantees: an answer is framed as RFC 9112 says (Content-Length, chunked, or until the close), in
whatever pieces it arrives; one that is cut short, contradicts itself or has an endless head is
`BadAnswer`, never a short body; a connection whose exchange did not end well is closed, never used
again. What a stream has not read yet is bounded: the connection stops reading from its socket.
Does not: pool, retry, or know of deadlines (`transport` does); speak HTTP/2; decompress (we ask for
`identity`); follow redirects.
Why not a client library: with aiohttp a reconcile that writes took a fifth to a third more time;
httpx gets slower the more requests are in flight. See docs/decisions/0012.
"""

import asyncio
import re
import socket
import ssl
from collections.abc import Mapping
from typing import Final, cast

_LONGEST_HEAD: Final = 1 << 16
_LONGEST_CHUNK_LINE: Final = 1 << 12
_UNREAD: Final = 1 << 20
_CHUNK_LINE = r"([0-9a-fA-F]{1,15})[ \t]*(?:;[^\r\n]*)?\r\n"
_FIRST_CHUNK = re.compile(_CHUNK_LINE.encode())
_NEXT_CHUNK = re.compile(b"\r\n" + _CHUNK_LINE.encode())
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9]\d\d)(?: [^\r\n]*)?")
_UNTIL_CLOSE: Final = -1
_CHUNKED: Final = -2


class BadAnswer(ConnectionError):  # noqa: N818
    """What came is no HTTP answer, or not all of one."""


class Parser:
    """One answer, in pieces; no I/O.

    Attributes:
        status: The status, 0 while the head is not complete.
        headers: The head's fields by lower-case name.
        done: Whether the answer is complete.
        reusable: Whether the connection may be used again, once the answer is complete.
    """

    def __init__(self, *, tunnel: bool = False) -> None:
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self.done = False
        self.reusable = False
        self._tunnel = tunnel
        self._rest = b""
        self._left = 0
        self._framing = 0
        self._chunk = _FIRST_CHUNK
        self._trailers = False

    def feed(self, data: bytes) -> bytes:
        """What these bytes add to the body; raises BadAnswer."""
        if self.done:
            raise BadAnswer("more came than was asked for")
        if self._rest:
            data, self._rest = self._rest + data, b""
        if not self.status:
            return self._head(data)
        return self._body(data)

    def end(self, reset: Exception | None = None) -> None:
        """The connection was closed, or reset; raises BadAnswer unless that ends the answer."""
        if reset is None and self.status and self._framing == _UNTIL_CLOSE:
            self.done = True
        elif not self.done:
            closed = "the server closed the connection"
            raise BadAnswer(closed if reset is None else str(reset) or type(reset).__name__)

    def _head(self, data: bytes) -> bytes:
        end = data.find(b"\r\n\r\n")
        if end < 0 or end > _LONGEST_HEAD:
            if len(data) > _LONGEST_HEAD:
                raise BadAnswer("the head of the answer does not end")
            self._rest = data
            return b""
        first, *lines = data[:end].split(b"\r\n")
        line = _STATUS_LINE.fullmatch(first)
        if line is None:
            raise BadAnswer("the answer is not HTTP/1.1")
        data = data[end + 4 :]
        status = int(line[2])
        if 100 <= status < 200:  # a server may say that it is still at work
            return self._head(data)
        self.status = status
        headers = self.headers = _fields(lines)
        self.reusable = line[1] == b"1" and "close" not in headers.get("connection", "").lower()
        self._framing = self._left = self._frame(status, headers)
        return self._body(data)

    def _frame(self, status: int, headers: Mapping[str, str]) -> int:
        if status in (204, 304) or (self._tunnel and status < 300):
            return 0
        if headers.get("content-encoding", "identity") != "identity":
            raise BadAnswer(f"the answer is in {headers['content-encoding']}, which nobody asked")
        coding = headers.get("transfer-encoding")
        if coding is not None:
            if coding.lower() != "chunked":
                raise BadAnswer(f"the answer is in an unknown coding: {coding}")
            return _CHUNKED
        length = headers.get("content-length")
        if length is None:
            self.reusable = False
            return _UNTIL_CLOSE
        if not (length.isascii() and length.isdecimal()) or len(length) > 15:
            raise BadAnswer(f"the answer has no length: {length}")
        return int(length)

    def _body(self, data: bytes) -> bytes:
        if self._framing == _CHUNKED:
            return self._chunks(data)
        if self._framing == _UNTIL_CLOSE:
            return data
        self._left -= len(data)
        if self._left < 0:
            raise BadAnswer("more came than was asked for")
        self.done = not self._left
        return data

    def _chunks(self, data: bytes) -> bytes:
        parts: list[bytes] = []
        position, end = 0, len(data)
        left = max(self._left, 0)
        while True:
            if left:
                part = data[position : position + left]
                parts.append(part)
                position += len(part)
                left -= len(part)
            if position == end or self._trailers:
                break
            line = self._chunk.match(data, position)
            if line is None:
                if data.find(b"\n", position + 2) >= 0:
                    raise BadAnswer("the framing of the answer is broken")
                self._wait_for_more(data[position:], _LONGEST_CHUNK_LINE)
                break
            position = line.end()
            self._chunk = _NEXT_CHUNK
            left = int(line[1], 16)
            self._trailers = not left
        self._left = left
        if self._trailers:
            self._after_chunks(data[position:])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _after_chunks(self, data: bytes) -> None:
        """Fields may follow the last chunk; an empty line ends them, and us."""
        end = 2 if data.startswith(b"\r\n") else data.find(b"\r\n\r\n") + 4
        if end == 3:
            self._wait_for_more(data, _LONGEST_HEAD)
        elif end < len(data):
            raise BadAnswer("more came than was asked for")
        else:
            self.done = True

    def _wait_for_more(self, rest: bytes, limit: int) -> None:
        if len(rest) > limit:
            raise BadAnswer("a line of the answer does not end")
        self._rest = rest


def _fields(lines: list[bytes]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.decode("latin-1").partition(":")
        if not colon or not name or name[-1] in " \t" or name[0] in " \t":
            raise BadAnswer("the head of the answer is broken")
        name, value = name.lower(), value.strip(" \t")
        if name == "content-length" and fields.get(name, value) != value:
            raise BadAnswer("the answer has two lengths")
        fields[name] = value
    return fields


class Connection(asyncio.Protocol):
    """One connection to a server: one exchange at a time, `send` and then what it is answered."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._parser = Parser()
        self._parser.done = True  # nothing was asked, so nothing may come
        self._parts: list[bytes] = []
        self._unread = 0
        self._whole = False
        self._paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._failure: ConnectionError | None = None
        self.idle_since = 0.0
        self.tls: ssl.SSLContext | None = None

    @property
    def reusable(self) -> bool:
        """Whether another exchange may follow on this connection."""
        parser = self._parser
        return parser.done and parser.reusable and not self._transport.is_closing()

    def send(self, message: bytes, *, tunnel: bool = False) -> None:
        """Begin an exchange; `tunnel` for a CONNECT, whose answer has no body."""
        self._parser = Parser(tunnel=tunnel)
        self._transport.write(message)

    async def head(self) -> Parser:
        """Wait for the head of the answer."""
        while not self._parser.status:
            await self._more(whole=False)
        return self._parser

    async def body(self) -> bytes:
        """Wait for the rest of the body, all of it."""
        while not self._parser.done:
            await self._more(whole=True)
        return self._take()

    async def chunk(self) -> bytes:
        """Wait for the next part of the body; b"" at its end."""
        while not self._parts:
            if self._parser.done:
                return b""
            await self._more(whole=False)
        return self._take()

    async def start_tls(self, tls: ssl.SSLContext, server_name: str) -> None:
        """Speak TLS from here on."""
        name = server_name
        changed = await self._loop.start_tls(self._transport, self, tls, server_hostname=name)
        self._transport = cast("asyncio.Transport", changed)

    def abort(self) -> None:
        """Close at once. A goodbye in TLS would wait for a silent server's."""
        self._transport.abort()

    def _take(self) -> bytes:
        parts, self._parts, self._unread = self._parts, [], 0
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _more(self, *, whole: bool) -> None:
        if self._failure is not None:
            raise self._failure
        self._whole = whole
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, failure: ConnectionError) -> None:
        self._failure = self._failure or failure
        self._transport.abort()
        self._wake()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        # uvloop's are none of asyncio's classes.
        self._transport = cast("asyncio.Transport", transport)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family != getattr(socket, "AF_UNIX", None):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        parser = self._parser
        try:
            body = parser.feed(data)
        except BadAnswer as error:
            self._fail(error)
            return
        if body:
            self._parts.append(body)
            self._unread += len(body)
            if self._unread > _UNREAD and not self._whole and not self._paused:
                self._paused = True
                self._transport.pause_reading()
        if parser.done or not self._whole:
            self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        try:
            self._parser.end(exc)
        except BadAnswer as error:
            self._failure = self._failure or error
        self._wake()
