"""The I/O shell around `Watcher`: does what the machine says and tells it what happened.

Guarantees: never ends by itself, whatever the server does; one connection while it watches.
Does not: decide anything. Every rule is in `watcher`.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Protocol

import anyio
import anyio.lowlevel
import msgspec
import structlog

from kaos.runtime.client import Client
from kaos.runtime.codec import events_decoder
from kaos.runtime.errors import ApiError, NotFound, Unreachable, from_status
from kaos.runtime.metrics import Metrics
from kaos.runtime.resources import ResourceType
from kaos.runtime.transport import HttpRequest
from kaos.runtime.watcher import RECONNECT, Effect, ListPage, OpenWatch, Replaced, Wait, Watcher

_OPEN_TIMEOUT = 30.0
_BATCH = 200
_log = structlog.get_logger("kaos.runtime")


class Sink(Protocol):
    """Who takes the effects: the informer."""

    def effect(self, effect: Effect) -> None:
        """Something changed."""
        ...

    def failed(self, error: Exception | None) -> None:
        """The last exchange failed, or (None) went well."""
        ...


class Reflector:
    """Keeps one collection (a kind, in one namespace or all) flowing into a sink."""

    def __init__(
        self,
        client: Client,
        resource: ResourceType,
        sink: Sink,
        *,
        namespace: str = "",
        selectors: Mapping[str, str] | None = None,
        watcher: Watcher | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._client = client
        self._resource = resource
        self._namespace = namespace
        self._sink = sink
        self._selectors = dict(selectors or {})
        self._watcher = watcher or Watcher()
        self._decode = events_decoder(resource)
        self._log = _log.bind(resource=str(resource), namespace=namespace or None)
        metrics = metrics or Metrics()
        self._events = metrics.watch_events.labels(str(resource))
        self._lists = metrics.lists.labels(str(resource))
        self._failures = metrics.watch_failures.labels(str(resource))
        self._doing = anyio.CancelScope()

    def refresh(self) -> None:
        """Leave whatever is being done, also a rest after failures, and list the newest state."""
        self._watcher.on_doubt(asyncio.get_running_loop().time())
        self._doing.cancel()

    async def run(self) -> None:
        """Run until cancelled."""
        now = asyncio.get_running_loop().time
        while True:
            action = self._watcher.next_action(now())
            try:
                with anyio.CancelScope() as self._doing:
                    match action:
                        case Wait(seconds):
                            await anyio.sleep(seconds)
                        case ListPage(params):
                            await self._list(params)
                        case OpenWatch(params, idle):
                            await self._watch(params, idle)
            except (ApiError, Unreachable) as error:
                self._told(error, self._watcher.on_error(error, now()))
            except msgspec.MsgspecError as error:
                broken = Unreachable(f"list and watch of {self._resource}", f"not JSON: {error}")
                self._told(broken, self._watcher.on_error(broken, now()))

    async def _list(self, params: Mapping[str, str]) -> None:
        page = await self._client.page(
            self._resource, self._namespace, {**self._selectors, **params}
        )
        effect = self._watcher.on_page(page)
        if effect is not None:
            self._apply(effect)
            self._sink.failed(None)

    async def _watch(self, params: Mapping[str, str], idle: float) -> None:
        loop = asyncio.get_running_loop()
        request = HttpRequest(
            "GET",
            self._resource.path(self._namespace),
            {**self._selectors, **params},
            timeout=_OPEN_TIMEOUT,
        )
        async with self._client.transport.stream(request) as stream:
            if stream.status != 200:
                raise from_status(
                    stream.status,
                    await stream.read(),
                    request=str(request),
                    retry_after=stream.retry_after,
                )
            self._watcher.on_open(loop.time())
            if "sendInitialEvents" not in params:
                self._sink.failed(None)
            async with contextlib.aclosing(_lines(stream.chunks(), idle)) as lines:
                async for batch in lines:
                    if batch is None:
                        self._log.info("watch.silent", seconds=idle)
                        self._watcher.on_idle()
                        return
                    if not await self._feed(batch, loop):
                        return
        self._watcher.on_close(loop.time())

    async def _feed(self, lines: bytes, loop: asyncio.AbstractEventLoop) -> bool:
        """Give lines to the machine; False when it wants another connection."""
        now = loop.time()
        on_event, apply = self._watcher.on_event, self._apply
        count = 0
        for event in self._decode(lines):
            effect = on_event(event, now)
            if event.error is not None:
                self._told(event.error, None if effect is RECONNECT else effect)
                return False
            if effect is not None:
                apply(effect)
            count += 1
            if count % _BATCH == 0:
                # A storm must not keep the loop from the requests and workers beside it.
                await anyio.lowlevel.checkpoint()
        self._events.inc(count)
        return True

    def _apply(self, effect: Effect) -> None:
        if isinstance(effect, Replaced):
            self._lists.inc()
            self._log.debug("list.complete", objects=len(effect.objects))
            self._sink.failed(None)
        self._sink.effect(effect)

    def _told(self, error: Exception, effect: Effect | None) -> None:
        self._failures.inc()
        self._sink.failed(error)
        if effect is not None:
            self._apply(effect)
        if not isinstance(error, NotFound):
            self._log.warning("watch.failed", error=str(error))


async def _lines(chunks: AsyncIterator[bytes], idle: float) -> AsyncGenerator[bytes | None, None]:
    """Complete lines, as many as came at once; None when nothing came for `idle` seconds."""
    rest: list[bytes] = []
    while True:
        try:
            async with asyncio.timeout(idle):
                chunk = await anext(chunks)
        except StopAsyncIteration:
            return
        except TimeoutError:
            yield None
            return
        end = chunk.rfind(b"\n") + 1
        if not end:
            rest.append(chunk)
            continue
        lines = chunk if end == len(chunk) else chunk[:end]
        if rest:
            lines = b"".join([*rest, lines])
        rest = [chunk[end:]] if end < len(chunk) else []
        yield lines
