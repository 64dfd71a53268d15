"""Calls written into text: found in every form, never shown, however the text is cut."""

import itertools
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kaos.agent.call_parser import INVALID, CallParser

NAMES = frozenset({"echo", "search"})
ECHO = '{"name": "echo", "arguments": {"text": "hi"}}'


def read(text: str, cuts: list[int] | None = None, finish: str = "stop") -> tuple[str, list[str]]:
    """Return what is shown, and the calls as `name arguments`."""
    parser = CallParser(NAMES)
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts or []), len(text)]
    pieces = [text[a:b] for a, b in itertools.pairwise(edges)]
    shown = "".join(parser.feed(piece) for piece in pieces) + parser.end(finish)
    functions = [call["function"] for call in parser.calls]
    return shown, [f"{f['name']} {f['arguments']}" for f in functions]


HI = 'echo {"text":"hi"}'
FORMS = {
    f"<tool_call>\n{ECHO}\n</tool_call>": [HI],
    f"<tool_call>{ECHO}</tool_call>\n<tool_call>{ECHO}</tool_call>": [HI, HI],
    f"<tool_call>{ECHO}\n{ECHO}</tool_call>": [HI, HI],
    f"<tool_call>[{ECHO}, {ECHO}]</tool_call>": [HI, HI],
    f"<tool_call>{ECHO}": [HI],
    f"```tool_call\n{ECHO}\n```": [HI],
    f"```tool_call {ECHO} ```": [HI],
    f"```json\n{ECHO}\n```": [HI],
    f"```\n{ECHO}\n```": [HI],
    f"[TOOL_CALLS][{ECHO}]": [HI],
    f"[TOOL_CALLS] [{ECHO}]": [HI],
    f"<|python_tag|>{ECHO}": [HI],
    f"<function_call>{ECHO}</function_call>": [HI],
    ECHO: [HI],
    f"\n [{ECHO}]": [HI],
    '{"type": "function", "function": {"name": "echo", "parameters": {"text": "hi"}}}': [HI],
    '<tool_call>{"tool": "echo", "arguments": "{\\"text\\":\\"hi\\"}"}</tool_call>': [HI],
    '<tool_call>{"name": "echo"}</tool_call>': ["echo {}"],
    '<tool_call>{"name": "other", "arguments": {}}</tool_call>': ["other {}"],
    '<tool_call>{"name": "echo", "arguments": {"text": "</tool_call> ```"}}</tool_call>': [
        'echo {"text":"</tool_call> ```"}'
    ],
    '```json\n{"name": "echo", "arguments": {"text": "```\\n}"}}\n```': ['echo {"text":"```\\n}"}'],
    '<tool_call>{"name": "echo", "arguments": {bad}}</tool_call>': [
        'echo {"name": "echo", "arguments": {bad}}'
    ],
    "<tool_call>echo(hi)</tool_call>": [f"{INVALID} echo(hi)"],
    '<tool_call>{"name": "echo", "argu': ['echo {"name": "echo", "argu'],
}
TEXTS = [
    "",
    "  \n",
    "Hello there.",
    "a < b and c > d, <tool> no",
    "```python\nprint('<x>')\n```\nand more",
    '```json\n{"city": "Ulm"}\n```',
    '```json\n{"name": "Ann", "age": 3}\n```\ndone',
    '{"answer": 42}',
    '{"name": "Ann"}',
    "[1, 2, 3]",
    "[TOOL",
    "[TODO] x",
    "<tool_cal",
    "``",
    "```",
    "```json",
    '{"name": "echo", "argum',
    "é ```\n{",
]


@pytest.mark.parametrize("text", FORMS)
@pytest.mark.parametrize("before", ["", "Let me see. "])
def test_a_call_in_any_form_is_found_and_not_shown(text: str, before: str) -> None:
    if before and text.lstrip()[0] in "{[" and "TOOL_CALLS" not in text:
        assert read(before + text) == (before + text, [])  # JSON in the middle of prose is prose
        return
    assert read(before + text) == (before, FORMS[text])


@pytest.mark.parametrize("text", TEXTS)
def test_what_is_no_call_is_shown_word_for_word(text: str) -> None:
    assert read(text) == (text, [])


def test_of_a_model_that_calls_natively_only_its_marks_count() -> None:
    for text, expected in ((f"a <tool_call>{ECHO}</tool_call>", ("a ", [HI])), (ECHO, (ECHO, []))):
        parser = CallParser(NAMES, marks_only=True)
        shown = parser.feed(text) + parser.end("stop")
        assert (shown, len(parser.calls)) == (expected[0], len(expected[1]))
    parser = CallParser(NAMES, marks_only=True)
    fenced = f"```tool_call\n{ECHO}\n```"
    assert (parser.feed(fenced) + parser.end("stop"), parser.calls) == (fenced, [])


def test_text_after_a_call_is_dropped() -> None:
    text = f"I will ask.<tool_call>{ECHO}</tool_call><tool_response>made up</tool_response> So: hi"
    assert read(text) == ("I will ask.", [HI])


def test_a_call_that_was_cut_off_by_the_length_is_none() -> None:
    assert read('So: <tool_call>{"name": "echo", "argu', finish="length") == ("So: ", [])
    assert read(f"<tool_call>{ECHO}", finish="length") == ("", [HI])


def test_json_that_cannot_be_a_call_is_shown_at_once() -> None:
    parser = CallParser(NAMES)
    assert parser.feed('{"answer') == ""
    assert parser.feed('": ') == '{"answer": '
    assert parser.feed("[1, 2") == "[1, 2"


PIECES = st.sampled_from(
    [*FORMS, *TEXTS, "<", "`", "tool_call>", "</tool_call>", "[", "{", '"', "\n", " ", "x y"]
)


@given(
    st.lists(PIECES, max_size=5).map("".join),
    st.lists(st.integers(0, 200), max_size=12),
    st.sampled_from(["stop", "length"]),
)
@example("[TOOL_CALLS][" + ECHO + "]", [3], "stop")
@example("[TOOL_CALLS] [" + ECHO + "][1]", [30], "stop")
@example("```json\n" + ECHO, [2, 4, 7], "stop")
@example("```json\n" + ECHO + "\n```" + ECHO, [53], "stop")
def test_how_the_text_is_cut_changes_nothing(text: str, cuts: list[int], finish: str) -> None:
    assert read(text, cuts, finish) == read(text, None, finish)
    assert read(text, list(range(len(text))), finish) == read(text, None, finish)


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=40), max_size=4), st.data())
def test_arguments_come_through_whatever_is_in_them(
    arguments: dict[str, str], data: st.DataObject
) -> None:
    call = json.dumps({"name": "echo", "arguments": arguments})
    cuts = data.draw(st.lists(st.integers(0, len(call) + 30), max_size=8))
    shown, calls = read(f"<tool_call>{call}</tool_call>", cuts)
    assert shown == ""
    (made,) = calls
    assert json.loads(made.removeprefix("echo ")) == arguments
