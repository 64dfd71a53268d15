"""The stores that need nobody else: this process, and a file."""

import asyncio
import errno
import os
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from kaos.agent.memory.local import LocalStore
from kaos.agent.memory.sqlite import SqliteStore, _use_wal
from kaos.agent.memory.store import Key, Limits, Store, StoreError
from tests.unit.agent.store_contract import KEY, Clock, StoreContract, texts, turn


class TestLocal(StoreContract):
    def make(self, agent: str, limits: Limits, clock: Clock) -> Store:
        return LocalStore(limits, clock)

    @asynccontextmanager
    async def replica(self, agent: str, store: Store) -> AsyncIterator[Store]:
        yield store  # there is no other process

    async def test_beyond_the_bytes_of_all_sessions_the_ones_longest_unused_go(self) -> None:
        store = LocalStore(Limits(), Clock(), max_total=900)
        for name in ("a", "b", "c"):
            await store.append(Key("", name), turn(name * 300))
        assert [info.id for info in await store.sessions("", 10)] == ["c", "b"]
        await store.append(Key("", "large"), turn("x" * 5000))
        assert [info.id for info in await store.sessions("", 10)] == ["large"]
        await store.delete(Key("", "large"))
        await store.append(Key("", "a"), turn("x"))
        assert len(await store.sessions("", 10)) == 1


class TestSqlite(StoreContract):
    examples = 10

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        self.path = tmp_path / "new" / "sessions.db"

    def make(self, agent: str, limits: Limits, clock: Clock) -> Store:
        return SqliteStore(self.path, agent, limits, clock)

    async def test_sessions_outlive_the_process(self) -> None:
        async with self.opened("agent") as store:
            await store.append(KEY, turn("one"))
        async with self.opened("agent") as store:
            assert await texts(store, KEY) == ["one"]

    async def test_only_its_user_can_read_the_file(self) -> None:
        async with self.opened() as store:
            await store.append(KEY, turn("one"))
        assert self.path.stat().st_mode & 0o077 == 0

    async def test_a_file_whose_mode_is_not_ours_to_change_is_used(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A pod with another user, on a volume of its group; or a volume without modes."""
        async with self.opened("agent") as store:
            await store.append(KEY, turn("one"))

        def refused(*_args: object, **_options: object) -> None:
            raise PermissionError(errno.EPERM, "Operation not permitted")

        for name in ("chmod", "utime"):
            monkeypatch.setattr(os, name, refused)
        async with self.opened("agent") as store:
            assert await texts(store, KEY) == ["one"]

    async def test_a_file_that_is_none_is_an_honest_error(self) -> None:
        self.path.parent.mkdir()
        self.path.write_bytes(b"not a database" * 100)
        async with self.opened() as store:
            with pytest.raises(StoreError, match=r"sessions\.db cannot be used"):
                await store.load(KEY)

    async def test_a_writer_elsewhere_does_not_block_the_loop(self) -> None:
        async with self.opened() as store:
            await store.append(KEY, turn("one"))
            other = sqlite3.connect(self.path, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            waiting = asyncio.create_task(store.append(KEY, turn("two")))
            for _ in range(20):
                await asyncio.sleep(0.005)
            assert not waiting.done()
            other.execute("COMMIT")
            other.close()
            await waiting
            assert await texts(store, KEY) == ["one", "two"]


@pytest.mark.process
def test_an_agent_with_local_memory_loads_no_database() -> None:
    # Other tests load them, so the question is what the modules that everybody loads import.
    import subprocess  # noqa: PLC0415

    costly = ("sqlite3", "redis", "asyncpg", "jwt", "cryptography")
    code = f"import sys, kaos.agent.app; print([m for m in {costly} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_two_who_open_a_new_file_at_once_both_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite waits for nobody when the journal's mode changes: "database is locked"."""
    first = sqlite3.connect(tmp_path / "new.db", isolation_level=None, check_same_thread=False)
    first.execute("BEGIN EXCLUSIVE")
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        first.execute("COMMIT")

    monkeypatch.setattr("kaos.agent.memory.sqlite.time.sleep", pause)
    second = sqlite3.connect(tmp_path / "new.db", timeout=0, isolation_level=None)
    _use_wal(second)
    assert len(pauses) == 1
    assert second.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    first.close()
    second.close()
