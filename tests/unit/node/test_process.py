"""Processes: exits, signals, groups, output."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from kaos.local.node.orphans import identity
from kaos.local.node.process import Exit, Process, StartError, running

pytestmark = pytest.mark.process

ENV = {"PATH": os.environ["PATH"]}


class Sink:
    def __init__(self) -> None:
        self.text = {"stdout": b"", "stderr": b""}
        self._line = asyncio.Event()

    def __call__(self, stream: str, data: bytes) -> None:
        self.text[stream] += data
        if b"\n" in self.text["stdout"]:
            self._line.set()

    async def line(self) -> str:
        await asyncio.wait_for(self._line.wait(), 5)
        return self.text["stdout"].decode().splitlines()[-1]


@asynccontextmanager
async def python(code: str, tmp_path: Path) -> AsyncIterator[tuple[Process, Sink]]:
    sink = Sink()
    argv = [sys.executable, "-c", code]
    async with running(argv, env=ENV, cwd=tmp_path, output=sink) as process:
        yield process, sink


async def gone(pid: int) -> bool:
    """Whether a process ends: the kernel takes a moment between the signal and the end."""
    for _ in range(100):
        if not identity(pid):
            return True
        await asyncio.sleep(0.01)
    return False


async def test_exit_code_and_output_are_those_of_the_program(tmp_path: Path) -> None:
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    async with python(code, tmp_path) as (process, sink):
        assert await process.wait() == Exit(3)
    assert sink.text == {"stdout": b"out\n", "stderr": b"err\n"}


async def test_a_signal_becomes_128_plus_its_number(tmp_path: Path) -> None:
    async with python("import time; time.sleep(60)", tmp_path) as (process, _):
        process.signal(signal.SIGKILL)
        assert await process.wait() == Exit(137, signal.SIGKILL)


async def test_the_environment_is_exactly_what_is_given_and_stdin_is_closed(tmp_path: Path) -> None:
    code = "import os, sys; print(sorted(os.environ), repr(sys.stdin.read()), os.getcwd())"
    async with python(code, tmp_path) as (process, sink):
        await process.wait()
        line = await sink.line()
    known = {"LC_CTYPE"}  # added by Python itself in a C locale
    assert set(eval(line[: line.index("]") + 1])) - known == {"PATH"}
    assert line.endswith(f"'' {tmp_path}")


async def test_stop_is_gentle_first(tmp_path: Path) -> None:
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *a: sys.exit(7))\n"
        "print('up', flush=True)\ntime.sleep(60)"
    )
    async with python(code, tmp_path) as (process, sink):
        await sink.line()
        assert await process.stop(5) == Exit(7)


async def test_stop_kills_what_does_not_listen(tmp_path: Path) -> None:
    code = (
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('up', flush=True)\ntime.sleep(60)"
    )
    async with python(code, tmp_path) as (process, sink):
        await sink.line()
        begun = time.monotonic()
        assert await process.stop(0.2) == Exit(137, signal.SIGKILL)
        assert 0.2 <= time.monotonic() - begun < 2


async def test_two_may_wait_and_a_cancelled_waiter_takes_nothing_from_the_other(
    tmp_path: Path,
) -> None:
    async with python("import time; time.sleep(60)", tmp_path) as (process, _):
        other = asyncio.create_task(process.wait())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(process.wait(), 0.05)
        process.signal(signal.SIGKILL)
        assert (await other).code == 137


CHILD = (
    "import subprocess, sys\n"
    "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
    "print(p.pid, flush=True)\n"
)


async def test_the_exit_is_seen_though_a_child_holds_the_pipes_and_the_child_is_ended(
    tmp_path: Path,
) -> None:
    async with python(CHILD, tmp_path) as (process, sink):
        async with asyncio.timeout(5):
            assert await process.wait() == Exit(0)
        child = int(await sink.line())
        assert identity(child)
    assert await gone(child)


async def test_a_second_cancellation_leaves_no_pipe_open(tmp_path: Path) -> None:
    started: asyncio.Future[Process] = asyncio.get_running_loop().create_future()

    async def block() -> None:
        argv = [sys.executable, "-c", "import time; time.sleep(60)"]
        async with running(argv, env={}, cwd=tmp_path, output=lambda *_: None) as process:
            started.set_result(process)
            await process.wait()

    task = asyncio.create_task(block())
    process = await started
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert process._transport.is_closing()
    await asyncio.wait_for(process.wait(), 5)


async def test_cancelling_the_block_leaves_nothing_of_the_group(tmp_path: Path) -> None:
    started: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def hold() -> None:
        async with python(CHILD + "import time; time.sleep(60)", tmp_path) as (_, sink):
            started.set_result(int(await sink.line()))
            await asyncio.sleep(60)

    task = asyncio.create_task(hold())
    child = await started
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await gone(child)


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["no-such-program-here"], 'exec: "no-such-program-here": program not found'),
        (["/"], "Permission denied"),
        ([sys.executable, "\0"], "null byte"),
    ],
)
async def test_a_program_that_cannot_start_says_why(
    argv: list[str], says: str, tmp_path: Path
) -> None:
    with pytest.raises(StartError, match=says):
        async with running(argv, env=ENV, cwd=tmp_path, output=Sink()):
            pass


async def test_a_pod_gives_way_to_the_cluster(tmp_path: Path) -> None:
    async with python("import time; time.sleep(30)", tmp_path) as (process, _):
        assert os.getpriority(os.PRIO_PROCESS, process.pid) > os.getpriority(os.PRIO_PROCESS, 0)
