"""Sessions in a SQLite file: they outlive a restart, on a volume that outlives the pod.

Guarantees: the event loop never waits for the disk: all of it happens in one thread of the
store's own. Several processes may use one file on one machine (write-ahead log, and a writer
waits for another); a file on a network volume is for one replica only, as SQLite says itself.
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from kaos.agent.memory import sql
from kaos.agent.memory.store import Key, Limits, SessionInfo, Stored, StoreError, Turn

T = TypeVar("T")
_BUSY = 5.0
_BUSY_PAUSE = 0.01


class SqliteStore:
    """See `kaos.agent.memory.store.Store`.

    Args:
        path: The file; its folder is made.
        agent: Whose sessions.
        limits: How much is kept.
        clock: Tells the time.
    """

    def __init__(
        self, path: Path, agent: str, limits: Limits, clock: Callable[[], float] = time.time
    ) -> None:
        self._path = path
        self._clock = clock
        self._statements = sql.Statements(agent, limits, sql.SQLITE)
        self._purged = float("-inf")
        self._thread = ThreadPoolExecutor(1, "sessions")
        self._connection: sqlite3.Connection | None = None

    async def load(self, key: Key) -> Stored | None:
        """See `Store`."""
        rows = await self._read(self._statements.load(key, self._clock()))
        if not rows:
            return None
        return Stored(rows[0][0], rows[0][1], [row[2] for row in rows])

    async def append(self, key: Key, turn: Turn) -> None:
        """See `Store`."""
        now = self._clock()
        await self._in_thread(partial(self._run, self._statements.append(key, turn, now)))
        if now - self._purged >= sql.PURGE_EVERY:
            self._purged = now
            await self._read(self._statements.purge(now))

    async def sessions(
        self, owner: str, limit: int, before: float | None = None
    ) -> list[SessionInfo]:
        """See `Store`."""
        rows = await self._read(self._statements.sessions(owner, limit, before, self._clock()))
        return [SessionInfo(*row) for row in rows]

    async def delete(self, key: Key) -> bool:
        """See `Store`."""
        return bool(await self._read(self._statements.delete(key)))

    async def close(self) -> None:
        """See `Store`."""
        await self._in_thread(self._close)
        self._thread.shutdown(wait=False)

    async def _read(self, statement: sql.Statement) -> list[tuple[Any, ...]]:
        return await self._in_thread(partial(self._run, [statement]))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"the session file {self._path} cannot be used: {error}") from error

    def _run(self, statements: Iterable[sql.Statement]) -> list[tuple[Any, ...]]:
        """Run statements in one transaction; return the rows of the last."""
        connection = self._opened()
        rows: list[tuple[Any, ...]] = []
        # Written from the start: a reader that becomes a writer may find it is too late.
        connection.execute("BEGIN IMMEDIATE")
        with connection:
            for text, values in statements:
                rows = connection.execute(text, values).fetchall()
        return rows

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # Its mode is for who makes it: who finds it may be another user of its group.
            self._path.touch(mode=0o600)
            connection = sqlite3.connect(self._path, timeout=_BUSY, isolation_level=None)
            try:
                _use_wal(connection)
                connection.execute("PRAGMA synchronous = NORMAL")
                connection.execute("PRAGMA foreign_keys = ON")
                for text in sql.schema(sql.SQLITE):
                    connection.execute(text)
            except sqlite3.Error:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _use_wal(connection: sqlite3.Connection) -> None:
    """Change the journal's mode, for which SQLite waits for nobody: two may open a new file."""
    ends = time.monotonic() + _BUSY
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > ends:
                raise
            time.sleep(_BUSY_PAUSE)
