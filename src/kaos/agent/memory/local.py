"""Sessions in this process: nothing to set up, gone with the pod, not shared by replicas.

Guarantees: bounded in number, in messages and in bytes (`MAX_TOTAL` for all sessions together),
whatever callers send. Sessions are in the order of their last use, so that what is too old or
too much is always at the front.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from kaos.agent.memory.store import (
    MAX_SESSION_BYTES,
    RECENT,
    Key,
    Limits,
    SessionInfo,
    Stored,
    Turn,
)

MAX_TOTAL = 64 * 1024 * 1024


@dataclass(slots=True)
class _Session:
    created: float
    updated: float = 0.0
    messages: int = 0
    size: int = 0
    turns: list[Turn] = field(default_factory=list)


class LocalStore:
    """See `kaos.agent.memory.store.Store`.

    Args:
        limits: How much is kept.
        clock: Tells the time.
        max_total: Bytes of all sessions together.
    """

    def __init__(
        self,
        limits: Limits,
        clock: Callable[[], float] = time.time,
        max_total: int = MAX_TOTAL,
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._max_total = max_total
        self._sessions: OrderedDict[Key, _Session] = OrderedDict()
        self._total = 0

    async def load(self, key: Key) -> Stored | None:
        """See `Store`."""
        self._forget()
        session = self._sessions.get(key)
        if session is None:
            return None
        turns = [turn.body for turn in session.turns]
        return Stored(session.created, session.updated, turns)

    async def append(self, key: Key, turn: Turn) -> None:
        """See `Store`."""
        self._forget()
        session = self._sessions.setdefault(key, _Session(self._clock()))
        if not any(known.id == turn.id for known in session.turns[-RECENT:]):
            session.turns.append(turn)
            self._count(session, turn, 1)
        while len(session.turns) > 1 and (
            session.messages > self._limits.messages or session.size > MAX_SESSION_BYTES
        ):
            self._count(session, session.turns.pop(0), -1)
        session.updated = self._clock()
        self._sessions.move_to_end(key)
        self._forget()

    async def sessions(
        self, owner: str, limit: int, before: float | None = None
    ) -> list[SessionInfo]:
        """See `Store`."""
        self._forget()
        found = (
            SessionInfo(key.session, session.created, session.updated, session.messages)
            for key, session in reversed(self._sessions.items())
            if key.owner == owner and (before is None or session.updated < before)
        )
        return [info for info, _ in zip(found, range(limit), strict=False)]

    async def delete(self, key: Key) -> bool:
        """See `Store`."""
        self._forget()
        session = self._sessions.pop(key, None)
        self._total -= session.size if session else 0
        return session is not None

    async def close(self) -> None:
        """See `Store`."""

    def _count(self, session: _Session, turn: Turn, sign: int) -> None:
        session.messages += sign * turn.messages
        session.size += sign * len(turn.body)
        self._total += sign * len(turn.body)

    def _forget(self) -> None:
        """Drop from the front what is too old or too much."""
        oldest = self._clock() - self._limits.ttl
        while self._sessions:
            key, session = next(iter(self._sessions.items()))
            too_many = len(self._sessions) > self._limits.sessions
            # The one session that is left may be as large as a session may be.
            too_large = self._total > self._max_total and len(self._sessions) > 1
            if not (too_many or too_large or session.updated <= oldest):
                return
            del self._sessions[key]
            self._total -= session.size
