"""The program: its help, its exit codes, one line for each failure."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kaos import __version__
from kaos.cli.errors import CliError, UsageError, leaf
from kaos.cli.main import COMMANDS, app, load, report
from kaos.cli.ports import free_port
from kaos.cli.up import overrides_of


def invoke(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.process
def test_the_help_names_every_command_and_loads_none() -> None:
    code = (
        "import sys\n"
        "from kaos.cli.main import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit:\n    pass\n"
        "bad = [m for m in ('aiohttp', 'yaml', 'pydantic', 'rich.markdown', 'kaos.runtime')"
        " if m in sys.modules]\n"
        "sys.exit(f'loaded: {bad}' if bad else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == 0, done.stderr
    for name, text in COMMANDS.items():
        assert name in done.stdout
        assert text in " ".join(done.stdout.split())


@pytest.mark.process
def test_an_interrupt_while_the_program_loads_is_silent() -> None:
    """Ctrl-C in the first moment showed a traceback from the middle of an import."""
    code = (
        "import sys\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'typer':\n            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "import kaos.cli.main\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_of_itself_what_the_help_says_of_it(name: str) -> None:
    assert (load(name).help or "").splitlines()[0] == COMMANDS[name]
    code, out, _ = invoke(name, "--help")
    assert code == 0
    assert COMMANDS[name] in " ".join(out.split())


def test_version() -> None:
    assert invoke("version") == (0, f"kaos {__version__}\n", "")
    assert invoke("--version") == (0, f"kaos {__version__}\n", "")


def test_an_empty_question_is_a_usage_error(tmp_path: Path) -> None:
    code, _, err = invoke("chat", "assistant", " ", "--state", str(tmp_path))
    assert (code, err) == (2, "kaos: TEXT is empty: there is nothing to ask\n")


def test_a_misspelled_command_is_a_usage_error_with_the_nearest_name() -> None:
    code, _, err = invoke("verson")
    assert code == 2
    assert "version" in err


@pytest.mark.parametrize("command", ["status", "logs", "chat"])
def test_without_a_cluster_the_exit_code_is_3(command: str, tmp_path: Path) -> None:
    name = [] if command == "status" else ["assistant"]
    code, out, err = invoke(command, *name, "--state", str(tmp_path / "none"))
    assert (code, out) == (3, "")
    assert err.startswith("kaos: no cluster runs in ")
    assert "kaos up" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.yaml"], "kaos: missing.yaml: No such file or directory"),
        (["--ask", " "], "kaos: --ask needs a question"),
        (["--model-override", "x"], "kaos: --model-override x: write FROM=TO"),
        (["--port", "99999"], "--port"),
    ],
)
def test_a_wrong_command_line_starts_nothing(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    code, _, err = invoke("up", *arguments, "--state", str(state))
    assert code == 2
    assert message in err
    assert "Traceback" not in err
    assert not state.exists()


def test_ask_without_an_agent_in_the_files_starts_nothing(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n")
    code, _, err = invoke("up", str(file), "--ask", "hi", "--state", str(tmp_path / "state"))
    assert (code, err) == (2, f"kaos: --ask: there is no Agent in {file}\n")


def test_verbose_shows_the_traceback_before_or_after_the_command() -> None:
    for arguments in (("-v", "up", "missing.yaml"), ("up", "missing.yaml", "--verbose")):
        code, _, err = invoke(*arguments)
        assert code == 2
        assert "Traceback" in err


def test_an_error_that_nobody_foresaw_is_one_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(ZeroDivisionError("division by zero"), verbose=False) == 1
    err = capsys.readouterr().err
    assert err == "kaos: division by zero (ZeroDivisionError; `kaos -v …` shows where)\n"


def test_a_state_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = invoke("up", "--state", str(tmp_path / "file" / "x"), "--port", str(free_port()))
    assert code == 1
    assert err.startswith(f"kaos: cannot use {tmp_path}/file/x for the cluster's state")
    assert len(err.splitlines()) == 1


def test_of_several_errors_our_own_words_are_told() -> None:
    told = CliError("the cluster process was killed")
    group = ExceptionGroup("g", [OSError("reset"), ExceptionGroup("h", [told])])
    assert leaf(group) is told


def test_exit_codes() -> None:
    assert CliError("x").exit_code == 1
    assert UsageError("x").exit_code == 2
    assert CliError("x", exit_code=3).exit_code == 3


def test_overrides() -> None:
    assert overrides_of(["llama3.2:latest=smollm2:135m", "a = b"]) == {
        "llama3.2:latest": "smollm2:135m",
        "a": "b",
    }
    for wrong in ("x", "=x", "x=", "a=b=c", "a=b,c=d"):
        with pytest.raises(UsageError, match="FROM=TO"):
            overrides_of([wrong])
