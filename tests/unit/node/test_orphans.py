"""What a killed cluster process leaves behind."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kaos.local.node import orphans
from kaos.local.node.orphans import STATE_VARIABLE, ProcessRecords, identity, reap

pytestmark = pytest.mark.process

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="Linux only")
SLEEP = "import time; time.sleep(60)"


@contextlib.contextmanager
def process(code: str = SLEEP, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    found = subprocess.Popen(
        [sys.executable, "-c", code],
        env={"PATH": os.environ["PATH"], **env},
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield found
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(found.pid, signal.SIGKILL)
        found.kill()
        found.wait()
        assert found.stdout is not None
        found.stdout.close()


def test_recorded_processes_are_ended_and_the_records_forgotten(tmp_path: Path) -> None:
    records = ProcessRecords(tmp_path / "processes")
    with process() as found:
        records.add(found.pid, "default/web/main")
        assert [(o.pid, o.owner) for o in reap(tmp_path)] == [(found.pid, "default/web/main")]
        assert found.wait(2) == -signal.SIGTERM
    assert list(records) == []
    assert reap(tmp_path) == []


def test_one_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    code = "import signal; signal.signal(15, signal.SIG_IGN); print(1, flush=True);" + SLEEP
    with process(code) as found:
        assert found.stdout is not None
        found.stdout.readline()
        ProcessRecords(tmp_path / "processes").add(found.pid, "x")
        reap(tmp_path, grace=0.1)
        assert found.wait(2) == -signal.SIGKILL


def test_a_stranger_under_a_number_that_was_used_again_is_not_hit(tmp_path: Path) -> None:
    with process() as stranger:
        ProcessRecords(tmp_path / "processes").add(stranger.pid, "x")
        path = tmp_path / "processes" / f"{stranger.pid}.json"
        record = json.loads(path.read_text())
        path.write_text(json.dumps({**record, "identity": "an earlier process"}))
        assert reap(tmp_path) == []
        assert stranger.poll() is None


def test_broken_records_are_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / "processes"
    folder.mkdir()
    (folder / "1.json").write_text("{")
    (folder / "2.json").write_text('{"pid": 2}')
    assert reap(tmp_path) == []
    assert list(folder.iterdir()) == []


@needs_proc
def test_one_without_a_record_is_found_by_its_mark(tmp_path: Path) -> None:
    code = "print(1, flush=True);" + SLEEP
    with process(code, **{STATE_VARIABLE: str(tmp_path)}) as ours, process() as other:
        assert ours.stdout is not None
        ours.stdout.readline()  # from now on the kernel shows its variables
        assert [o.pid for o in reap(tmp_path)] == [ours.pid]
        assert other.poll() is None


@needs_proc
def test_a_group_whose_first_process_is_gone_is_ended(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(p.pid, flush=True)"
    )
    with process(code, **{STATE_VARIABLE: str(tmp_path)}) as leader:
        ProcessRecords(tmp_path / "processes").add(leader.pid, "x")
        assert leader.stdout is not None
        child = int(leader.stdout.readline())
        leader.wait(5)
        assert identity(child)
        assert leader.pid in {o.pid for o in reap(tmp_path)}
        assert not identity(child)


@needs_proc
def test_without_proc_the_same_answers_come_from_ps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not Path("/bin/ps").exists():
        pytest.skip("no ps")
    monkeypatch.setattr(orphans, "_has_proc", lambda: False)
    with process() as found:
        first = identity(found.pid)
        assert first
        assert first == identity(found.pid)
        ProcessRecords(tmp_path / "processes").add(found.pid, "x")
        assert [o.pid for o in reap(tmp_path)] == [found.pid]
        found.wait(2)
        assert identity(found.pid) == ""


@needs_proc
def test_kill_9_of_the_whole_cluster_process_leaves_nothing_after_reap(tmp_path: Path) -> None:
    code = (
        "import asyncio, pathlib, sys\n"
        "from tests.unit.node.harness import *\n"
        "from tests.unit.node import harness as h\n"
        "async def main():\n"
        f"    async with h.cluster(pathlib.Path({str(tmp_path)!r})) as c:\n"
        "        await c.client.create(h.pod('web', h.server_container()))\n"
        "        await c.until(h.POD, 'web', h.ready)\n"
        "        print((await c.pod('web')).status['containerStatuses'][0]['containerID'],"
        " flush=True)\n"
        "        await asyncio.sleep(60)\n"
        "asyncio.run(main())"
    )
    root = Path(__file__).parents[3]
    with process(code, PYTHONPATH=str(root)) as cluster_process:
        assert cluster_process.stdout is not None
        for line in cluster_process.stdout:
            if line.startswith(b"process://"):
                break
        pid = int(line.rpartition(b"/")[2])
        os.kill(cluster_process.pid, signal.SIGKILL)
        cluster_process.wait(5)
        time.sleep(0.05)
        assert identity(pid)
        assert [o.owner for o in reap(tmp_path)] == ["default/web/main"]
        assert not identity(pid)
