"""Sessions for the chat: opened before a run, added to after it.

Guarantees: a request that names its session gets its history, or an honest 503 that may be
retried when the store is down (an answer without the history would be a wrong one); a request
that names none gets a new session's id, and is answered even when the store is down. An answer
that is there is never lost to a store that is not: it goes out with `"remembered": false`.
A turn is written before the caller can know that its answer is complete, so that its next
request, to whichever replica, finds it; and it is written also when the caller hangs up then.

Does not: lock a session for the length of a run. Two requests at once do not see each other's
answer; both are kept, whole, in the order in which they ended.

Where the id comes from: `x-session-id`, else `metadata.session_id`, else OpenAI's `user` (as a
digest, since it may be an address). A caller without any that sends its conversation along
keeps it itself, so nothing is stored for it.
"""

import asyncio
import hashlib
import re
import secrets
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import structlog

from kaos.agent.errors import AgentError, BadRequest
from kaos.agent.memory.history import continue_, kept
from kaos.agent.memory.store import MAX_SESSION_BYTES, Key, Store, StoreError, Turn
from kaos.agent.openai import ChatRequest, Message
from kaos.telemetry import metrics

log = structlog.get_logger(__name__)

T = TypeVar("T")

SESSION_HEADER = "x-session-id"
TIMEOUT = 3.0
RETRY_AFTER = 2.0
_ID = re.compile(r"[A-Za-z0-9._:@-]{1,128}")

_failures = metrics.counter(
    "kaos_session_store_failures_total",
    "Times the session store could not be used.",
    ("operation",),
)


class MemoryUnavailable(AgentError):  # noqa: N818 - as in kaos.agent.errors
    """The store is down, and the request cannot do without."""

    status = 503
    code = "memory_unavailable"


def derived_id(kind: str, text: str) -> str:
    """Make a session's id of a text that need not be one, and that it does not show."""
    return f"{kind}-{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:32]}"


def checked_id(value: str, param: str) -> str:
    """Return a session's id if it is one.

    Raises:
        BadRequest: It is not; `param` is named.
    """
    if not _ID.fullmatch(value):
        raise BadRequest(f"{param} must be 1 to 128 letters, digits or . _ : @ -", param=param)
    return value


def session_id(headers: Mapping[str, str], request: ChatRequest) -> str:
    """Return the id of the caller's session, or nothing.

    Raises:
        BadRequest: It is not a valid one.
    """
    if given := headers.get(SESSION_HEADER):
        return checked_id(given, SESSION_HEADER)
    if request.session:
        return checked_id(request.session, "metadata.session_id")
    user = request.parameters.get("user")
    if isinstance(user, str) and user:
        return derived_id("user", user)
    return ""


@dataclass(slots=True)
class Session:
    """One request's part in a session."""

    keeper: "Memory"
    key: Key
    request: ChatRequest
    named: bool
    _new: list[Message] | None = None

    @property
    def id(self) -> str:
        """The session's id, for the caller."""
        return self.key.session

    async def open(self) -> ChatRequest:
        """Return the request, with the history in front.

        Raises:
            MemoryUnavailable: The store cannot be asked.
        """
        known: list[Message] = []
        if self.named:
            loading = self.keeper.store.load(self.key)
            stored = await self.keeper.ask("load", loading)
            known = stored.messages() if stored is not None else known
        joined = continue_(known, self.request.messages, self.keeper.context_limit)
        self._new = joined.new if self.named or not joined.own else None
        return replace(self.request, messages=joined.prompt)

    async def remember(self, answer: Message) -> bool:
        """Add this turn; False when that could not be done."""
        if self._new is None:
            return True
        return await self.keeper.add(self.key, [*self._new, kept(answer)])


class Memory:
    """The agent's memory.

    Args:
        store: Where sessions are kept; closed with this.
        context_limit: How much of a session goes into a prompt, see `history`.
        timeout: Seconds for the store.
    """

    def __init__(self, store: Store, context_limit: int, timeout: float = TIMEOUT) -> None:
        self.store = store
        self.context_limit = context_limit
        self._timeout = timeout
        self._writing: set[asyncio.Task[bool]] = set()

    def session(self, owner: str, headers: Mapping[str, str], request: ChatRequest) -> Session:
        """Return the session that a request is part of.

        Args:
            owner: The authenticated caller, or nothing.
            headers: The request's.
            request: The request.

        Raises:
            BadRequest: It names one in a way that cannot be.
        """
        given = session_id(headers, request)
        key = Key(owner, given or f"session-{secrets.token_hex(16)}")
        return Session(self, key, request, named=bool(given))

    async def add(self, key: Key, messages: list[Message]) -> bool:
        """Append a turn; False, and a line in the log, when that could not be done."""
        turn = Turn.of(secrets.token_hex(16), messages)
        if len(turn.body) > MAX_SESSION_BYTES:
            log.warning("turn not remembered", session=key.session, error="it is too large")
            return False
        writing = asyncio.create_task(self._write(key, turn))
        self._writing.add(writing)
        writing.add_done_callback(self._writing.discard)
        return await asyncio.shield(writing)

    async def ask(self, operation: str, work: Coroutine[Any, Any, T]) -> T:
        """Use the store, within the time there is.

        Raises:
            MemoryUnavailable: It cannot be used.
        """
        try:
            async with asyncio.timeout(self._timeout):
                return await work
        except (StoreError, TimeoutError) as error:
            _failures.labels(operation).inc()
            why = str(error) or "no answer in time"
            log.warning("session store cannot be used", operation=operation, error=why)
            raise MemoryUnavailable(
                "the agent's memory is not available now", retry_after=RETRY_AFTER
            ) from error

    async def close(self) -> None:
        """Finish what is being written, and close the store."""
        await asyncio.gather(*self._writing)
        await self.store.close()

    async def _write(self, key: Key, turn: Turn) -> bool:
        for last in (False, True):
            try:
                await self.ask("append", self.store.append(key, turn))
            except MemoryUnavailable:
                if last:
                    log.warning("turn not remembered", session=key.session)
            else:
                return True
        return False
