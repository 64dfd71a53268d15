"""Sessions in Postgres, for an agent with replicas: the extra `[postgres]` (asyncpg).

Guarantees: the tables are made by whoever comes first, and replicas that start at once do not
trip over each other; a database that is down is a `StoreError` within seconds, and is used
again when it is back, without a restart.

No server-side prepared statements are kept, so that a PgBouncer may stand between.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

import asyncpg

from kaos.agent.memory import sql
from kaos.agent.memory.store import Key, Limits, SessionInfo, Stored, StoreError, Turn

CONNECTIONS = 8
TIMEOUT = 2.0
_SCHEMA_LOCK = 0x6B616F73  # any number; "kaos"
_FAILURES = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # none of several hosts is the primary now, for one
    OSError,
    TimeoutError,
)


class PostgresStore:
    """See `kaos.agent.memory.store.Store`.

    Args:
        url: `postgresql://…`.
        agent: Whose sessions.
        limits: How much is kept.
        clock: Tells the time.
    """

    def __init__(
        self, url: str, agent: str, limits: Limits, clock: Callable[[], float] = time.time
    ) -> None:
        self._url = url
        self._clock = clock
        self._statements = sql.Statements(agent, limits, sql.POSTGRES)
        self._purged = float("-inf")
        self._pool: Any = None
        self._opening = asyncio.Lock()

    async def load(self, key: Key) -> Stored | None:
        """See `Store`."""
        rows = await self._run([self._statements.load(key, self._clock())])
        if not rows:
            return None
        return Stored(rows[0][0], rows[0][1], [row[2] for row in rows])

    async def append(self, key: Key, turn: Turn) -> None:
        """See `Store`."""
        now = self._clock()
        await self._run(self._statements.append(key, turn, now))
        if now - self._purged >= sql.PURGE_EVERY:
            self._purged = now
            # A transaction of its own: one that holds its session must not wait for others.
            await self._run([self._statements.purge(now)])

    async def sessions(
        self, owner: str, limit: int, before: float | None = None
    ) -> list[SessionInfo]:
        """See `Store`."""
        rows = await self._run([self._statements.sessions(owner, limit, before, self._clock())])
        return [SessionInfo(*row) for row in rows]

    async def delete(self, key: Key) -> bool:
        """See `Store`."""
        return bool(await self._run([self._statements.delete(key)]))

    async def close(self) -> None:
        """See `Store`."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            try:
                async with asyncio.timeout(TIMEOUT):
                    await pool.close()
            except _FAILURES:
                pool.terminate()

    async def _run(self, statements: Iterable[sql.Statement]) -> list[Any]:
        """Run statements in one transaction; return the rows of the last."""
        rows: list[Any] = []
        try:
            pool = await self._opened()
            async with pool.acquire(timeout=TIMEOUT) as connection, connection.transaction():
                for text, values in statements:
                    rows = await connection.fetch(_numbered(text), *values)
        except _FAILURES as error:
            where = urlsplit(self._url)
            why = str(error) or type(error).__name__
            raise StoreError(f"the sessions in Postgres at {where.hostname}: {why}") from error
        return rows

    async def _opened(self) -> Any:
        async with self._opening:
            if self._pool is None:
                pool = await asyncpg.create_pool(
                    self._url,
                    min_size=0,
                    max_size=CONNECTIONS,
                    timeout=TIMEOUT,
                    command_timeout=TIMEOUT,
                    statement_cache_size=0,
                )
                try:
                    async with pool.acquire(timeout=TIMEOUT) as connection:
                        await _make_tables(connection)
                except _FAILURES:
                    pool.terminate()
                    raise
                self._pool = pool
            return self._pool


async def _make_tables(connection: Any) -> None:
    async with connection.transaction():
        # IF NOT EXISTS is no help to two who look at the same time.
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _SCHEMA_LOCK)
        if await connection.fetchval("SELECT to_regclass('kaos_turn')") is None:
            for text in sql.schema(sql.POSTGRES):
                await connection.execute(text)


def _numbered(text: str) -> str:
    """Write `?` as Postgres does: $1, $2."""
    first, *rest = text.split("?")
    return first + "".join(f"${number}{part}" for number, part in enumerate(rest, 1))
