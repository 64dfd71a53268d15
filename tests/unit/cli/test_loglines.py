"""Log lines as people read them."""

import json

from hypothesis import given
from hypothesis import strategies as st

from kaos.cli.loglines import colour_of, printable, render

EVENT = {
    "event": "tool called",
    "level": "warning",
    "timestamp": "2026-11-22T14:03:59.123456Z",
    "logger": "kaos.agent",
    "tool": "echo",
    "arguments": {"text": "hi"},
}


def test_an_event_is_shown_with_its_fields() -> None:
    text = render("agent/a", json.dumps(EVENT), width=10).plain
    assert text == 'agent/a    | 14:03:59 warning tool called tool=echo arguments={"text": "hi"}'


def test_a_plain_line_is_shown_as_it_is() -> None:
    assert render("agent/a", "llama_model_loader: loaded", width=0).plain == (
        "agent/a | llama_model_loader: loaded"
    )


def test_json_that_is_no_event_is_a_plain_line() -> None:
    for line in ("{", "{}", '{"event": 3}', "[1]"):
        assert render("", line).plain == line


def test_an_exception_is_shown_below() -> None:
    line = json.dumps({"event": "failed", "exception": "Traceback\n  File"})
    assert render("", line).plain == "failed\nTraceback\n  File"


def test_a_line_cannot_take_over_the_terminal() -> None:
    assert render("", "a\x1b[2Jb\x07\rc\td").plain == "a[2Jbc\td"
    line = json.dumps({"event": "x\x1b]0;title\x07", "key": "\x1b[31m"})
    assert render("", line).plain == "x]0;title key=[31m"


def test_a_line_without_end_is_cut() -> None:
    assert len(render("", "x" * 100_000).plain) < 5000


def test_a_resource_keeps_its_colour() -> None:
    assert colour_of("agent/a") == colour_of("agent/a")


@given(st.text())
def test_any_line_is_one_line_without_control_characters(line: str) -> None:
    assert printable(render("", line.replace("{", "")).plain) == printable(line.replace("{", ""))
    assert "\n" not in printable(line)
    assert "\x1b" not in printable(line)
