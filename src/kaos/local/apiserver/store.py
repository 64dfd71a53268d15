"""Objects by key, one resourceVersion for all of them, and a log of what happened.

Guarantees: resourceVersions rise by one per write over all kinds; a revision is
immutable bytes, encoded once, so that a list or a watch never encodes and no
reader can change what is stored; the log of a bucket replays from any
resourceVersion it still reaches, and says so when it no longer does. Past
states (for paged lists) are worked out backwards from the log, so that nothing
is kept for a client that never asks for its second page.

Knows nothing of HTTP, of kinds, of time or of asyncio. What must hear about
writes (journal, watches, garbage collection) subscribes with ``on_write``.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

Key = tuple[str, str]  # namespace ("" for cluster-scoped objects), name
EventType = Literal["ADDED", "MODIFIED", "DELETED"]
decode = msgspec.json.Decoder(type=dict[str, Any]).decode
encode = msgspec.json.Encoder().encode


class Record:
    """One revision of one object. Never changed after it is made."""

    __slots__ = ("key", "labels", "raw", "rv")

    def __init__(self, key: Key, rv: int, raw: bytes, labels: dict[str, str]) -> None:
        self.key = key
        self.rv = rv
        self.raw = raw
        self.labels = labels

    def load(self) -> dict[str, Any]:
        """Decode a fresh copy that the caller may change."""
        return decode(self.raw)


class Event(NamedTuple):
    """One write: what came and what was there before."""

    type: EventType
    bucket: str
    record: Record
    previous: Record | None


class ExpiredError(Exception):
    """The log no longer reaches back to the resourceVersion asked for."""


class FutureError(Exception):
    """The resourceVersion asked for has not been handed out yet."""


class _Bucket:
    __slots__ = ("compacted", "dropped", "log", "objects", "order", "rvs")

    def __init__(self, compacted: int) -> None:
        self.objects: dict[Key, Record] = {}
        self.order: list[Key] = []
        self.log: list[Event] = []
        self.rvs: list[int] = []
        self.dropped = 0  # events cut off the front of the log so far
        self.compacted = compacted  # the log replays from this resourceVersion on

    def trim(self, history: int) -> None:
        # Cutting in blocks keeps an append at constant cost.
        if len(self.log) > 2 * history:
            cut = len(self.log) - history
            self.compacted = self.rvs[cut - 1]
            del self.log[:cut], self.rvs[:cut]
            self.dropped += cut


class Store:
    """Buckets of objects behind one counter.

    Args:
        history: How many events a bucket's log keeps at least (it cuts at twice as many).
        start: The resourceVersion to go on from.
    """

    def __init__(self, *, history: int = 4096, start: int = 0) -> None:
        self.rv = start
        self.history = history
        self.on_write: list[Callable[[Event], None]] = []
        self._start = start
        self._buckets: dict[str, _Bucket] = {}

    def _bucket(self, name: str) -> _Bucket:
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = _Bucket(self._start)
        return bucket

    # Reading

    def get(self, bucket: str, namespace: str, name: str) -> Record | None:
        """The current revision of an object."""
        return self._bucket(bucket).objects.get((namespace, name))

    def buckets(self) -> list[str]:
        """The buckets that hold or held something."""
        return list(self._buckets)

    def count(self, bucket: str) -> int:
        """How many objects a bucket holds."""
        return len(self._bucket(bucket).objects)

    def current(self, bucket: str, namespace: str = "") -> list[Record]:
        """The current objects in the order of namespace and name."""
        held = self._bucket(bucket)
        return [held.objects[key] for key in _slice(held.order, namespace)]

    def list_at(self, bucket: str, rv: int, namespace: str = "") -> list[Record]:
        """The objects as they were at a resourceVersion.

        Raises:
            ExpiredError: The log does not reach back to it.
            FutureError: It has not been handed out.
        """
        held = self._bucket(bucket)
        after = self._position(held, rv)
        if after == len(held.log):
            return self.current(bucket, namespace)
        past: dict[Key, Record] = dict(held.objects)
        for event in reversed(held.log[after:]):
            if event.previous is None:
                past.pop(event.record.key, None)
            else:
                past[event.record.key] = event.previous
        order = sorted(past)
        return [past[key] for key in _slice(order, namespace)]

    # The log, by cursor: a cursor counts the events of a bucket since the start

    def cursor(self, bucket: str, rv: int | None = None) -> int:
        """Where the log of a bucket goes on after a resourceVersion (None: after now).

        Raises:
            ExpiredError: The log does not reach back to it.
            FutureError: It has not been handed out.
        """
        held = self._bucket(bucket)
        at = len(held.log) if rv is None else self._position(held, rv)
        return held.dropped + at

    def read(self, bucket: str, cursor: int) -> tuple[Sequence[Event], int]:
        """The events after a cursor and the cursor after them.

        Raises:
            ExpiredError: They have been dropped: the reader was too slow.
        """
        held = self._bucket(bucket)
        at = cursor - held.dropped
        if at < 0:
            raise ExpiredError(f"reader of {bucket} fell behind by {-at} events")
        return held.log[at:], held.dropped + len(held.log)

    def _position(self, held: _Bucket, rv: int) -> int:
        if rv > self.rv:
            raise FutureError(f"resourceVersion {rv} is beyond {self.rv}")
        if rv < held.compacted:
            raise ExpiredError(f"resourceVersion {rv} is older than {held.compacted}")
        return bisect_right(held.rvs, rv)

    # Writing

    def put(self, bucket: str, namespace: str, name: str, obj: dict[str, Any]) -> Record:
        """Write an object; sets its resourceVersion (in ``obj`` too)."""
        held = self._bucket(bucket)
        key = (namespace, name)
        previous = held.objects.get(key)
        if previous is None:
            insort(held.order, key)
        record = self._record(key, obj)
        held.objects[key] = record
        self._log(
            held, Event("ADDED" if previous is None else "MODIFIED", bucket, record, previous)
        )
        return record

    def delete(
        self, bucket: str, namespace: str, name: str, final: dict[str, Any] | None = None
    ) -> Record:
        """Remove an object; returns its last revision, with a resourceVersion of its own.

        Args:
            bucket: The bucket that holds it.
            namespace: Its namespace.
            name: Its name.
            final: What the last revision shows, if not what is stored.

        Raises:
            KeyError: It is not there.
        """
        held = self._bucket(bucket)
        key = (namespace, name)
        previous = held.objects.pop(key)
        del held.order[bisect_left(held.order, key)]
        record = self._record(key, previous.load() if final is None else final)
        self._log(held, Event("DELETED", bucket, record, previous))
        return record

    def load(self, rows: Iterable[tuple[str, str, str, int, bytes]]) -> None:
        """Fill an empty store with (bucket, namespace, name, resourceVersion, bytes)."""
        for bucket, namespace, name, rv, raw in rows:
            held = self._bucket(bucket)
            key = (namespace, name)
            labels = decode(raw)["metadata"].get("labels") or {}
            held.objects[key] = Record(key, rv, raw, labels)
            held.order.append(key)
        for held in self._buckets.values():
            held.order.sort()

    def _record(self, key: Key, obj: dict[str, Any]) -> Record:
        self.rv += 1
        metadata = obj["metadata"]
        metadata["resourceVersion"] = str(self.rv)
        return Record(key, self.rv, encode(obj), metadata.get("labels") or {})

    def _log(self, held: _Bucket, event: Event) -> None:
        held.log.append(event)
        held.rvs.append(event.record.rv)
        held.trim(self.history)
        for callback in self.on_write:
            callback(event)


def _slice(order: list[Key], namespace: str) -> list[Key]:
    if not namespace:
        return order
    # "\0" sorts behind the namespace and before any longer one that starts with it.
    return order[bisect_left(order, (namespace, "")) : bisect_left(order, (namespace + "\0", ""))]
