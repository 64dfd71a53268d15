"""`Transport` over HTTP/1.1: one bounded pool for requests, and a connection per stream beside it.

Guarantees: a watch has a connection of its own, and nothing another request meets (403, 401, reset)
ever closes it; every request ends at its deadline, connecting and waiting for a free connection
included, and an urgent one waits for none; a 401 is tried once more with renewed credentials; a
read that met a connection which the server was just closing is sent again on a new one; an exchange
that is cancelled closes its connection, and one without an answer those that idled meanwhile.
Proxies of a kubeconfig (``http://``) are gone through, by CONNECT for ``https``. A server with
several addresses is reached while one of them answers.
Does not: retry otherwise (`transport.send` does), or read proxies from the environment.
"""

import asyncio
import base64
import re
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from email.utils import parsedate_to_datetime
from functools import lru_cache
from time import time
from typing import Final
from urllib.parse import SplitResult, unquote, urlencode, urlsplit

from aiohappyeyeballs import start_connection

from kaos.runtime.config import ClusterConfig, Login
from kaos.runtime.errors import RuntimeFailure, Unreachable
from kaos.runtime.http1 import BadAnswer, Connection, Parser
from kaos.runtime.metrics import Metrics
from kaos.runtime.transport import HttpRequest, HttpResponse, Stream

_LIMIT: Final = 64
_KEPT_IDLE: Final = 75.0
_CONNECT_TIMEOUT: Final = 10.0
_NEXT_ADDRESS_AFTER: Final = 0.25
_PRINTABLE: Final = re.compile(r"[!-~]*")


class HttpTransport:
    """Connections to one API server; see the module."""

    def __init__(self, config: ClusterConfig, metrics: Metrics | None = None) -> None:
        self._config = config
        self._metrics = metrics
        server = _split(config.server)
        self._host = server.netloc.rpartition("@")[2]
        self._address = (
            server.hostname or "",
            server.port or (443 if server.scheme == "https" else 80),
        )
        self._secure = server.scheme == "https"
        self._fixed = (
            f" HTTP/1.1\r\nHost: {self._host}\r\nUser-Agent: kaos-runtime\r\n"
            # Servers compress lists above 128 KiB when asked; that costs both sides more than it
            # saves inside a cluster.
            "Accept-Encoding: identity\r\n"
        )
        self._prefix = server.path
        self._via = _Proxy(config.proxy) if config.proxy else None
        if self._via is not None and not self._secure:
            self._prefix = f"http://{self._host}{server.path}"
        self._free = asyncio.Semaphore(_LIMIT)
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()

    async def request(self, request: HttpRequest) -> HttpResponse:
        """See `Transport`."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            turn = nullcontext() if request.urgent else self._free
            async with asyncio.timeout(request.timeout), turn:
                login = await self._config.credentials.current()
                response = await self._exchange(request, login)
                if response.status == 401 and await self._config.credentials.refresh(login):
                    login = await self._config.credentials.current()
                    response = await self._exchange(request, login)
        except (TimeoutError, OSError) as error:
            if isinstance(error, TimeoutError):
                self._forget(started)
            raise self._unreachable(request, error) from error
        self._count(request, str(response.status), loop.time() - started)
        return response

    @asynccontextmanager
    async def stream(self, request: HttpRequest) -> AsyncIterator[Stream]:
        """See `Transport`."""
        connection: Connection | None = None
        try:
            try:
                async with asyncio.timeout(request.timeout):
                    login = await self._config.credentials.current()
                    connection = await self._connect(login)
                    connection.send(self._message(request, login.token))
                    head = await connection.head()
                    if head.status == 401 and await self._config.credentials.refresh(login):
                        self._drop(connection)
                        login = await self._config.credentials.current()
                        connection = await self._connect(login)
                        connection.send(self._message(request, login.token))
                        head = await connection.head()
            except (TimeoutError, OSError) as error:
                raise self._unreachable(request, error) from error
            self._count(request, str(head.status))
            yield _Body(connection, head, request)
        finally:
            if connection is not None:
                self._drop(connection)  # the rest of a watch is never read

    async def close(self) -> None:
        """See `Transport`."""
        self._idle.clear()
        for connection in self._open:
            connection.abort()
        self._open.clear()
        await asyncio.sleep(0)  # the loop closes their sockets in its next turn

    async def _exchange(self, request: HttpRequest, login: Login) -> HttpResponse:
        connection = self._reuse(login)
        if connection is not None:
            try:
                return await self._ask(connection, request, login.token)
            except BadAnswer:
                # The server may have closed it while our message was on the way.
                if request.method != "GET" and not request.idempotent:
                    raise
        return await self._ask(await self._connect(login), request, login.token)

    async def _ask(self, connection: Connection, request: HttpRequest, token: str) -> HttpResponse:
        try:
            if request.check is not None:
                request.check()
            connection.send(self._message(request, token))
            body = await connection.body()
            head = await connection.head()
        except BaseException:
            self._drop(connection)
            raise
        if connection.reusable:
            connection.idle_since = asyncio.get_running_loop().time()
            self._idle.append(connection)
        else:
            self._drop(connection)
        return HttpResponse(head.status, body, _retry_after(head))

    def _reuse(self, login: Login) -> Connection | None:
        oldest = asyncio.get_running_loop().time() - _KEPT_IDLE
        while self._idle:
            connection = self._idle.pop()
            # Another login may have another certificate, which is shown once a connection.
            same = connection.tls is login.tls
            if same and connection.reusable and connection.idle_since > oldest:
                return connection
            self._drop(connection)
        return None

    def _forget(self, since: float) -> None:
        """Close what idles since then: where one gets no answer, these would get none either."""
        for connection in [c for c in self._idle if c.idle_since < since]:
            self._idle.remove(connection)
            self._drop(connection)

    def _drop(self, connection: Connection) -> None:
        self._open.discard(connection)
        connection.abort()

    async def _connect(self, login: Login) -> Connection:
        loop = asyncio.get_running_loop()
        host, port = self._address
        tls = (login.tls or _default_tls()) if self._secure else None
        name = self._config.tls_server_name or host
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT):
                if self._via is not None:
                    connection = await self._connect_via(self._via, tls, name)
                else:
                    sock = await _dial(host, port)
                    server_name = name if self._secure else None
                    _, connection = await loop.create_connection(
                        Connection, sock=sock, ssl=tls, server_hostname=server_name
                    )
        except TimeoutError as error:
            reason = f"no connection to {self._host} in {_CONNECT_TIMEOUT:g} s"
            raise TimeoutError(reason) from error
        except OSError as error:
            raise ConnectionError(f"cannot connect to {self._host}: {error}") from error
        connection.tls = login.tls
        self._open.add(connection)
        return connection

    async def _connect_via(
        self, proxy: "_Proxy", tls: ssl.SSLContext | None, name: str
    ) -> Connection:
        loop = asyncio.get_running_loop()
        sock = await _dial(*proxy.address)
        _, connection = await loop.create_connection(Connection, sock=sock)
        try:
            if tls is not None:
                await proxy.tunnel(connection, *self._address)
                await connection.start_tls(tls, name)
        except BaseException:
            connection.abort()
            raise
        return connection

    def _message(self, request: HttpRequest, token: str) -> bytes:
        target = self._prefix + request.path
        if request.params:
            target = f"{target}?{_query(tuple(request.params.items()))}"
        if not _PRINTABLE.fullmatch(target) or not _PRINTABLE.fullmatch(token):
            raise ValueError(f"{request}: no space or control character may be in path or token")
        head = f"{request.method} {target}{self._fixed}Accept: {request.accept}\r\n"
        if token:
            head += f"Authorization: Bearer {token}\r\n"
        if self._via is not None and not self._secure:
            head += self._via.authorization
        body = request.body
        if body is None:
            return f"{head}\r\n".encode("ascii")
        head += f"Content-Type: {request.content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode("ascii") + body

    def _unreachable(self, request: HttpRequest, error: Exception) -> Unreachable:
        late = isinstance(error, TimeoutError)
        self._count(request, "deadline" if late else "error")
        reason = str(error) or type(error).__name__
        if late and not str(error):
            reason = f"no answer in {request.timeout:.3g} s"
        return Unreachable(str(request), reason)

    def _count(self, request: HttpRequest, code: str, seconds: float | None = None) -> None:
        if self._metrics is not None:
            self._metrics.requests.labels(code, request.method, self._host).inc()
            if seconds is not None:
                self._metrics.request_duration.labels(request.method, self._host).observe(seconds)


class _Body:
    """`Stream` over a connection."""

    def __init__(self, connection: Connection, head: Parser, request: HttpRequest) -> None:
        self._connection = connection
        self._request = request
        self.status = head.status
        self.retry_after = _retry_after(head)

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        try:
            while chunk := await self._connection.chunk():
                yield chunk
        except OSError as error:
            reason = str(error) or type(error).__name__
            raise Unreachable(str(self._request), reason) from error

    async def read(self) -> bytes:
        return b"".join([chunk async for chunk in self.chunks()])


class _Proxy:
    """A proxy of a kubeconfig."""

    def __init__(self, url: str) -> None:
        found = urlsplit(url)
        if found.scheme != "http" or not found.hostname:
            where = f"{found.scheme}://{found.hostname}"
            raise RuntimeFailure(f"the proxy {where} of the kubeconfig: only http:// is supported")
        self.address = found.hostname, found.port or 80
        self.authorization = ""
        if found.username:
            user = f"{unquote(found.username)}:{unquote(found.password or '')}"
            coded = base64.b64encode(user.encode()).decode()
            self.authorization = f"Proxy-Authorization: Basic {coded}\r\n"

    async def tunnel(self, connection: Connection, host: str, port: int) -> None:
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        head = f"CONNECT {where} HTTP/1.1\r\nHost: {where}\r\n{self.authorization}\r\n"
        connection.send(head.encode("ascii"), tunnel=True)
        status = (await connection.head()).status
        if status >= 300:
            raise BadAnswer("the proxy {}:{} answered {}".format(*self.address, status))


def _split(server: str) -> SplitResult:
    """The parts of a server's URL; RuntimeFailure when it is none: a slip in a kubeconfig."""
    try:
        found = urlsplit(server)
        well = found.scheme in ("http", "https") and found.port != 0
        if well and (found.hostname or "").encode("idna"):
            return found
        why = "expected http(s)://host:port"
    except ValueError as error:
        why = str(error)
    where = server.rpartition("@")[2]
    raise RuntimeFailure(f"{where!r} is no address of an API server: {why}")


async def _dial(host: str, port: int) -> socket.socket:
    """A socket to whichever of the host's addresses answers first; others may be dead."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return await start_connection(found, happy_eyeballs_delay=_NEXT_ADDRESS_AFTER)


@lru_cache(1)
def _default_tls() -> ssl.SSLContext:
    return ssl.create_default_context()


@lru_cache(64)
def _query(params: tuple[tuple[str, str], ...]) -> str:
    return urlencode(params)


def _retry_after(head: Parser) -> float | None:
    found = head.headers.get("retry-after")
    if found is None:
        return None
    if found.isdecimal():
        return float(found)
    try:
        return max(0.0, parsedate_to_datetime(found).timestamp() - time())
    except ValueError:
        return None
