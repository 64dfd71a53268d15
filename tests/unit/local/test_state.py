"""The state folder: one owner, private files, no trust in pids."""

import json
import os
import stat
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from kaos.local.state import ClusterInfo, State, StateError, StateInUse, write_private


@pytest.fixture
def state(tmp_path: Path) -> State:
    made = State(tmp_path / ".kaos")
    made.prepare()
    return made


def _info(pid: int) -> ClusterInfo:
    return ClusterInfo(pid, "2026-11-22T10:00:00+00:00", "http://127.0.0.1:1", 8080, "0.1.0")


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _holder(state: State) -> subprocess.Popen[str]:
    """Another process that owns the folder."""
    code = f"""
        import sys
        from kaos.local.state import State
        with State({str(state.folder)!r}).lock():
            print("held", flush=True)
            sys.stdin.read()
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_folder_is_private_and_unknown_to_git(state: State) -> None:
    assert _mode(state.folder) == 0o700
    assert (state.folder / ".gitignore").read_text() == "*\n"


def test_a_folder_that_others_may_enter_shows_them_no_secret(tmp_path: Path) -> None:
    state = State(tmp_path)
    tmp_path.chmod(0o755)
    state.database.touch(mode=0o644)  # of a run of an earlier version
    state.prepare()
    for path in (state.database, state.node, state.logs):
        assert _mode(path) & 0o077 == 0


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match=r"cannot use .*file/\.kaos.*--state"):
        State(tmp_path / "file" / ".kaos").prepare()


@pytest.mark.process
def test_only_one_process_owns_the_folder(state: State) -> None:
    process = _holder(state)
    with process:
        assert state.owner() == process.pid
        with pytest.raises(StateInUse, match=f"in use by process {process.pid}") as caught:
            state.lock().__enter__()
        assert caught.value.pid == process.pid
        process.kill()
        process.wait(5)
    assert state.owner() is None
    with state.lock():
        assert state.owner() == os.getpid()


def test_a_dead_process_number_is_not_believed(state: State) -> None:
    """The file names a live process (ours), but nobody holds the lock."""
    with state.lock():
        state.write_info(_info(os.getpid()))
        assert state.running() == _info(os.getpid())
    assert state.read_info() == _info(os.getpid())
    assert state.running() is None


def test_what_a_dead_cluster_said_is_not_believed_of_its_successor(state: State) -> None:
    state.write_info(_info(os.getpid() + 1))
    with state.lock():
        assert state.running() is None


def test_a_glance_at_the_lock_does_not_make_a_start_fail(state: State) -> None:
    stop = threading.Event()

    def glance() -> None:
        while not stop.is_set():
            state.owner()

    watcher = threading.Thread(target=glance)
    watcher.start()
    try:
        for _ in range(20):
            with state.lock():
                pass
    finally:
        stop.set()
        watcher.join()


def test_a_lock_on_a_folder_that_was_deleted_meanwhile_counts_for_nothing(state: State) -> None:
    with state.lock():
        (state.folder / "lock").unlink()  # what `kaos down --purge` does
        with State(state.folder).lock():
            assert state.owner() == os.getpid()


def test_the_token_is_made_once_and_private(state: State) -> None:
    token = state.token()
    assert len(token) >= 32
    assert State(state.folder).token() == token
    assert _mode(state.folder / "token") == 0o600


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}'])
def test_an_unreadable_cluster_file_is_no_cluster(state: State, text: str) -> None:
    state.cluster_file.write_text(text)
    assert state.read_info() is None


def test_info_survives_the_way_through_the_file(state: State) -> None:
    state.write_info(_info(7))
    assert state.read_info() == _info(7)
    assert json.loads(state.cluster_file.read_bytes())["gateway_port"] == 8080
    state.forget_info()
    state.forget_info()
    assert state.read_info() is None


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_private(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_private(path, "\ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_only_a_folder_of_ours_is_recognised(tmp_path: Path, state: State) -> None:
    assert not State(tmp_path).is_ours()
    assert not state.is_ours()
    with state.lock():
        assert state.is_ours()
