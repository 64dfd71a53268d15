"""The port to whatever keeps sessions, and what all stores have in common.

Guarantees asked of every store: a session belongs to one agent, one owner (the authenticated
caller, or nobody's name) and one id, and is found by all three only; turns are appended whole,
atomically and in one order for all readers, so that two requests at once, on two replicas, lose
nothing and do not mix; a turn appended twice (a retry after a lost connection) is there once;
the limits hold; a session nobody used for `ttl` seconds is gone.

Turns are kept as bytes: a thousand idle sessions are then a thousand short strings and not a
hundred thousand small objects.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from pydantic_core import from_json, to_json

from kaos.agent.openai import Message

MAX_SESSION_BYTES = 1024 * 1024
"""Of one session: beyond it the oldest turns go, and a larger turn is not kept at all."""

RECENT = 20
"""How many turns back a store without unique keys looks for one that is appended again."""


class StoreError(Exception):
    """The store cannot be used now; the message says which and why, without its password."""


class Key(NamedTuple):
    """Whose session, and which."""

    owner: str
    session: str


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is kept.

    Attributes:
        sessions: Of one agent; beyond it the ones longest unused go.
        messages: Of one session; beyond it the oldest turns go.
        ttl: Seconds after its last turn until a session is forgotten.
    """

    sessions: int = 1000
    messages: int = 500
    ttl: float = 7 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Turn:
    """What one request added: the caller's new messages and the answer.

    Attributes:
        id: Unique; a turn with an id that is there is not appended again.
        messages: How many messages are in it.
        body: They, as a JSON list.
    """

    id: str
    messages: int
    body: bytes

    @classmethod
    def of(cls, id: str, messages: Sequence[Message]) -> "Turn":  # noqa: A002 - the field's name
        """Pack messages."""
        return cls(id, len(messages), to_json(messages))


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A session in a list; times are seconds since 1970."""

    id: str
    created: float
    updated: float
    messages: int


@dataclass(frozen=True, slots=True)
class Stored:
    """A session with its turns, oldest first."""

    created: float
    updated: float
    turns: Sequence[bytes]

    def messages(self) -> list[Message]:
        """Unpack all messages."""
        return [message for turn in self.turns for message in from_json(turn)]


class Store(Protocol):
    """What the keeper needs. Every method raises `StoreError` when the store cannot be used."""

    async def load(self, key: Key) -> Stored | None:
        """Return a session, or None if there is none."""

    async def append(self, key: Key, turn: Turn) -> None:
        """Add a turn, and make the session if there is none."""

    async def sessions(
        self, owner: str, limit: int, before: float | None = None
    ) -> list[SessionInfo]:
        """Return an owner's sessions, the last used first.

        Args:
            owner: Whose.
            limit: How many at most.
            before: Only those last used before this time.
        """

    async def delete(self, key: Key) -> bool:
        """Forget a session; False if there was none."""

    async def close(self) -> None:
        """Let go of connections and files."""
