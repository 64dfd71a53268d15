"""Log files of containers."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from kaos.local.node.logs import LogFolder, LogWriter, PodLogs, rotated

POD = {"metadata": {"namespace": "default", "name": "web", "uid": "u1"}}


async def text(folder: LogFolder, **options: Any) -> bytes:
    return b"".join([piece async for piece in folder.read(**options)])


def test_lines_are_written_in_the_cri_format(tmp_path: Path) -> None:
    log = LogWriter(tmp_path / "0.log")
    log.write("stdout", b"one\ntw")
    log.write("stderr", b"oops\n")
    log.write("stdout", b"o\nrest")
    log.close()
    lines = log.path.read_text().splitlines()
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z"
    assert [re.sub(stamp, "T", line) for line in lines] == [
        "T stdout F one",
        "T stderr F oops",
        "T stdout F two",
        "T stdout F rest",
    ]


async def test_a_line_without_end_is_cut_into_parts_and_read_as_one(tmp_path: Path) -> None:
    folder = LogFolder(tmp_path)
    log = folder.start(0)
    log.write("stdout", b"x" * 50_000)
    log.write("stdout", b"y\nshort\n")
    log.close()
    assert max(len(line) for line in log.path.read_bytes().split(b"\n")) < 17_000
    assert await text(folder) == b"x" * 50_000 + b"y\nshort\n"
    assert await text(folder, tail_lines=2) == await text(folder)
    assert await text(folder, tail_lines=1) == b"short\n"
    assert await text(folder, tail_lines=0) == b""


async def test_files_are_bounded_and_the_newest_lines_stay(tmp_path: Path) -> None:
    folder = LogFolder(tmp_path)
    log = LogWriter(tmp_path / "0.log", max_bytes=2000)
    for number in range(500):
        log.write("stdout", b"line %d\n" % number)
    log.close()
    sizes = [path.stat().st_size for path in (log.path, rotated(log.path))]
    assert max(sizes) <= 2000
    assert (await text(folder)).endswith(b"line 498\nline 499\n")


async def test_reading_by_time_and_with_times(tmp_path: Path) -> None:
    folder = LogFolder(tmp_path)
    (tmp_path / "0.log").write_text(
        "2020-01-01T00:00:00.000000000Z stdout F old\n"
        "2099-01-01T00:00:00.000000000Z stdout F new\n"
        "torn line"
    )
    assert await text(folder, since_seconds=60) == b"new\n"
    assert await text(folder, timestamps=True, tail_lines=1) == (
        b"2099-01-01T00:00:00.000000000Z new\n"
    )


async def test_previous_is_the_attempt_before_and_older_ones_go(tmp_path: Path) -> None:
    folder = LogFolder(tmp_path)
    for attempt in range(3):
        folder.start(attempt).write("stdout", b"attempt %d\n" % attempt)
    folder.close()
    assert await text(folder) == b"attempt 2\n"
    assert await text(folder, previous=True) == b"attempt 1\n"
    assert folder.attempts() == [1, 2]
    assert folder.last(2) == "attempt 2"


async def test_a_log_that_is_not_there_is_a_lookup_error(tmp_path: Path) -> None:
    folder = LogFolder(tmp_path)
    with pytest.raises(LookupError):
        await text(folder)
    folder.start(0).close()
    with pytest.raises(LookupError, match="previous terminated container not found"):
        await text(folder, previous=True)


async def test_a_follower_sees_every_line_over_a_rotation_and_ends_with_the_attempt(
    tmp_path: Path,
) -> None:
    folder = LogFolder(tmp_path)
    log = folder.start(0)
    log._max_bytes = 3000
    log.write("stdout", b"before\n")
    seen = bytearray()

    async def follow() -> None:
        async for piece in folder.read(follow=True):
            seen.extend(piece)

    task = asyncio.create_task(follow())
    for number in range(200):
        log.write("stdout", b"%d\n" % number)
        await asyncio.sleep(0)
        if number % 10 == 0:
            await asyncio.sleep(0.002)
    log.close()
    await asyncio.wait_for(task, 5)
    assert bytes(seen).split() == [b"before", *(b"%d" % n for n in range(200))]


def test_a_disk_that_is_full_loses_lines_but_not_the_container(tmp_path: Path) -> None:
    log = LogWriter(tmp_path / "0.log")
    log._file.close()
    log._file = Path("/dev/full").open("ab", buffering=0)  # noqa: SIM115
    log.write("stdout", b"lost\n")
    assert log.dropped == 1
    log.close()


def test_logs_go_with_the_pod_and_those_of_lost_pods_are_swept(tmp_path: Path) -> None:
    logs = PodLogs(tmp_path)
    logs.of(POD, "main").start(0).write("stdout", b"x\n")
    other = {"metadata": {**POD["metadata"], "uid": "u2"}}
    logs.of(other, "../../../main").start(0).close()
    assert len(list(tmp_path.iterdir())) == 2
    logs.keep_only({"u1"})
    assert [p.name for p in tmp_path.iterdir()] == ["default_web_u1"]
    logs.remove(POD)
    assert list(tmp_path.iterdir()) == []


def test_a_log_whose_next_file_could_not_be_had_goes_on_once_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = LogWriter(tmp_path / "0.log", max_bytes=100)
    log.write("stdout", b"x" * 80 + b"\n")

    def refuse(*_args: Any, **_options: Any) -> Any:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        log.write("stdout", b"lost\n")
        log.write("stdout", b"lost as well\n")
    log.write("stdout", b"kept\n")
    log.close()
    assert log.dropped == 2
    assert log.path.read_text().endswith(" stdout F kept\n")
