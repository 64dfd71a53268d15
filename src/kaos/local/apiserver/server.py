"""The API server as one object: put together, started, ended.

Guarantees that ``serve`` listens when it yields, and that on its exit watches
have ended, connections are closed and what was written is on disk.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import hypercorn.asyncio
import hypercorn.config
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from kaos.local.apiserver.app import ResourceApp
from kaos.local.apiserver.auth import BearerAuth
from kaos.local.apiserver.builtin_kinds import builtin_kinds
from kaos.local.apiserver.crd import Definitions
from kaos.local.apiserver.discovery import Discovery
from kaos.local.apiserver.gc import Collector
from kaos.local.apiserver.journal import Journal
from kaos.local.apiserver.nodeproxy import NodeProxy
from kaos.local.apiserver.openapi import openapi_routes
from kaos.local.apiserver.options import WriteOptions
from kaos.local.apiserver.registry import Registry
from kaos.local.apiserver.resources import Resources
from kaos.local.apiserver.store import Store
from kaos.local.apiserver.streams import stream_routes
from kaos.local.apiserver.watch import WatchHub

_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
_STOP_SECONDS = 3.0


class APIServer:
    """A Kubernetes API server in this process.

    Args:
        database: Where objects are kept; None keeps them in memory.
        token: The bearer token to ask for; empty asks for none.
        version: The Kubernetes version to claim.
        history: How many events per kind a watch can go back at least.
    """

    def __init__(
        self,
        *,
        database: Path | None = None,
        token: str = "",
        version: str = "1.34.0",
        history: int = 4096,
    ) -> None:
        self.node: NodeProxy | None = None
        self.registry = Registry(builtin_kinds())
        self._journal = Journal(database) if database else None
        self.store = (
            self._journal.restore(history=history) if self._journal else Store(history=history)
        )
        Definitions(self.registry, self.store)
        self.resources = Resources(self.registry, self.store)
        self.hub = WatchHub(self.store)
        self._collector = Collector(self.resources)
        self._discovery = Discovery(self.registry, version=version)
        resources = ResourceApp(self.resources, self.hub, self._discovery, self._kept)
        self.app = Starlette(
            routes=[
                *(Route(path, _healthy) for path in ("/healthz", "/readyz", "/livez")),
                Route("/version", self._version),
                Route("/version/", self._version),
                *openapi_routes(self.registry, version=version),
                *stream_routes(lambda: self.node, self._pod),
                Route("/api", resources),
                Route("/api/{path:path}", resources),
                Route("/apis", resources),
                Route("/apis/{path:path}", resources),
            ]
        )
        self.app.add_middleware(BearerAuth, token=token)
        self._create_namespaces()

    def _create_namespaces(self) -> None:
        kind = self.registry.find("", "v1", "namespaces")
        for name in _NAMESPACES if kind else ():
            if kind and self.store.get(kind.bucket, "", name) is None:
                body = {"metadata": {"name": name}}
                self.resources.create(kind, "", body, WriteOptions("kube-apiserver"))

    def _pod(self, namespace: str, name: str) -> dict[str, Any] | None:
        found = self.store.get("/pods", namespace, name)
        return found.load() if found else None

    async def _version(self, _: Request) -> Response:
        return Response(self._discovery.version(), media_type="application/json")

    async def _kept(self) -> None:
        if self._journal is not None:
            await self._journal.kept()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """What works beside the requests, without a port: for callers of ``app`` itself."""
        collector = asyncio.create_task(self._collector.run(), name="garbage collection")
        try:
            yield
        finally:
            self.hub.close()
            collector.cancel()
            await asyncio.wait([collector])
            if self._journal is not None:
                await asyncio.to_thread(self._journal.close)

    @asynccontextmanager
    async def serve(
        self, host: str = "127.0.0.1", port: int = 0, *, tls: tuple[Path, Path] | None = None
    ) -> AsyncIterator[str]:
        """Listen while the context lasts; yields the server's URL.

        Args:
            host: The address to listen on.
            port: The port; 0 takes a free one.
            tls: Files of a certificate and its key; without them, plain HTTP, over which
                kubectl sends no token.
        """
        listener = socket.create_server((host, port), backlog=512)
        listener.setblocking(False)
        address, number = listener.getsockname()[:2]
        config = hypercorn.config.Config()
        config.bind = [f"fd://{listener.detach()}"]
        config.graceful_timeout = _STOP_SECONDS
        config.keep_alive_timeout = 75.0
        config.include_server_header = False
        config.accesslog = None
        config.errorlog = None
        if tls is not None:
            config.certfile, config.keyfile = (str(path) for path in tls)
            # One request a connection at a time is what watches and upgrades are written for.
            config.alpn_protocols = ["http/1.1"]
        stop = asyncio.Event()

        running = _Running(self.app)
        server = asyncio.create_task(
            hypercorn.asyncio.serve(running, config, shutdown_trigger=stop.wait),  # type: ignore[arg-type]
            name="apiserver",
        )
        async with self.running():
            try:
                yield f"{'https' if tls else 'http'}://{address}:{number}"
            finally:
                self.hub.close()
                stop.set()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(asyncio.shield(server), _STOP_SECONDS)
                running.cancel()
                await server


class _Running:
    """ASGI middleware that knows the requests under way, so that none outlives the server.

    From Python 3.12 on a server waits for its connections without a deadline.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        task = asyncio.current_task()
        if task is None or scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        self._tasks.add(task)
        try:
            await self._app(scope, receive, send)
        finally:
            self._tasks.discard(task)

    def cancel(self) -> None:
        """End what is still under way."""
        for task in self._tasks:
            task.cancel()


async def _healthy(_: Request) -> Response:
    return PlainTextResponse("ok")
