"""Kubernetes events (events.k8s.io/v1): what a controller tells people about an object.

Guarantees: recording never blocks, never fails and never grows without bound. The same event about
the same object becomes a series with a count instead of a new event, and one object gets at most
25 new events in a burst and one every 30 seconds after that.
Does not: promise delivery. An event that cannot be written after a few tries is dropped and logged.
Which failures taught it: the note of one event, a file's name that was no UTF-8, ended the manager;
API servers count bytes, not characters, so a note that was cut to its length was refused; and what
is a name for one kind (``system:node``) is none for an event (kubernetes#127594).
"""

import asyncio
import os
import re
import secrets
import socket
from collections import OrderedDict, deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import structlog

from kaos.runtime.client import Client
from kaos.runtime.codec import Object
from kaos.runtime.errors import ApiError, NotFound
from kaos.runtime.resources import EVENT

_WAITING = 1000
_REMEMBERED = 4096
_SERIES_ENDS_AFTER = 360.0
_SERIES_WRITTEN_EVERY = 30.0
_BURST = 25.0
_REFILL = 1 / 30
_NOTE = 1024
_WORD = 128
_LABEL = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_log = structlog.get_logger("kaos.runtime")
_Key = tuple[str, str, str, str, str]


@dataclass(slots=True)
class _Series:
    name: str
    namespace: str
    count: int
    last: float
    written: float
    told: int = 1


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class EventRecorder:
    """Queues events; a task of the manager sends them."""

    def __init__(self, client: Client, *, controller: str, instance: str = "") -> None:
        self._client = client
        self._controller = controller
        self._instance = _cut(instance or f"{controller}-{socket.gethostname()}", _WORD)
        self._waiting: deque[tuple[_Key, dict[str, Any], str]] = deque(maxlen=_WAITING)
        self._series: OrderedDict[_Key, _Series] = OrderedDict()
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._work = asyncio.Event()

    def event(
        self,
        regarding: Object,
        *,
        type: Literal["Normal", "Warning"],  # noqa: A002 - the API's own name
        reason: str,
        note: str,
        action: str = "",
    ) -> None:
        """Record an event about an object. Never blocks and never fails.

        Args:
            regarding: The object.
            type: Normal, or Warning for what somebody should look at.
            reason: One CamelCase word.
            note: One sentence, cut at 1 KiB.
            action: What was being done; default: the reason.
        """
        note = _cut(note, _NOTE)
        key = (regarding.uid or str(regarding.key), type, reason, note, action)
        body = {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.kind,
            "type": type,
            "reason": _cut(reason, _WORD),
            "note": note,
            "action": _cut(action or reason, _WORD),
            "reportingController": self._controller,
            "reportingInstance": self._instance,
            "regarding": {
                "apiVersion": regarding.api_version,
                "kind": regarding.kind,
                "namespace": regarding.namespace,
                "name": regarding.name,
                "uid": regarding.uid,
                "resourceVersion": regarding.metadata.resource_version,
            },
        }
        self._waiting.append((key, body, regarding.namespace or "default"))
        self._work.set()

    async def run(self) -> None:
        """Send events until cancelled."""
        while True:
            await self._work.wait()
            self._work.clear()
            await self.flush()

    async def flush(self) -> None:
        """Send what waits."""
        while self._waiting:
            key, body, namespace = self._waiting.popleft()
            try:
                await self._send(key, body, namespace)
            except Exception as error:  # noqa: BLE001 - no event is worth the controllers
                ends = isinstance(error, ApiError) and error.namespace_ends
                tell = _log.debug if ends else _log.info
                tell("event.dropped", reason=body["reason"], error=str(error))

    async def _send(self, key: _Key, body: dict[str, Any], namespace: str) -> None:
        now = asyncio.get_running_loop().time()
        series = self._series.get(key)
        if series is not None and now - series.last < _SERIES_ENDS_AFTER:
            self._series.move_to_end(key)
            series.count += 1
            series.last = now
            if series.told > 1 and now - series.written < _SERIES_WRITTEN_EVERY:
                return
            try:
                await self._write_series(series, now)
                return
            except NotFound:
                pass  # the server forgets events after an hour: begin anew
        if not self._may_speak(key[0], now):
            return
        prefix = body["regarding"]["name"][:200]
        name = f"{prefix if _NAME.fullmatch(prefix) else 'event'}.{secrets.token_hex(8)}"
        metadata = {"name": name, "namespace": namespace}
        await self._client.create({**body, "metadata": metadata, "eventTime": _micro_time()})
        self._series[key] = _Series(name, namespace, 1, now, now)
        while len(self._series) > _REMEMBERED:
            self._series.popitem(last=False)

    async def _write_series(self, series: _Series, now: float) -> None:
        patch = {"series": {"count": series.count, "lastObservedTime": _micro_time()}}
        series.written, series.told = now, series.count
        await self._client.patch(EVENT, series.name, series.namespace, patch)

    def _may_speak(self, uid: str, now: float) -> bool:
        bucket = self._buckets.setdefault(uid, _Bucket(_BURST, now))
        self._buckets.move_to_end(uid)
        while len(self._buckets) > _REMEMBERED:
            self._buckets.popitem(last=False)
        bucket.tokens = min(_BURST, bucket.tokens + (now - bucket.at) * _REFILL)
        bucket.at = now
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True


def _cut(text: str, limit: int) -> str:
    """The text in at most so many bytes; names of files, for one, may hold what is no Unicode."""
    coded = text.encode("utf-8", "replace")
    if len(coded) <= limit:
        return coded.decode()
    return coded[: limit - len("…".encode())].decode("utf-8", "ignore") + "…"


def _micro_time() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def instance_name(controller: str) -> str:
    """Who reports: the pod's name on a cluster, host and process elsewhere."""
    return os.environ.get("POD_NAME") or f"{controller}-{socket.gethostname()}-{os.getpid()}"
