"""One run for a request that is sent twice.

Guarantees: requests with the same `Idempotency-Key`, of the same caller, are one run: a second
one joins it while it is under way, streamed or not, from its first byte, and gets the same
answer for ten minutes after; with another body it is refused (422). Such a run goes on for a
moment when its caller is cut off, so that there is something to come back to. What failed
without having done anything is not kept: a retry is then a new attempt.

The `openai` clients (Python up to 3.54, npm up to 7.57) make up a key for their retries but send
no header with it, only `x-stainless-retry-count`. So their requests, which say 0, are kept for
a few seconds when the caller goes away before it saw anything of an answer, and the first
retry with the same body takes over: it is taken for the one that was cut off, which is as good as
certain, and harmless if not, since whoever asks the same gets an answer to the same.

Works on what the app sends (ASGI messages), so that it knows nothing of streams or errors.
Bounded: answers of ended runs take up to `MAX_BYTES` together; runs under way are counted by
`KAOS_MAX_CONCURRENT`. Per process: a retry that another replica gets is a new run.
"""

import asyncio
import contextlib
import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import structlog
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from kaos.agent.errors import BadRequest
from kaos.agent.streams import ClientGone, while_connected

log = structlog.get_logger(__name__)

KEY_HEADER = "idempotency-key"
RETRY_HEADER = "x-stainless-retry-count"
REPLAYED_HEADER = b"idempotency-replayed"
MAX_KEY = 255
MAX_ENTRIES = 1000
MAX_BYTES = 32 * 1024 * 1024
KEPT = 600.0
LINGER = 30.0
LINGER_UNKEYED = 5.0
_LAST_WORDS = 1.5


class Replayable(Protocol):
    """A response that knows how its run went."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102
        ...

    @property
    def repeatable(self) -> bool:
        """Whether a retry should be a new attempt: it failed before anything was done."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """What makes two requests the same.

    Attributes:
        name: The caller, with its key, or with the body's digest when there is no key.
        body: The body's digest.
        keyed: Whether the caller gave a key.
        retry: Whether the caller says that it tries again.
    """

    name: tuple[str, str]
    body: str
    keyed: bool
    retry: bool


def ticket(headers: Mapping[str, str], caller: str, session: str, body: bytes) -> Ticket | None:
    """Return what a request is recognised by, or None when it never comes twice.

    Raises:
        BadRequest: The key is no key.
    """
    key = headers.get(KEY_HEADER)
    retries = headers.get(RETRY_HEADER, "")
    if key is None and not retries.isdecimal():
        return None
    digest = hashlib.sha256(session.encode() + b"\0" + body).hexdigest()
    if key is None:
        return Ticket((caller, f"body {digest}"), digest, keyed=False, retry=int(retries[:9]) > 0)
    if not 1 <= len(key) <= MAX_KEY:
        raise BadRequest(f"{KEY_HEADER} must be 1 to {MAX_KEY} characters", param=KEY_HEADER)
    return Ticket((caller, f"key {key}"), digest, keyed=True, retry=False)


@dataclass(slots=True, eq=False)
class _Entry:
    """A run and what it has sent so far."""

    ticket: Ticket
    messages: list[Message] = field(default_factory=list)
    size: int = 0
    readers: int = 0
    seen: bool = False
    done: bool = False
    ended: float = 0.0
    abandoned: asyncio.Event = field(default_factory=asyncio.Event)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    end: asyncio.TimerHandle | None = None

    async def receive(self) -> Message:
        """Tell the run that nobody wants it any more, when that is so."""
        await self.abandoned.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Take what the run sends."""
        self.messages.append(message)
        self.size += len(message.get("body", b""))
        self._wake()

    def finish(self, now: float) -> None:
        """Note that no more will come."""
        self.done, self.ended = True, now
        self._wake()

    def _wake(self) -> None:
        self.news.set()
        self.news = asyncio.Event()


class Replays:
    """The runs that may be asked for again."""

    def __init__(self) -> None:
        self._entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()
        self._running: set[asyncio.Task[None]] = set()

    def known(self, ticket: Ticket) -> Response | None:
        """Return the response of the run that this request is to join, if there is one.

        Raises:
            BadRequest: The key was used for another request.
        """
        self._forget()
        entry = self._entries.get(ticket.name)
        if entry is None:
            return None
        if ticket.keyed:
            if entry.ticket.body != ticket.body:
                raise BadRequest(
                    f"this {KEY_HEADER} was used for another request",
                    status=422,
                    code="idempotency_key_reused",
                    param=KEY_HEADER,
                )
        elif not ticket.retry or entry.readers or entry.seen:
            return None
        log.info("request joined to a run", done=entry.done)
        return _Reader(self, entry, replayed=True)

    def start(self, ticket: Ticket, run: Replayable, scope: Scope) -> Response:
        """Start a run; it is asked for by this response, and perhaps by others."""
        entry = _Entry(ticket)
        self._entries[ticket.name] = entry
        entry.task = asyncio.create_task(self._run(entry, run, scope))
        self._running.add(entry.task)
        entry.task.add_done_callback(self._running.discard)
        return _Reader(self, entry, replayed=False)

    async def close(self) -> None:
        """End all runs."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        for entry in self._entries.values():
            if entry.end is not None:
                entry.end.cancel()

    async def _run(self, entry: _Entry, run: Replayable, scope: Scope) -> None:
        try:
            await run(scope, entry.receive, entry.send)
        except Exception:
            # The reader sees a response that does not end, as from a bare app.
            log.exception("run failed")
            self._drop(entry)
        finally:
            entry.finish(asyncio.get_running_loop().time())
            unread = not entry.readers and not entry.seen
            if run.repeatable or entry.abandoned.is_set() or not (entry.ticket.keyed or unread):
                self._drop(entry)

    def left(self, entry: _Entry) -> None:
        """A reader has gone: give the run up if it was the last, and none comes back."""
        if entry.readers:
            return
        if not entry.ticket.keyed and entry.seen:
            self._give_up(entry)
        elif not entry.done or not entry.seen:
            loop = asyncio.get_running_loop()
            linger = LINGER if entry.ticket.keyed else LINGER_UNKEYED
            entry.end = loop.call_later(linger, self._give_up_if_alone, entry)

    def _give_up_if_alone(self, entry: _Entry) -> None:
        if not entry.readers and not (entry.done and entry.ticket.keyed):
            self._give_up(entry)

    def _give_up(self, entry: _Entry) -> None:
        entry.abandoned.set()
        self._drop(entry)

    def _drop(self, entry: _Entry) -> None:
        if self._entries.get(entry.ticket.name) is entry:
            del self._entries[entry.ticket.name]

    def _forget(self) -> None:
        """Drop the oldest answers that are too old or too much."""
        now = asyncio.get_running_loop().time()
        ended = [entry for entry in self._entries.values() if entry.done]
        size = sum(entry.size for entry in ended)
        for place, entry in enumerate(ended):
            too_many = len(ended) - place > MAX_ENTRIES
            if now - entry.ended < KEPT and size <= MAX_BYTES and not too_many:
                return
            size -= entry.size
            self._drop(entry)


class _Reader(Response):
    """The response to one of the requests for a run."""

    def __init__(self, replays: Replays, entry: _Entry, *, replayed: bool) -> None:
        super().__init__()
        self._replays = replays
        self._entry = entry
        self._replayed = replayed
        self._place = 0
        entry.readers += 1  # from now on, and not only when the response is sent
        if entry.end is not None:
            entry.end.cancel()
            entry.end = None

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        entry = self._entry
        try:
            await while_connected(receive, self._read(send))
        except ClientGone:
            log.info("the caller hung up")
        except asyncio.CancelledError:
            # The server is shutting down. The run says so itself, to all who read it.
            if entry.task is not None:
                entry.task.cancel()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_WORDS):
                    await self._read(send)
            raise
        finally:
            entry.readers -= 1
            self._replays.left(entry)

    async def _read(self, send: Send) -> None:
        """Send everything on that was not yet, to the end of the run."""
        entry = self._entry
        while True:
            news = entry.news
            while self._place < len(entry.messages):
                message = entry.messages[self._place]
                if self._replayed and message["type"] == "http.response.start":
                    headers = [*message["headers"], (REPLAYED_HEADER, b"true")]
                    message = {**message, "headers": headers}
                self._place += 1
                entry.seen = True
                await send(message)
            if entry.done:
                return
            await news.wait()
