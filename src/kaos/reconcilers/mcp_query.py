"""Asking an MCP server which tools it has: streamable HTTP, either era of the protocol.

A request of 2026-07-28 comes first, for it needs no session; a server that has no answer to it gets
the handshake of 2025-11-25, and its session is ended afterwards.

Guarantees: ends within DEADLINE, and a second for the end of a session; what is read is bounded,
and the work that it makes, whatever the server sends and in whatever pieces; redirects are not
followed, so the controller goes nowhere that it was not told of.

Why not the MCP SDK: it would add a fifth to the controller's memory, for one question.
"""

import asyncio
import json
import os
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from socket import SOCK_STREAM
from typing import Any, Final
from urllib.parse import urlsplit

import h11

from kaos import __version__
from kaos.runtime import RuntimeFailure

DEADLINE: Final = 10.0
MODERN, LEGACY = "2026-07-28", "2025-11-25"
_LONGEST_ANSWER: Final = 1 << 20
_MOST_PAGES, _MOST_TOOLS = 50, 500  # an agent uses no more of one server either
_LONGEST_NAME: Final = 128
_LONGEST_REASON: Final = 200
_READ: Final = 1 << 14  # as much is worked on before others have their turn
_GOODBYE: Final = 1.0
_NAT64: Final = IPv6Network("64:ff9b::/96")
_V4_IN_V6: Final = IPv6Network("::/96")
_CLIENT: Final = {"name": "kaos-controller", "version": __version__}
_META: Final = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientInfo": _CLIENT,
    "io.modelcontextprotocol/clientCapabilities": {},
}

Json = dict[str, Any]


class CannotAsk(RuntimeFailure):
    """The server's tools could not be learned; the text says why."""


class _NoAnswer(CannotAsk):
    """The server is there, and does not understand."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a POST was answered.

    Attributes:
        status: of HTTP.
        headers: by lower-case name.
        message: the JSON-RPC response, if one came.
    """

    status: int
    headers: Mapping[str, str]
    message: Json = field(default_factory=dict)

    def result(self) -> Json:
        """What was asked for; raises _NoAnswer."""
        if isinstance(found := self.message.get("result"), dict):
            return found
        if isinstance(error := self.message.get("error"), dict):
            raise _NoAnswer(f"it answers: {_short(error.get('message'))}")
        if self.status in (401, 403):
            raise _NoAnswer(f"it asks for credentials ({self.status})")
        raise _NoAnswer(f"it does not answer as an MCP server does ({self.status})")


async def list_tools(url: str, *, public: bool = False) -> list[str]:
    """The names of a server's tools, sorted.

    Args:
        url: where it speaks MCP.
        public: whether to ask nobody but public addresses. For URLs that somebody may have chosen
            in order to learn by us what he cannot reach himself.

    Raises:
        CannotAsk: it could not be reached, or gave no list.
    """
    try:
        endpoint = _Endpoint(url, public)
        async with asyncio.timeout(DEADLINE):
            try:
                return await _pages(endpoint, {"mcp-protocol-version": MODERN}, {"_meta": _META})
            except _NoAnswer:
                return await _in_a_session(endpoint)
    except TimeoutError as error:
        raise CannotAsk(f"no answer in {DEADLINE:g} s") from error
    except h11.RemoteProtocolError as error:
        raise CannotAsk(f"no answer of HTTP: {_short(error)}") from error
    except (ValueError, h11.LocalProtocolError) as error:
        raise CannotAsk(f"its URL cannot be used: {_short(error)}") from error
    except OSError as error:
        # Of a refused connection asyncio says the address alone.
        known = isinstance(error, ConnectionError) and error.errno
        raise CannotAsk(_short(os.strerror(known) if known else error.strerror or error)) from error


async def _in_a_session(endpoint: "_Endpoint") -> list[str]:
    about = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": _CLIENT}
    opened = await endpoint.ask("initialize", about, {})
    headers = {"mcp-protocol-version": str(opened.result().get("protocolVersion", LEGACY))}
    session = opened.headers.get("mcp-session-id")
    if session:
        headers["mcp-session-id"] = session
    try:
        await endpoint.tell("notifications/initialized", headers)
        return await _pages(endpoint, headers, {})
    finally:
        # Who takes too long is left alone: its session ends by itself, too.
        if session and not _cancelled():
            with suppress(OSError, h11.RemoteProtocolError, CannotAsk):
                async with asyncio.timeout(_GOODBYE):
                    await endpoint.send("DELETE", headers)


def _cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _pages(endpoint: "_Endpoint", headers: Mapping[str, str], params: Json) -> list[str]:
    names: set[str] = set()
    cursor: Any = None
    for _ in range(_MOST_PAGES):
        page = params if cursor is None else {**params, "cursor": cursor}
        found = (await endpoint.ask("tools/list", page, headers)).result()
        tools = found.get("tools")
        if not isinstance(tools, list):
            raise _NoAnswer("its list of tools is none")
        names.update(tool["name"][:_LONGEST_NAME] for tool in tools if _named(tool))
        cursor = found.get("nextCursor")
        if not cursor or len(names) >= _MOST_TOOLS:
            break
    return sorted(names)[:_MOST_TOOLS]


class _Endpoint:
    """A URL that is spoken to: one connection for each message, so none is kept for minutes."""

    def __init__(self, url: str, public: bool) -> None:
        parts = urlsplit(url)
        self._secure = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self._secure else 80)
        self._authority = parts.netloc.rpartition("@")[2]
        self._target = (parts.path or "/mcp") + (f"?{parts.query}" if parts.query else "")
        self._public = public

    async def ask(self, method: str, params: Json, headers: Mapping[str, str]) -> _Answer:
        """A request, and its response."""
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        return await self.send("POST", {**headers, "mcp-method": method}, message)

    async def tell(self, method: str, headers: Mapping[str, str]) -> None:
        """A notification."""
        await self.send("POST", headers, {"jsonrpc": "2.0", "method": method})

    async def send(
        self, verb: str, headers: Mapping[str, str], message: Json | None = None
    ) -> _Answer:
        """Send one message, and read what it is answered."""
        body = json.dumps(message).encode() if message else b""
        head = {
            "host": self._authority,
            "user-agent": f"kaos-controller/{__version__}",
            "accept": "application/json, text/event-stream",
            "connection": "close",
            "content-length": str(len(body)),
            **headers,
        }
        if message:
            head["content-type"] = "application/json"
        http = h11.Connection(h11.CLIENT)
        async with self._connected() as (reader, writer):
            events = (
                h11.Request(method=verb, target=self._target, headers=list(head.items())),
                h11.Data(body),
                h11.EndOfMessage(),
            )
            writer.writelines([http.send(event) or b"" for event in events])
            while not isinstance(response := await _next(http, reader), h11.Response):
                pass  # 100 to 199: it is still at work
            found = {name.decode(): value.decode("latin-1") for name, value in response.headers}
            kind = found.get("content-type", "").partition(";")[0].strip().lower()
            if kind == "text/event-stream":
                return _Answer(response.status_code, found, await _streamed(http, reader))
            if kind == "application/json":
                return _Answer(response.status_code, found, await _whole(http, reader))
            return _Answer(response.status_code, found)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(self._host, self._port, type=SOCK_STREAM)
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        if self._public:
            inside = [address for address in addresses if not _is_public(address)]
            if inside:
                raise CannotAsk(f"{self._host} is inside ({inside[0]}), where nobody asks for it")
        # By address, so that the one which was looked at is the one that is spoken to.
        for last, address in zip([*[False] * (len(addresses) - 1), True], addresses, strict=True):
            try:
                reader, writer = await asyncio.open_connection(
                    address,
                    self._port,
                    ssl=_tls() if self._secure else None,
                    server_hostname=self._host if self._secure else None,
                )
                break
            except OSError:
                if last:
                    raise
        try:
            yield reader, writer
        finally:
            writer.transport.abort()  # nothing is left to say, and nobody to wait for


async def _whole(http: h11.Connection, reader: asyncio.StreamReader) -> Json:
    body = bytearray()
    while isinstance(event := await _next(http, reader), h11.Data):
        body += event.data
        _check(len(body))
    return _message(bytes(body))


async def _streamed(http: h11.Connection, reader: asyncio.StreamReader) -> Json:
    """The response among the events of a stream; requests and notifications may come before it."""
    line, data, count = bytearray(), bytearray(), 0
    while isinstance(event := await _next(http, reader), h11.Data):
        count += len(event.data)
        _check(count)
        for number, piece in enumerate(event.data.split(b"\n")):
            if number:  # the piece before it was the end of a line
                ended = bytes(line.strip(b"\r"))
                line.clear()
                if ended.startswith(b"data:"):
                    data += ended[5:].strip()
                elif not ended and data:
                    message = _message(bytes(data))
                    if "result" in message or "error" in message:
                        return message
                    data.clear()
            line += piece
    return {}


async def _next(http: h11.Connection, reader: asyncio.StreamReader) -> Any:
    while (event := http.next_event()) is h11.NEED_DATA:
        http.receive_data(await reader.read(_READ))
        await asyncio.sleep(0)  # what is there already is read without waiting
    return event


def _check(count: int) -> None:
    if count > _LONGEST_ANSWER:
        raise CannotAsk(f"its answer is longer than {_LONGEST_ANSWER} bytes")


def _message(data: bytes) -> Json:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _named(tool: object) -> bool:
    name = tool.get("name") if isinstance(tool, dict) else None
    return isinstance(name, str) and name.isprintable()


def _is_public(address: str) -> bool:
    """Whether an address is everybody's, also the one that a translator would make of it."""
    found = ip_address(address.partition("%")[0])
    if isinstance(found, IPv6Address):
        if found in _V4_IN_V6 or found.teredo:
            return False
        inner = found.ipv4_mapped or found.sixtofour
        if found in _NAT64:
            inner = IPv4Address(int(found) & 0xFFFFFFFF)
        found = inner or found
    return found.is_global and not found.is_multicast


def _short(text: object) -> str:
    """Somebody else's words, fit for a line of a status."""
    printable = "".join(c if c.isprintable() else " " for c in str(text)[:_LONGEST_REASON])
    return printable or "no reason given"


@lru_cache(1)
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()
