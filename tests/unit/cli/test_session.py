"""What `kaos up` says and does around a cluster, short of starting one."""

import os
import subprocess
from pathlib import Path
from tempfile import TemporaryFile
from types import SimpleNamespace
from typing import Any

import pytest

from kaos.cli import watcher as watching
from kaos.cli.cluster_process import ClusterProcess
from kaos.cli.errors import CliError
from kaos.cli.logs import _nobody
from kaos.cli.render import console
from kaos.cli.request import Request
from kaos.cli.resources import Key, Row
from kaos.cli.session import _Session, state_option
from kaos.cli.watcher import Watcher
from kaos.local.apiserver import APIServer
from kaos.local.state import ClusterInfo, State
from kaos.runtime import Client, ClusterConfig

AGENT = Key("Agent", "default", "assistant")


def test_a_hint_names_the_state_folder_unless_it_is_the_usual_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert state_option(State().folder) == ""
    assert state_option(State("my state").folder) == " --state 'my state'"
    assert state_option(State("/x/y").folder) == " --state /x/y"


async def test_a_kind_that_somebody_deleted_is_told_and_not_awaited_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watching, "_START_PATIENCE", 0.3)
    server = APIServer()
    with pytest.raises(ExceptionGroup) as caught:
        async with server.serve() as url, Watcher(ClusterConfig.direct(url)).running():
            raise AssertionError("it has started")
    (error,) = caught.value.exceptions
    assert isinstance(error, CliError)
    assert "no Agent" in str(error)
    assert "kaos down" in str(error)


async def test_logs_of_a_kind_are_not_promised_by_a_namesake_of_another_kind() -> None:
    class Knows:
        async def list(self, model: type, _namespace: str) -> list[object]:
            return [type("Found", (), {"name": "ollama"})] if model.__name__ == "ModelAPI" else []

    client: Client = Knows()  # type: ignore[assignment]
    assert await _nobody(client, "ollama", ["Agent"], "default") == "no Agent is called ollama"
    assert "has no pod yet" in await _nobody(client, "ollama", ["ModelAPI"], "default")


def test_the_address_that_is_shown_is_the_agents_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def agent(name: str, reason: str) -> dict[str, Any]:
        routed = {"type": "Routed", "status": "False", "reason": reason, "message": "x"}
        return {
            "kind": "Agent",
            "metadata": {"name": name, "namespace": "team"},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, routed]},
        }

    made = _Session(Request(State(tmp_path), timeout=1), [], None)
    made._out = console()
    info: ClusterInfo = SimpleNamespace(gateway_url="http://g")  # type: ignore[assignment]
    reasons = ("RouteConflict", "RouteAccepted", "NotExposed", "GatewayAPIMissing")
    made._show_urls(info, [agent(f"a{n}", reason) for n, reason in enumerate(reasons)])
    shown = [line.strip().split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert [line for line in shown if line and line[0].startswith("Agent/")] == [
        ["Agent/team/a0", "http://g/team/agent/a0/v1/chat/completions"],
        ["Agent/team/a1", "http://g/a1/v1/chat/completions"],
        ["Agent/team/a2", "not exposed"],
        ["Agent/team/a3", "no route yet"],
    ]


def failed() -> subprocess.Popen[bytes]:
    process = subprocess.Popen(["false"])
    process.wait()
    return process


@pytest.mark.process
async def test_of_two_that_start_at_once_the_slower_uses_the_cluster_of_the_faster(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second `kaos up` in a folder said that the folder is in use, and applied nothing."""
    state = State(tmp_path)
    state.prepare()
    with TemporaryFile() as words, state.lock():
        faster = ClusterInfo(os.getpid(), "now", "http://x", 18080, "1")
        state.write_info(faster)
        process = ClusterProcess(state, failed(), words, -1)
        made = _Session(Request(state, timeout=1, port=18080), [], process)
        made._out = console()
        assert await made._cluster(pytest.fail) == faster
        await made.stop()  # which is not ours to stop
    assert capsys.readouterr().out == f"A cluster runs already in {tmp_path}: using that one\n"


@pytest.mark.process
async def test_a_cluster_process_that_ends_with_nobody_faster_is_a_failure(tmp_path: Path) -> None:
    with TemporaryFile() as words:
        words.write(b"kaos: the disk is full\n")
        process = ClusterProcess(State(tmp_path), failed(), words, -1)
        with pytest.raises(CliError, match=r"^the disk is full$"):
            await process.ready()


async def test_what_comes_back_broken_does_not_keep_a_cluster_from_coming_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken:
        def keys(self) -> list[Key]:
            return [AGENT]

        def rows(self, keys: list[Key]) -> list[Row]:
            return [Row(key, "Waiting", 'ModelAPI "m" does not exist') for key in keys]

        async def changed(self, timeout: float) -> None:
            del timeout

    class Shows:
        def update(self, rows: list[Row]) -> None:
            assert rows

    made = _Session(Request(State(tmp_path), timeout=0.1), [], None)
    made._out = console()
    await made._return(Broken(), Shows())  # type: ignore[arg-type]
    assert 'Agent/assistant is not ready: ModelAPI "m" does not exist' in capsys.readouterr().out


def test_the_two_signals_of_timeout_are_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """timeout(1) signals its child, and then its group: `kaos up` was killed instead of ended."""
    now = 100.0
    monkeypatch.setattr("kaos.cli.session.time.monotonic", lambda: now)
    made = _Session(Request(State(tmp_path), timeout=1), [], None)
    for _ in range(2):
        made.interrupted()
    assert made.interrupts == 1
    now += 0.5
    made.interrupted()
    assert made.interrupts == 2
