"""`kaos down`: who is stopped, and what is deleted."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kaos.cli import down
from kaos.cli.main import app
from kaos.local.state import State

pytestmark = pytest.mark.process


def holder(state: State, on_sigterm: str) -> subprocess.Popen[str]:
    """A process that owns the folder and does this when it is asked to end."""
    code = f"""
        import signal, sys, time
        from kaos.local.state import State
        State({str(state.folder)!r}).own()
        signal.signal(signal.SIGTERM, lambda *_: {on_sigterm})
        print("held", flush=True)
        time.sleep(60)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def run(state: State, *arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["down", "--state", str(state.folder), *arguments])
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path / ".kaos")


def test_the_owner_is_asked_to_end(state: State) -> None:
    with holder(state, "sys.exit(0)") as process:
        code, out, _ = run(state)
        assert process.wait(5) == 0
    assert (code, out) == (0, f"Stopping the cluster (process {process.pid}) …\nStopped\n")
    assert run(state) == (0, "Nothing runs\n", "")


def test_an_owner_that_does_not_end_is_killed(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(down, "STOP_DEADLINE", 0.2)
    with holder(state, "None") as process:
        code, out, _ = run(state)
        assert process.wait(5) == -9
    assert code == 0
    assert out.endswith("Stopped\n")


def test_no_folder_is_nothing_running_and_none_is_made(state: State) -> None:
    code, out, _ = run(state)
    assert (code, out) == (0, f"Nothing runs: there is no {state.folder}\n")
    assert not state.folder.exists()


def test_purge_deletes_the_state(state: State) -> None:
    with state.lock():
        pass
    code, out, _ = run(state, "--purge")
    assert code == 0
    assert f"Deleted {state.folder}" in out
    assert not state.folder.exists()


def test_purge_does_not_delete_what_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    code, _, err = run(State(tmp_path), "--purge")
    assert code == 2
    assert "does not look like a state folder of KAOS" in err
    assert (tmp_path / "thesis.txt").exists()
