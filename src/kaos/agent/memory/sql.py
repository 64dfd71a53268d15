"""Sessions in two tables: the statements that SQLite and Postgres have in common.

Written with `?` for parameters. An append first touches the session's row: in Postgres that row
is then locked until the end of the transaction, which puts the turns of concurrent requests in
one order; SQLite has one writer at a time anyway.
"""

from typing import NamedTuple

from kaos.agent.memory.store import MAX_SESSION_BYTES, Key, Limits, Turn

PURGE_EVERY = 1.0
"""Seconds between two looks for sessions to forget; until then there may be a few too many."""

Statement = tuple[str, tuple[object, ...]]


class Dialect(NamedTuple):
    """Where the two differ."""

    serial: str
    blob: str
    skip_locked: str


SQLITE = Dialect("INTEGER PRIMARY KEY AUTOINCREMENT", "BLOB", "")
POSTGRES = Dialect("BIGSERIAL PRIMARY KEY", "BYTEA", "FOR UPDATE SKIP LOCKED")

_THIS = "agent = ? AND owner = ? AND session = ?"


def schema(dialect: Dialect) -> list[str]:
    """Return the statements that make the tables if they are not there."""
    return [
        """CREATE TABLE IF NOT EXISTS kaos_session (
            agent TEXT NOT NULL, owner TEXT NOT NULL, session TEXT NOT NULL,
            created DOUBLE PRECISION NOT NULL, updated DOUBLE PRECISION NOT NULL,
            PRIMARY KEY (agent, owner, session))""",
        "CREATE INDEX IF NOT EXISTS kaos_session_by_use ON kaos_session (agent, updated)",
        f"""CREATE TABLE IF NOT EXISTS kaos_turn (
            number {dialect.serial}, id TEXT NOT NULL,
            agent TEXT NOT NULL, owner TEXT NOT NULL, session TEXT NOT NULL,
            messages INTEGER NOT NULL, size INTEGER NOT NULL, body {dialect.blob} NOT NULL,
            UNIQUE (agent, owner, session, id),
            FOREIGN KEY (agent, owner, session)
                REFERENCES kaos_session (agent, owner, session) ON DELETE CASCADE)""",
        """CREATE INDEX IF NOT EXISTS kaos_turn_in_order
            ON kaos_turn (agent, owner, session, number)""",
    ]


class Statements:
    """The statements for one agent's sessions.

    Args:
        agent: Whose sessions; others may be in the same tables.
        limits: How much is kept.
        dialect: The database's.
    """

    def __init__(self, agent: str, limits: Limits, dialect: Dialect) -> None:
        self._agent = agent
        self._limits = limits
        self._dialect = dialect

    def load(self, key: Key, now: float) -> Statement:
        """Select created, updated and body of each turn, in order."""
        return (
            """SELECT s.created, s.updated, t.body FROM kaos_session s
               JOIN kaos_turn t USING (agent, owner, session)
               WHERE agent = ? AND owner = ? AND session = ? AND s.updated > ?
               ORDER BY t.number""",
            (self._agent, *key, now - self._limits.ttl),
        )

    def append(self, key: Key, turn: Turn, now: float) -> list[Statement]:
        """Add a turn and drop what is too much of the session, in one transaction."""
        this = (self._agent, *key)
        return [
            (
                f"DELETE FROM kaos_session WHERE {_THIS} AND updated <= ?",  # noqa: S608 - constants
                (*this, now - self._limits.ttl),
            ),
            (
                """INSERT INTO kaos_session (agent, owner, session, created, updated)
                   VALUES (?, ?, ?, ?, ?)
                   ON CONFLICT (agent, owner, session) DO UPDATE SET updated = excluded.updated""",
                (*this, now, now),
            ),
            (
                """INSERT INTO kaos_turn (id, agent, owner, session, messages, size, body)
                   VALUES (?, ?, ?, ?, ?, ?, ?)
                   ON CONFLICT (agent, owner, session, id) DO NOTHING""",
                (turn.id, *this, turn.messages, len(turn.body), turn.body),
            ),
            (
                f"""DELETE FROM kaos_turn WHERE number IN (
                    SELECT number FROM (
                        SELECT number, SUM(messages) OVER newest AS messages,
                               SUM(size) OVER newest AS size, ROW_NUMBER() OVER newest AS place
                        FROM kaos_turn WHERE {_THIS}
                        WINDOW newest AS (ORDER BY number DESC)) AS counted
                    WHERE place > 1 AND (messages > ? OR size > ?))""",  # noqa: S608 - constants
                (*this, self._limits.messages, MAX_SESSION_BYTES),
            ),
        ]

    def purge(self, now: float) -> Statement:
        """Drop sessions that are too old or too many, but for those in use at this moment."""
        return (
            f"""DELETE FROM kaos_session WHERE (agent, owner, session) IN (
                SELECT agent, owner, session FROM kaos_session
                WHERE agent = ? AND (updated <= ? OR updated < (
                    SELECT MIN(updated) FROM (
                        SELECT updated FROM kaos_session WHERE agent = ?
                        ORDER BY updated DESC LIMIT ?) AS kept))
                {self._dialect.skip_locked})""",  # noqa: S608 - constants
            (self._agent, now - self._limits.ttl, self._agent, self._limits.sessions),
        )

    def sessions(self, owner: str, limit: int, before: float | None, now: float) -> Statement:
        """Select id, created, updated and the number of messages."""
        return (
            """SELECT s.session, s.created, s.updated, COALESCE(SUM(t.messages), 0)
               FROM kaos_session s LEFT JOIN kaos_turn t USING (agent, owner, session)
               WHERE agent = ? AND owner = ? AND s.updated > ? AND s.updated < ?
               GROUP BY agent, owner, session, s.created, s.updated
               ORDER BY s.updated DESC LIMIT ?""",
            (
                self._agent,
                owner,
                now - self._limits.ttl,
                before if before is not None else float("inf"),
                limit,
            ),
        )

    def delete(self, key: Key) -> Statement:
        """Forget a session, and return it if it was there."""
        return (
            f"DELETE FROM kaos_session WHERE {_THIS} RETURNING session",  # noqa: S608 - constants
            (self._agent, *key),
        )
