"""Serving: the one function that puts an ASGI app on a port.

Guarantees: the socket is bound before anything is awaited, so a port that is taken is one
clear `ListenError`; on SIGTERM or SIGINT every answer says that it is its connection's last (a
client that sent its next request on a connection we were just closing lost it), new connections
are refused after the drain, requests in flight get `grace` seconds to end, then are cancelled (a
stream's handler sees `CancelledError` and may say goodbye), the app's lifespan is closed, and
`serve` returns.

Does not: TLS, several workers, or limits on bodies (see `kaos.telemetry.http`).

The server is hypercorn, behind this function so that another can take its place. What its
defaults taught: 3 s of grace cuts model streams, 5 s of keep-alive races with every gateway,
and from Python 3.12 on its own grace is not honoured at all, because asyncio's
`Server.wait_closed` then waits for every connection. Hence the grace here is our own. HTTP/2 and
WebSockets are loaded when somebody first speaks them: most processes never need their 1.5 MB.
"""
# ruff: noqa: E402 - the stand-in must be there before hypercorn is

import asyncio
import contextlib
import importlib
import logging
import os
import signal
import socket
import sys
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

_LATER = {"hypercorn.protocol.h2": "H2Protocol", "hypercorn.protocol.ws_stream": "WSStream"}


class _StandIn(types.ModuleType):
    """Stands for one of hypercorn's protocols until the first connection that is of it."""

    def __init__(self, module: str, name: str) -> None:
        super().__init__(module)

        def make(*args: Any) -> Any:
            if sys.modules.get(module) is self:
                del sys.modules[module]
            return getattr(importlib.import_module(module), name)(*args)

        setattr(self, name, make)


for _module, _name in _LATER.items():
    sys.modules.setdefault(_module, _StandIn(_module, _name))

from hypercorn.asyncio import serve as hypercorn_serve
from hypercorn.config import Config, Sockets
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kaos.telemetry import connections

connections.install()

GRACE = 25.0  # below the 30 s after which Kubernetes kills a pod
KEEP_ALIVE = 75.0  # above the idle time of the gateways in front of us
DRAIN_VARIABLE = "KAOS_DRAIN"
_LAST_WORDS = 2.0  # for a cancelled handler to end its stream
_BACKLOG = 1024


class ListenError(OSError):
    """It cannot be served as asked: the address, as a rule, is malformed, taken, or not ours."""


async def serve(
    app: ASGIApp,
    *,
    listen: str = "127.0.0.1:8000",
    grace: float = GRACE,
    drain: float | None = None,
    stop: asyncio.Event | None = None,
    on_listening: Callable[[str], object] | None = None,
) -> None:
    """Serve `app` until told to stop.

    Args:
        app: Any ASGI app; its lifespan is run.
        listen: `host:port`; port 0 takes a free one, `[::1]:8000` is IPv6.
        grace: Seconds for the requests in flight once told to stop.
        drain: Seconds to go on as if nothing were said, before that: on a cluster the news that
            a pod ends takes a moment to reach those who send it requests. Default: `KAOS_DRAIN`,
            else 0.
        stop: Ends serving when set. Without it SIGTERM and SIGINT do.
        on_listening: Called once with the base URL, as soon as the socket accepts connections.

    Raises:
        ListenError: The address cannot be listened on, or `KAOS_DRAIN` is no number.
    """
    pause = _drain() if drain is None else drain
    sock = _bind(listen)
    told = stop or asyncio.Event()
    stopping = asyncio.Event()
    requests = _InFlight(app, told)
    config = _Config(sock)
    config.graceful_timeout = grace + _LAST_WORDS
    try:
        with _signals(told) if stop is None else contextlib.nullcontext():
            if on_listening is not None:
                on_listening(_url(sock))
            end = asyncio.create_task(_end(told, pause, stopping, requests, grace))
            try:
                # Hypercorn names its parameter more narrowly than ASGI does.
                application: Any = requests
                await hypercorn_serve(application, config, shutdown_trigger=stopping.wait)
            finally:
                end.cancel()
                await asyncio.wait([end])
    finally:
        sock.close()


@contextlib.asynccontextmanager
async def running(
    app: ASGIApp, *, listen: str = "127.0.0.1:0", grace: float = 0.5
) -> AsyncIterator[str]:
    """Serve `app` inside this process for the length of a block; yields its base URL.

    For tests and for processes that serve more than one app.
    """
    stop = asyncio.Event()
    url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    server = asyncio.create_task(
        serve(app, listen=listen, grace=grace, stop=stop, on_listening=url.set_result)
    )
    either: list[asyncio.Future[Any]] = [server, url]
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    try:
        if url.done():
            yield url.result()
    finally:
        stop.set()
        await server


class _Config(Config):
    """Hypercorn's settings, with a socket of ours."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__()
        self._sock = sock
        self.keep_alive_timeout = KEEP_ALIVE
        self.keep_alive_max_requests = 1_000_000
        self.include_server_header = False
        self.backlog = _BACKLOG
        self.accesslog = None
        # Given as a logger, so that it gets no handler of its own.
        self.errorlog = logging.getLogger("hypercorn.error")

    def create_sockets(self) -> Sockets:
        return Sockets(secure_sockets=[], insecure_sockets=[self._sock], quic_sockets=[])


class _InFlight:
    """The app, with a list of the requests it is busy with."""

    def __init__(self, app: ASGIApp, told: asyncio.Event) -> None:
        self._app = app
        self._told = told
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        if scope["type"] == "lifespan" or task is None:
            await self._lifespan(scope, receive, send)
            return
        self._tasks.add(task)
        try:
            await self._app(scope, receive, self._closing(scope, send))
        finally:
            self._tasks.discard(task)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Say that the app has ended when it has: hypercorn cancels what it does after that."""
        last: Message | None = None

        async def sending(message: Message) -> None:
            nonlocal last
            if message["type"] == "lifespan.shutdown.complete":
                last = message
            else:
                await send(message)

        await self._app(scope, receive, sending)
        if last is not None:
            await send(last)

    def _closing(self, scope: Scope, send: Send) -> Send:
        """Return `send`, which says `connection: close` once we were told to stop."""
        if scope["type"] != "http" or scope["http_version"] == "2":
            return send

        def sending(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start" and self._told.is_set():
                headers = [h for h in message.get("headers", ()) if h[0] != b"connection"]
                message = {**message, "headers": [*headers, (b"connection", b"close")]}
            return send(message)

        return sending

    def cancel(self) -> None:
        """End what is still under way."""
        for task in list(self._tasks):
            task.cancel("the server is shutting down")


async def _end(
    told: asyncio.Event, drain: float, stopping: asyncio.Event, requests: _InFlight, grace: float
) -> None:
    """The order of the end: told, drained, no new connections, no requests."""
    await told.wait()
    await asyncio.sleep(drain)
    stopping.set()
    await asyncio.sleep(grace)
    requests.cancel()


@contextlib.contextmanager
def _signals(stopping: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    caught = (signal.SIGTERM, signal.SIGINT)
    for number in caught:
        loop.add_signal_handler(number, stopping.set)
    try:
        yield
    finally:
        for number in caught:
            loop.remove_signal_handler(number)


def _drain() -> float:
    text = os.environ.get(DRAIN_VARIABLE, "").strip() or "0"
    try:
        return float(text)
    except ValueError as error:
        message = f"{DRAIN_VARIABLE} is {text!r}: it must be a number of seconds"
        raise ListenError(message) from error


def _bind(listen: str) -> socket.socket:
    host, separator, port = listen.rpartition(":")
    if not separator or not port.isdecimal() or int(port) > 65535:
        raise ListenError(f"cannot listen on {listen!r}: it must be host:port")
    host = host.strip("[]") or "127.0.0.1"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.bind((host, int(port)))
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise ListenError(f"cannot listen on {listen}: {error.strerror or error}") from error
    return sock


def _url(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
