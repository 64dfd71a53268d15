"""Progress: the same facts on a terminal and in a pipe."""

import io

import pytest
from rich.console import Console

from kaos.cli.render import Progress, sentence
from kaos.cli.resources import Key, Row

AGENT = Key("Agent", "default", "assistant")
WAITS = Row(AGENT, "Waiting", 'ModelAPI "ollama" does not exist')


def lines(*updates: Row, terminal: bool) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=100, highlight=False)
    with Progress(console) as progress:
        for row in updates:
            progress.update([row])
    return out.getvalue()


def test_in_a_pipe_each_change_is_one_line() -> None:
    said = lines(WAITS, WAITS, Row(AGENT, "Pending", "starts"), Row(AGENT, "Ready"), terminal=False)
    assert said.splitlines() == [
        'Agent/assistant waits: ModelAPI "ollama" does not exist',
        "Agent/assistant waits: starts",
        "Agent/assistant is ready (0.0 s)",
    ]


def test_on_a_terminal_the_table_stays_at_the_end() -> None:
    last = lines(WAITS, Row(AGENT, "Ready"), terminal=True).splitlines()[-1]
    assert "✓" in last
    assert "Agent/assistant" in last
    assert "0.0 s" in last


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
