"""The journal: what was answered is there after a restart, and no version comes twice."""

import sqlite3
from pathlib import Path

import pytest

from kaos.local.apiserver.journal import Journal, JournalError
from kaos.local.apiserver.store import ExpiredError
from tests.unit.apiserver.support import World, definition, widget


async def test_a_restart_keeps_everything_and_goes_on_counting(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    first = Journal(path)
    world = World(first.restore(history=100))
    world.create("apiextensions.k8s.io/v1", "CustomResourceDefinition", definition(), namespace="")
    world.create("test.io/v1", "Widget", widget("w", size=1))
    world.config_map("gone")
    world.config_map("a", {"k": "1"})
    world.merge("v1", "ConfigMap", "a", {"data": {"k": "2"}})
    world.delete("v1", "ConfigMap", "gone")
    await first.kept()
    last = world.store.rv
    before = {
        (bucket, record.key): record.raw
        for bucket in world.store.buckets()
        for record in world.store.current(bucket)
    }
    first.close()

    second = Journal(path)
    again = World(second.restore(history=100))
    after = {
        (bucket, record.key): record.raw
        for bucket in again.store.buckets()
        for record in again.store.current(bucket)
    }
    assert after == before
    assert again.kind("test.io/v1", "Widget").crd == "widgets.test.io"
    with pytest.raises(ExpiredError):
        again.store.cursor("/configmaps", last)
    again.config_map("b")
    assert again.store.rv > last
    await second.kept()
    second.close()


async def test_writes_share_a_commit(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "state.db")
    world = World(journal.restore(history=100))
    for number in range(200):
        world.config_map(f"n{number}")
    await journal.kept()
    await journal.kept()
    journal.close()
    with sqlite3.connect(tmp_path / "state.db") as database:
        counted = database.execute("SELECT count(*) FROM objects WHERE bucket='/configmaps'")
        assert counted.fetchone() == (200,)
    database.close()


async def test_a_write_that_cannot_be_kept_is_not_answered_and_kept_once_there_is_room(
    tmp_path: Path,
) -> None:
    journal = Journal(tmp_path / "state.db")
    world = World(journal.restore(history=100))
    await journal.kept()
    pages = journal._database.execute("PRAGMA page_count").fetchone()[0]
    journal._database.execute(f"PRAGMA max_page_count={pages}")  # as a full disk answers
    world.config_map("a", {"k": "x" * 100_000})
    for name in ("b", "c"):
        with pytest.raises(JournalError, match=r"not kept in .*: database or disk is full"):
            await journal.kept()
        world.config_map(name)
    journal._database.execute("PRAGMA max_page_count=1000000")
    world.delete("v1", "ConfigMap", "b")
    await journal.kept()
    journal.close()
    second = Journal(tmp_path / "state.db")
    assert World(second.restore(history=100)).names("v1", "ConfigMap") == ["a", "c"]
    second.close()


async def test_a_journal_that_cannot_write_can_still_be_closed(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "state.db")
    world = World(journal.restore(history=100))
    await journal.kept()
    journal._database.execute("DROP TABLE objects")
    world.config_map("a")
    journal.close()


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"this is no database, and long enough to look like one" * 20)
    with pytest.raises(JournalError, match="cannot open the state in"):
        Journal(path)


def test_a_database_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version=99")
    database.close()
    with pytest.raises(JournalError, match="format 99 is not 1"):
        Journal(path)


def test_two_processes_cannot_share_a_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kaos.local.apiserver.journal._LOCK_SECONDS", 0.01)
    first = Journal(tmp_path / "state.db")
    with pytest.raises(JournalError, match="locked"):
        Journal(tmp_path / "state.db")
    first.close()
