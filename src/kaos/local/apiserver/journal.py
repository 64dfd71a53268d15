"""Persistence: every write goes to SQLite, in batches, from a thread of its own.

Guarantees that who awaits ``kept`` before each answer shows nobody what a crash
takes back, that the event loop never waits for the disk, and that after a
restart no resourceVersion is handed out a second time. Commits survive the end of the
process, not a power cut (``synchronous=NORMAL``): then the last moments may be
missing, the rest is whole. What cannot be written (a full disk) is tried again whenever
somebody awaits ``kept``, which fails until it is.
"""

import asyncio
import contextlib
import sqlite3
import threading
from pathlib import Path

from kaos.local.apiserver.store import Event, Store

_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
  bucket TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
  rv INTEGER NOT NULL, raw BLOB NOT NULL,
  PRIMARY KEY (bucket, namespace, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS state (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""
_FORMAT = 1
# More writes than could have been seen and lost in one crash.
_GAP = 10_000
_LOCK_SECONDS = 1.0

_Row = tuple[str, str, str, int, bytes | None]


class JournalError(OSError):
    """The database cannot be opened, read or written."""


class Journal:
    """The database behind a store.

    Args:
        path: The file; its folder must exist.

    Raises:
        JournalError: It is no database of ours, or another process has it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pending: list[_Row] = []
        self._waiters: list[asyncio.Future[None]] = []  # for the next batch
        self._current: list[asyncio.Future[None]] | None = None  # for the one under way
        self._lock = threading.Lock()
        self._work = threading.Semaphore(0)
        self._closing = False
        try:
            self._database = self._open()
        except sqlite3.Error as error:
            raise JournalError(f"cannot open the state in {path}: {error}") from error
        self._thread = threading.Thread(target=self._write_batches, name="journal", daemon=True)
        self._thread.start()

    def _open(self) -> sqlite3.Connection:
        # The connection is handed from this thread to the writer once, never shared.
        # The timeout lets a process that is just ending let go of the file.
        database = sqlite3.connect(
            self._path, timeout=_LOCK_SECONDS, check_same_thread=False, isolation_level=None
        )
        try:
            database.execute("PRAGMA locking_mode=EXCLUSIVE")
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=NORMAL")
            version = database.execute("PRAGMA user_version").fetchone()[0]
            if version not in {0, _FORMAT}:
                message = f"format {version} is not {_FORMAT}: made by a newer KAOS?"
                raise sqlite3.DatabaseError(message)
            database.executescript(_SCHEMA)
            database.execute(f"PRAGMA user_version={_FORMAT}")
        except sqlite3.Error:
            database.close()
            raise
        return database

    def restore(self, *, history: int) -> Store:
        """A store with what the database holds, that goes on writing to it."""
        try:
            found = self._database.execute("SELECT value FROM state WHERE name='rv'").fetchone()
            store = Store(history=history, start=found[0] + _GAP if found else 0)
            rows = self._database.execute("SELECT bucket, namespace, name, rv, raw FROM objects")
            store.load(rows)
        except (sqlite3.Error, ValueError) as error:
            raise JournalError(f"cannot read the state in {self._path}: {error}") from error
        store.on_write.append(self._append)
        return store

    def _append(self, event: Event) -> None:
        record = event.record
        raw = None if event.type == "DELETED" else record.raw
        with self._lock:
            first = not self._pending
            self._pending.append((event.bucket, *record.key, record.rv, raw))
        if first:
            self._work.release()

    async def kept(self) -> None:
        """Wait until everything written so far is committed.

        Raises:
            JournalError: It could not be.
        """
        with self._lock:
            waiters = self._waiters if self._pending else self._current
            if waiters is None:
                return
            future = asyncio.get_running_loop().create_future()
            waiters.append(future)
            again = waiters is self._waiters and len(waiters) == 1
        if again:  # what failed is not tried by itself
            self._work.release()
        await future

    def _write_batches(self) -> None:
        while True:
            self._work.acquire()
            with self._lock:
                rows, self._pending = self._pending, []
                self._current, self._waiters = self._waiters, []
            # Only the last state of each object matters.
            rows = list({row[:3]: row for row in rows}.values())
            failure = ""
            try:
                if rows:
                    self._commit(rows)
            except sqlite3.Error as error:
                failure = f"a write was not kept in {self._path}: {error}"
                with self._lock:  # nothing that comes later may be kept without them
                    self._pending = [*rows, *self._pending]
            with self._lock:
                waiters, self._current = self._current, None
            if waiters:
                # The loop may be gone when the server ends in disorder.
                with contextlib.suppress(RuntimeError):
                    waiters[0].get_loop().call_soon_threadsafe(_settle, waiters, failure)
            if self._closing and not waiters and (failure or not rows):
                return

    def _commit(self, rows: list[_Row]) -> None:
        self._database.execute("BEGIN")
        try:
            self._database.executemany(
                "INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?)",
                [row for row in rows if row[4] is not None],
            )
            self._database.executemany(
                "DELETE FROM objects WHERE bucket=? AND namespace=? AND name=?",
                [row[:3] for row in rows if row[4] is None],
            )
            latest = max(row[3] for row in rows)
            self._database.execute("INSERT OR REPLACE INTO state VALUES ('rv', ?)", (latest,))
            self._database.execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:  # a full disk takes it back by itself
                self._database.execute("ROLLBACK")
            raise

    def close(self) -> None:
        """Write what is left and close the database."""
        self._closing = True
        while self._thread.is_alive():
            self._work.release()
            self._thread.join(0.05)
        self._database.close()


def _settle(waiters: list[asyncio.Future[None]], failure: str) -> None:
    for future in waiters:
        if future.done():
            continue  # its request was cancelled
        if failure:
            future.set_exception(JournalError(failure))
        else:
            future.set_result(None)
