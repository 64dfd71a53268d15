"""One exchange with the API server: a small protocol, and aiohttp behind it.

Guarantees: a watch has a connection of its own; other requests share a bounded pool; every request
has a deadline; a 429 or 5xx answer is tried again within it, after Retry-After, when that is safe;
a 401 is tried once more with renewed credentials. Nothing a request meets (403, 401, reset) ever
closes the connection of a running watch. A write that is under way when its task is cancelled still
runs to its answer, so a reconcile is never left wondering whether its write happened.
Does not: know kinds or objects. Answers that say no are returned, not raised.
Which failures taught it: httpx gets slower the more requests are in flight and hangs for ever on
the 101st connection; one 403 made kr8s close the pool under all of its watches.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from time import time
from typing import Protocol
from urllib.parse import urlencode, urlsplit

import aiohttp
import anyio

from kaos.runtime.config import ClusterConfig
from kaos.runtime.errors import Unreachable
from kaos.runtime.metrics import Metrics

JSON = "application/json"
_POOL = 64
_RETRIES = 5
_RECONNECTS = 3
_LONGEST_WAIT = 30.0
_READ_BUFFER = 1 << 18
_CONNECT_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """What to ask.

    Attributes:
        timeout: Seconds for all attempts together; of a stream: until its headers are there.
        idempotent: Whether asking twice does no more than asking once.
    """

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    content_type: str = JSON
    accept: str = JSON
    timeout: float = 30.0
    idempotent: bool = False

    def __str__(self) -> str:
        if "watch" in self.params:
            return f"WATCH {self.path}"
        return f"{self.method} {self.path}" + (f"?{urlencode(self.params)}" if self.params else "")


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A complete answer."""

    status: int
    body: bytes
    retry_after: float | None = None


class Stream(Protocol):
    """An answer whose body is still coming."""

    @property
    def status(self) -> int:
        """The HTTP status."""
        ...

    @property
    def retry_after(self) -> float | None:
        """The Retry-After header in seconds."""
        ...

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives; raises Unreachable when the connection breaks."""
        ...

    async def read(self) -> bytes:
        """All of the body: for answers that say no."""
        ...


class Transport(Protocol):
    """What the library needs of HTTP. Raises Unreachable when there is no answer."""

    async def request(self, request: HttpRequest) -> HttpResponse:
        """One exchange, without any retry."""
        ...

    def stream(self, request: HttpRequest) -> AbstractAsyncContextManager[Stream]:
        """A streamed answer on a connection of its own."""
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...


async def send(
    transport: Transport, request: HttpRequest, *, check: Callable[[], None] | None = None
) -> HttpResponse:
    """A request with retries: of 429 always (it was not processed), of 5xx and breaks when safe.

    Args:
        transport: How to send it.
        request: What to ask.
        check: Called before each attempt; raises to refuse. Between two attempts a process may
            have been frozen, and lost its lease.
    """
    deadline = asyncio.get_running_loop().time() + request.timeout
    delay = 0.1
    for attempt in range(_RETRIES + 1):
        answer: HttpResponse | None = None
        broken: Unreachable | None = None
        if check is not None:
            check()
        try:
            with anyio.CancelScope(shield=request.method != "GET"):
                answer = await transport.request(request)
        except Unreachable as error:
            broken = error
        wait = min(delay * (1 + random.random()), _LONGEST_WAIT)  # noqa: S311 - jitter
        if answer is not None:
            # A 504 may carry "too large resource version", which only the asker can judge.
            again = answer.status == 429 or (
                request.idempotent and answer.status >= 500 and answer.status != 504
            )
            if not again:
                return answer
            wait = max(wait, answer.retry_after or 0.0)
        out_of_time = asyncio.get_running_loop().time() + wait > deadline
        tries = _RETRIES if broken is None else _RECONNECTS if request.idempotent else 0
        if attempt >= tries or out_of_time:
            if answer is None:
                raise broken or Unreachable(str(request), "no answer")
            return answer
        await asyncio.sleep(wait)
        delay *= 2
    raise AssertionError


class AiohttpTransport:
    """HTTP/1.1 by aiohttp: one pool for requests, and one connection per stream beside it."""

    def __init__(self, config: ClusterConfig, metrics: Metrics | None = None) -> None:
        self._config = config
        self._metrics = metrics
        self._host = urlsplit(config.server).netloc
        self._pool: aiohttp.ClientSession | None = None
        self._streams: aiohttp.ClientSession | None = None

    async def request(self, request: HttpRequest) -> HttpResponse:
        """See `Transport`."""
        if self._pool is None:
            self._pool = self._session(aiohttp.TCPConnector(limit=_POOL, keepalive_timeout=75))
        loop = asyncio.get_running_loop()
        started = loop.time()
        token = await self._config.credentials.token()
        try:
            async with asyncio.timeout(request.timeout):
                response = await self._exchange(self._pool, request, token)
                if response.status == 401 and await self._config.credentials.refresh(token):
                    token = await self._config.credentials.token()
                    response = await self._exchange(self._pool, request, token)
        except TimeoutError as error:
            self._count(request, "deadline")
            raise Unreachable(str(request), f"no answer in {request.timeout:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            self._count(request, "error")
            raise Unreachable(str(request), str(error) or type(error).__name__) from error
        self._count(request, str(response.status), loop.time() - started)
        return response

    @asynccontextmanager
    async def stream(self, request: HttpRequest) -> AsyncIterator[Stream]:
        """See `Transport`."""
        if self._streams is None:
            connector = aiohttp.TCPConnector(limit=0, force_close=True)
            self._streams = self._session(connector)
        token = await self._config.credentials.token()
        try:
            async with asyncio.timeout(request.timeout):
                response = await self._open(self._streams, request, token)
                if response.status == 401 and await self._config.credentials.refresh(token):
                    response.close()
                    token = await self._config.credentials.token()
                    response = await self._open(self._streams, request, token)
        except TimeoutError as error:
            self._count(request, "deadline")
            raise Unreachable(str(request), f"no answer in {request.timeout:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            self._count(request, "error")
            raise Unreachable(str(request), str(error) or type(error).__name__) from error
        self._count(request, str(response.status))
        try:
            yield _AiohttpStream(response, request)
        finally:
            # The rest of a watch is never read. Without abort, TLS would wait in the background for
            # a goodbye that a silent server never says.
            connection = response.connection
            if connection is not None and connection.transport is not None:
                connection.transport.abort()
            response.close()

    async def close(self) -> None:
        """See `Transport`."""
        for session in (self._pool, self._streams):
            if session is not None:
                await session.close()
        self._pool = self._streams = None

    def _session(self, connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            # Servers compress lists above 128 KiB when asked; that costs both sides more than it
            # saves inside a cluster.
            headers={"Accept-Encoding": "identity", "User-Agent": "kaos-runtime"},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT),
            read_bufsize=_READ_BUFFER,
            auto_decompress=True,
        )

    async def _exchange(
        self, session: aiohttp.ClientSession, request: HttpRequest, token: str
    ) -> HttpResponse:
        response = await self._open(session, request, token)
        async with response:
            body = await response.read()
        return HttpResponse(response.status, body, _retry_after(response))

    async def _open(
        self, session: aiohttp.ClientSession, request: HttpRequest, token: str
    ) -> aiohttp.ClientResponse:
        headers = {"Accept": request.accept}
        if request.body is not None:
            headers["Content-Type"] = request.content_type
        if token:
            headers["Authorization"] = f"Bearer {token}"
        config = self._config
        return await session.request(
            request.method,
            config.server + request.path,
            params=request.params or None,
            data=request.body,
            headers=headers,
            ssl=config.credentials.tls or True,
            server_hostname=config.tls_server_name or None,
            proxy=config.proxy or None,
            allow_redirects=False,
        )

    def _count(self, request: HttpRequest, code: str, seconds: float | None = None) -> None:
        if self._metrics is not None:
            self._metrics.requests.labels(code, request.method, self._host).inc()
            if seconds is not None:
                self._metrics.request_duration.labels(request.method, self._host).observe(seconds)


class _AiohttpStream:
    def __init__(self, response: aiohttp.ClientResponse, request: HttpRequest) -> None:
        self._response = response
        self._request = request

    @property
    def status(self) -> int:
        return self._response.status

    @property
    def retry_after(self) -> float | None:
        return _retry_after(self._response)

    async def chunks(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._response.content.iter_any():
                yield chunk
        except (aiohttp.ClientError, OSError) as error:
            reason = str(error) or type(error).__name__
            raise Unreachable(str(self._request), reason) from error

    async def read(self) -> bytes:
        return b"".join([chunk async for chunk in self.chunks()])


def _retry_after(response: aiohttp.ClientResponse) -> float | None:
    found = response.headers.get("Retry-After")
    if found is None:
        return None
    if found.isdecimal():
        return float(found)
    try:
        return max(0.0, parsedate_to_datetime(found).timestamp() - time())
    except ValueError:
        return None
