"""The I/O shell around `Watcher`: does what the machine says and tells it what happened.

Guarantees: never ends by itself, whatever the server does; one connection while it watches; the
machine hears nothing of an exchange that `refresh` gave up.
Does not: decide anything. Every rule is in `watcher`.
Which failure taught the checkpoints: a cancellation does not reach a task whose answer has come in
the same turn of the loop. The new leader's machine was fed the page of the list before, took it for
the newest state or waited for the rest of it for ever.
"""

import asyncio
import contextlib
from collections.abc import Mapping
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
from kaos.runtime.transport import HttpRequest, Stream
from kaos.runtime.watcher import (
    RECONNECT,
    Effect,
    Listed,
    ListPage,
    OpenWatch,
    Progress,
    Replaced,
    Wait,
    Watcher,
)

_OPEN_TIMEOUT = 30.0
_BATCH = 200
_SLICE = 1000
_SLACK = 0.5
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
        self._listed = False
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
                self._failed(error)
            except msgspec.MsgspecError as error:
                what = f"list and watch of {self._resource}"
                self._failed(Unreachable(what, f"not JSON: {error}"))

    async def _list(self, params: Mapping[str, str]) -> None:
        page = await self._client.page(
            self._resource, self._namespace, {**self._selectors, **params}
        )
        await anyio.lowlevel.checkpoint_if_cancelled()
        effect = self._watcher.on_page(page)
        if effect is not None:
            await self._apply(effect)
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
            await anyio.lowlevel.checkpoint_if_cancelled()
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
            try:
                if not await self._read(stream, idle, loop):
                    return
            except TimeoutError:
                await anyio.lowlevel.checkpoint_if_cancelled()
                self._log.info("watch.silent", seconds=idle)
                self._watcher.on_idle()
                return
        await anyio.lowlevel.checkpoint_if_cancelled()
        self._watcher.on_close(loop.time())

    async def _read(self, stream: Stream, idle: float, loop: asyncio.AbstractEventLoop) -> bool:
        """Feed lines until the server ends the watch (True) or the machine wants another (False).

        Raises:
            TimeoutError: Nothing came for `idle` seconds.
        """
        rest: list[bytes] = []
        until = loop.time() + idle + _SLACK
        async with (
            asyncio.timeout_at(until) as silence,
            contextlib.aclosing(stream.chunks()) as chunks,
        ):
            async for chunk in chunks:
                await anyio.lowlevel.checkpoint_if_cancelled()
                now = loop.time()
                if now + idle > until:
                    # Setting a timer anew for each of a thousand reads a second is dear.
                    until = now + idle + _SLACK
                    silence.reschedule(until)
                end = chunk.rfind(b"\n") + 1
                if end:
                    lines = b"".join([*rest, chunk[:end]]) if rest else chunk[:end]
                    rest.clear()
                    if not await self._feed(lines, now):
                        return False
                if end < len(chunk):
                    rest.append(chunk[end:])
        return True

    async def _feed(self, lines: bytes, now: float) -> bool:
        """Give lines to the machine; False when it wants another connection."""
        on_event, tell = self._watcher.on_event, self._sink.effect
        count = 0
        for event in self._decode(lines):
            effect = on_event(event, now)
            if event.error is not None:
                self._told(event.error, None if effect is RECONNECT else effect)
                return False
            if isinstance(effect, Replaced):
                await self._apply(effect)
            elif effect is not None:
                tell(effect)
            count += 1
            if count % _BATCH == 0:
                # A storm must not keep the loop from the requests and workers beside it.
                await anyio.lowlevel.checkpoint()
        self._events.inc(count)
        return True

    async def _apply(self, effect: Effect) -> None:
        if not isinstance(effect, Replaced):
            self._sink.effect(effect)
            return
        self._lists.inc()
        self._log.debug("list.complete", objects=len(effect.objects))
        self._sink.failed(None)
        if self._listed:
            self._sink.effect(effect)
            return
        # There is nothing to compare the first list with, so it need not hold the loop up: telling
        # of 50,000 objects takes a fifth of a second. Cut off, the list after it must be compared.
        self._listed = True
        for start in range(0, len(effect.objects), _SLICE):
            part = effect.objects[start : start + _SLICE]
            self._sink.effect(Listed(part, effect.resource_version))
            await anyio.lowlevel.checkpoint()
        self._sink.effect(Progress(effect.resource_version, complete=True))

    def _failed(self, error: ApiError | Unreachable) -> None:
        if not self._doing.cancel_called:
            self._told(error, self._watcher.on_error(error, asyncio.get_running_loop().time()))

    def _told(self, error: Exception, effect: Effect | None) -> None:
        self._failures.inc()
        self._sink.failed(error)
        if effect is not None:
            self._sink.effect(effect)
        if not isinstance(error, NotFound):
            self._log.warning("watch.failed", error=str(error))
