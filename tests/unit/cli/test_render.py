"""Progress: the same facts on a terminal and in a pipe."""

import io

import pytest
from rich.console import Console

from kaos.cli.render import Progress, sentence
from kaos.cli.resources import Key, Row

AGENT = Key("Agent", "default", "assistant")
READY = Row(AGENT, "Ready")
WAITS = Row(AGENT, "Waiting", 'ModelAPI "ollama" does not exist')


def lines(*updates: tuple[float, Row], terminal: bool) -> list[str]:
    now = [0.0]
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=100, soft_wrap=True, highlight=False)
    with Progress(console, lambda: now[0]) as progress:
        for moment, row in updates:
            now[0] = moment
            progress.update([row])
    return out.getvalue().splitlines()


def test_in_a_pipe_what_lasts_is_one_line() -> None:
    starts = Row(AGENT, "Pending", "starts")
    updates = [(0, starts), (1, WAITS), (2, WAITS), (3, WAITS), (4, WAITS), (5, starts), (6, READY)]
    assert lines(*updates, terminal=False) == [
        'Agent/assistant waits: ModelAPI "ollama" does not exist',
        "Agent/assistant is ready (6.0 s)",
    ]


def test_in_a_pipe_a_failure_is_told_at_once() -> None:
    updates = [(0, Row(AGENT, "Failed", "x" * 500)), (1, WAITS)]
    (line,) = lines(*updates, terminal=False)
    assert line == f"Agent/assistant failed: {'x' * 500}"


def test_in_a_pipe_who_is_suspended_is_told_at_once() -> None:
    row = Row(AGENT, "Suspended", "spec.suspend is true", "Suspended")
    assert lines((0, WAITS), (1, row), terminal=False) == [
        "Agent/assistant is suspended: spec.suspend is true"
    ]


def test_in_a_pipe_the_same_failure_is_told_once() -> None:
    """A container that crashes at each restart filled the screen with one and the same line."""
    fails, starts = Row(AGENT, "Failed", "exit code 1"), Row(AGENT, "Pending", "0 of 1 pods serve")
    updates = [
        (3.0 * n + moment, fails if n % 2 else starts) for n in range(9) for moment in (0, 2)
    ]
    assert lines(*updates, terminal=False) == [
        "Agent/assistant waits: 0 of 1 pods serve",
        "Agent/assistant failed: exit code 1",
        "Agent/assistant waits: 0 of 1 pods serve",
    ]
    again = lines((0, fails), (1, READY), (2, fails), terminal=False)
    assert again[0] == again[2] == "Agent/assistant failed: exit code 1"


def test_in_a_pipe_progress_is_told_now_and_then() -> None:
    updates = [(t, Row(AGENT, "Pending", f"pulled {t} %")) for t in range(12)]
    assert lines(*updates, terminal=False) == [
        "Agent/assistant waits: pulled 5 %",
        "Agent/assistant waits: pulled 10 %",
    ]


def test_on_a_terminal_the_table_stays_at_the_end() -> None:
    last = lines((0, WAITS), (2, READY), terminal=True)[-1]
    assert "✓" in last
    assert "Agent/assistant" in last
    assert "2.0 s" in last


def test_an_error_inside_leaves_the_terminal_in_order() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True)

    def fail() -> None:
        with Progress(console) as progress:
            progress.update([WAITS])
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert "\x1b[?25h" in out.getvalue()  # the cursor is shown again


def test_a_message_cannot_take_over_the_terminal_or_be_read_as_markup() -> None:
    row = Row(AGENT, "Failed", "[red]x[/red]\x1b[2J")
    assert sentence(row).plain == "Agent/assistant failed: [red]x[/red][2J"


def test_on_a_terminal_a_download_has_a_bar() -> None:
    pulling = Row(AGENT, "Pending", "pulling model x: 50 % of 93 MB", progress=0.5)
    drawn = "\n".join(lines((0, pulling), (1, READY), terminal=True))
    assert "━━━" in drawn
    assert "50 % of 93 MB" in drawn
