"""Watches: the log of a bucket as an HTTP stream.

Guarantees: events in order, none lost or told twice between two watches that go
on from each other's resourceVersion; an object that leaves the selector is told
as DELETED, one that enters it as ADDED; a stream that cannot keep up is cut and
holds no memory meanwhile (it reads the shared log by a cursor); an answer that
the log no longer has is the event ERROR with 410 Expired. Bookmarks let quiet
watches move on. Every stream ends: by its timeout, with its
kind, or when the server stops.

A resourceVersion from the future is answered with 410 too. The real server
would wait for it; here it means that the state was thrown away, and a client
that waits would miss everything till then.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from starlette.types import Receive, Scope, Send

from kaos.local.apiserver.definitions import DEFINITIONS_BUCKET
from kaos.local.apiserver.errors import (
    StatusError,
    expired,
    field_forbidden,
    invalid_options,
    too_large_resource_version,
)
from kaos.local.apiserver.listing import chosen, resource_version
from kaos.local.apiserver.options import Query, flag, number
from kaos.local.apiserver.registry import Kind
from kaos.local.apiserver.selectors import Selection
from kaos.local.apiserver.store import Event, ExpiredError, FutureError, Record, Store, encode

BOOKMARK_SECONDS = 60.0
_SEND_SECONDS = 30.0
_CHUNK = 500

Render = Callable[[Record], bytes]


async def _at_once() -> None:
    """For what is kept in memory."""


class WatchHub:
    """Wakes the watches of a bucket when something is written to it."""

    def __init__(self, store: Store) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self.closing = False
        store.on_write.append(self._wake)

    def _wake(self, event: Event) -> None:
        if event.bucket == DEFINITIONS_BUCKET and event.type == "DELETED":
            self._wake_all()  # the watches of its kind must see that it is gone
        for signal in self._waiting.get(event.bucket, ()):
            signal.set()

    def join(self, bucket: str) -> asyncio.Event:
        """A signal that is set after each write to the bucket."""
        signal = asyncio.Event()
        self._waiting.setdefault(bucket, set()).add(signal)
        return signal

    def leave(self, bucket: str, signal: asyncio.Event) -> None:
        """Stop setting a signal."""
        self._waiting[bucket].discard(signal)

    def close(self) -> None:
        """End all watches."""
        self.closing = True
        self._wake_all()

    def _wake_all(self) -> None:
        for signals in self._waiting.values():
            for signal in signals:
                signal.set()


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """How to watch, checked."""

    since: int | None  # None: from the present state, told as ADDED
    initial: bool  # tell the present state first
    end_mark: bool  # and a bookmark behind it
    bookmarks: bool
    seconds: float

    @classmethod
    def of(cls, query: Query, current: int) -> "WatchOptions":
        """Read the options of a watch.

        Raises:
            StatusError: They contradict each other or ask for the future.
        """
        since = resource_version(query.get("resourceVersion", ""))
        match = query.get("resourceVersionMatch", "")
        bookmarks = flag(query, "allowWatchBookmarks")
        # The real server's default is random, so that clients do not return in step.
        seconds = float(number(query, "timeoutSeconds") or random.randint(1800, 3600))  # noqa: S311
        asked = query.get("sendInitialEvents")
        if asked is None:
            if match:
                raise _match_forbidden(
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is"
                    " provided"
                )
            return cls(since or None, not since, False, bookmarks, seconds)
        if match != "NotOlderThan":
            raise _match_forbidden(
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
            )
        if (since or 0) > current:
            raise too_large_resource_version(since or 0, current)
        if flag(query, "sendInitialEvents"):
            return cls(None, True, bookmarks, bookmarks, seconds)
        return cls(since or current, False, False, bookmarks, seconds)


@dataclass(slots=True)
class WatchResponse:
    """The ASGI answer to a watch."""

    store: Store
    hub: WatchHub
    kind: Kind
    what: Selection
    options: WatchOptions
    render: Render
    served: Callable[[], bool] = lambda: True
    """Whether the kind is still there; its watches end with it."""
    kept: Callable[[], Awaitable[None]] = _at_once
    """Waits until everything written so far is on disk."""

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until the end of the watch or of the client."""
        stream = asyncio.ensure_future(self._respond(send))
        gone = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait({stream, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (stream, gone):
                task.cancel()
            results = await asyncio.gather(stream, gone, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def _respond(self, send: Send) -> None:
        headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-cache, private")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async for chunk in self.frames():
            await self.kept()
            try:
                async with asyncio.timeout(_SEND_SECONDS):
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            except TimeoutError:
                return  # the client does not read: without a proper end it knows that it was cut
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def frames(self) -> AsyncIterator[bytes]:
        """The events, as lines of JSON, several at a time where several are there."""
        signal = self.hub.join(self.kind.bucket)
        try:
            async for chunk in self._frames(signal):
                yield chunk
        except (ExpiredError, FutureError) as error:
            told = expired(f"too old resource version: {self.options.since} ({error})")
            yield _frame("ERROR", encode(told.to_dict()))
        except StatusError as error:
            yield _frame("ERROR", encode(error.to_dict()))
        finally:
            self.hub.leave(self.kind.bucket, signal)

    async def _frames(self, signal: asyncio.Event) -> AsyncIterator[bytes]:
        bucket, options = self.kind.bucket, self.options
        clock = asyncio.get_running_loop().time
        end = clock() + options.seconds
        cursor = self.store.cursor(bucket, options.since)
        if options.initial:
            rv = self.store.rv
            records = self.store.current(bucket, self.what.namespace)
            for start in range(0, len(records), _CHUNK):
                part = records[start : start + _CHUNK]
                if chunk := b"".join(self._added(part)):
                    yield chunk
            if options.end_mark:
                yield self._bookmark(rv, {"k8s.io/initial-events-end": "true"})
        mark = clock() + BOOKMARK_SECONDS
        while (left := end - clock()) > 0:
            signal.clear()
            last = not self._goes_on()  # what has happened until now is still told
            events, cursor = self.store.read(bucket, cursor)
            if chunk := b"".join(self._told(events)):
                yield chunk
            if last:
                break
            if chunk:
                continue  # more may have come while the client took this
            try:
                wait = min(left, mark - clock()) if options.bookmarks else left
                async with asyncio.timeout(max(wait, 0)):
                    await signal.wait()
            except TimeoutError:
                if options.bookmarks and clock() >= mark:
                    mark = clock() + BOOKMARK_SECONDS
                    # A write may have come between the deadline and now.
                    if not signal.is_set():
                        yield self._bookmark(self.store.rv)

    def _goes_on(self) -> bool:
        return not self.hub.closing and self.served()

    def _added(self, records: Iterable[Record]) -> Iterable[bytes]:
        for record in records:
            if self.what.everything or chosen(record, self.what):
                yield _frame("ADDED", self.render(record))

    def _told(self, events: Iterable[Event]) -> Iterable[bytes]:
        for event in events:
            if self.what.namespace and event.record.key[0] != self.what.namespace:
                continue
            if self.what.everything:
                yield _frame(event.type, self.render(event.record))
                continue
            before = event.previous is not None and chosen(event.previous, self.what)
            now = event.type != "DELETED" and chosen(event.record, self.what)
            if now:
                yield _frame("MODIFIED" if before else "ADDED", self.render(event.record))
            elif before:
                yield _frame("DELETED", self.render(self._last_seen(event)))

    def _last_seen(self, event: Event) -> Record:
        """What a client sees of an object that leaves its selection."""
        if event.type == "DELETED" or event.previous is None:
            return event.record
        obj = event.previous.load()
        obj["metadata"]["resourceVersion"] = str(event.record.rv)
        return Record(event.record.key, event.record.rv, encode(obj), event.previous.labels)

    def _bookmark(self, rv: int, annotations: dict[str, str] | None = None) -> bytes:
        metadata: dict[str, Any] = {"resourceVersion": str(rv), "creationTimestamp": None}
        if annotations:
            metadata["annotations"] = annotations
        obj = {
            "kind": self.kind.kind,
            "apiVersion": self.kind.api_version,
            "metadata": metadata,
        }
        return _frame("BOOKMARK", encode(obj))


def _match_forbidden(why: str) -> StatusError:
    return invalid_options("ListOptions", field_forbidden("resourceVersionMatch", why))


def _frame(sort: str, raw: bytes) -> bytes:
    return b'{"type":"%s","object":%s}\n' % (sort.encode(), raw)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
