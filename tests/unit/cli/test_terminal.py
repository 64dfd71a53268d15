"""Terminals, pipes and locales that are not what one hopes for."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from kaos.cli import chat
from kaos.cli.ask import say
from kaos.cli.errors import CliError
from kaos.cli.main import report, write_anything
from kaos.cli.render import Progress
from kaos.cli.resources import Key, Row

pytestmark = pytest.mark.process


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])  # as Python's own are
def test_an_answer_with_a_letter_that_the_terminal_lacks_is_no_failure(errors: str) -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii", errors=errors)
    write_anything(out)
    out.write("café…")
    out.flush()
    assert raw.getvalue() == b"caf??"


@pytest.mark.parametrize("stream", [0, 1, 2])
def test_a_stream_that_is_closed_from_the_start_is_no_failure(stream: int, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "kaos.cli.main", "status", "--state", str(tmp_path / "none")]
    close = f"import os, sys; os.close({stream}); os.execv(sys.argv[1], sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", close, *command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 3
    assert "Traceback" not in done.stderr


def test_a_question_typed_in_a_locale_without_utf8_arrives_whole() -> None:
    assert chat.utf8(os.fsdecode("naïve".encode())) == "naïve"
    assert chat.utf8("caf\udcc3\udca9") == "café"
    chat.utf8("\udcff").encode()  # what is no UTF-8 at all can still be sent


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("out", "shown"),
    [
        (_Terminal(), "na\u00efve\tx\n]0;me[2Jy"),
        (io.StringIO(), "na\u00efve\tx\n\x1b]0;me\x07\x1b[2Jy"),
    ],
)
def test_an_answer_does_not_take_over_the_terminal_and_reaches_a_pipe_as_it_is(
    out: io.StringIO, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout", out)
    say("na\u00efve\tx\n\x1b]0;me\x07\x1b[2Jy")
    assert out.getvalue() == shown


def test_a_question_from_a_pipe_that_has_no_answer_is_a_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("hello\n"))
    with pytest.raises(CliError, match="cannot talk to a at"):
        chat.converse("http://127.0.0.1:9/default/agent/a", "a")


def test_a_reader_who_leaves_is_not_told_of(capfd: pytest.CaptureFixture[str]) -> None:
    kept = os.dup(1)
    try:
        assert report(BrokenPipeError(32, "Broken pipe"), verbose=False) == 1
    finally:
        os.dup2(kept, 1)
        os.close(kept)
    assert capfd.readouterr().err == ""


def test_a_file_that_may_not_be_read_is_one_plain_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(PermissionError(13, "Permission denied", "/root/x/lock"), verbose=False) == 1
    assert capsys.readouterr().err == "kaos: /root/x/lock: Permission denied\n"


def test_on_a_narrow_terminal_state_and_time_are_shown_whole() -> None:
    out = io.StringIO()
    now = [0.0]
    ready = Row(Key("Agent", "default", "assistant"), "Ready")
    waits = Row(Key("MCPServer", "default", "echo-tools"), "Waiting", "x" * 90)
    narrow = Console(file=out, force_terminal=True, width=60, color_system=None)
    with Progress(narrow, lambda: now[0]) as progress:
        now[0] = 12.3
        progress.update([ready, waits])
        drawn = out.getvalue()
    assert "Ready    12.3 s" in drawn
    assert "Waiting" in drawn
    assert "xxx…" in drawn
