"""The wire: decoding, the system prompt, and bodies that nobody should send."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaos.agent.errors import BadRequest
from kaos.agent.openai import ChatRequest, decode_request, with_instructions

HELLO = {"role": "user", "content": "Hello"}


def decoded(**fields: Any) -> ChatRequest:
    return decode_request(json.dumps({"messages": [HELLO], **fields}).encode())


def test_sampling_parameters_are_kept_and_unknown_fields_ignored() -> None:
    request = decoded(temperature=0.2, stop=["x"], seed=1, no_such_field={"a": 1}, store=True)
    assert request.parameters == {"temperature": 0.2, "stop": ["x"], "seed": 1}


def test_null_is_as_good_as_absent() -> None:
    request = decoded(temperature=None, tools=None, stream=None, stream_options=None, n=None)
    assert request == decoded()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "task-delegation", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
        # It was a 500 where the session was looked up.
        ({"messages": [{"role": "assistant", "tool_call_id": []}]}, "messages.0.tool_call_id"),
        ({"n": 2}, "n"),
        ({"tools": [{"type": "function"}]}, "tools.0.function"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools.0.function.name"),
        ({"stream": "perhaps"}, "stream"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        decoded(**fields)
    assert str(caught.value.param).startswith(param)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"\xff\xfe",
        b'{"messages": [{"role": "user", "content": NaN}]}',
        b'{"messages": [{"role": "user", "content": "x"}], "temperature": NaN}',
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        b"[" * 100_000,
        b'{"messages":' * 5_000,
        b'{"messages": [{"role": "user", "content": [' + b"[" * 1000,
    ],
)
def test_what_is_no_request_is_a_bad_request(body: bytes) -> None:
    with pytest.raises(BadRequest):
        decode_request(body)


@given(st.binary(max_size=200))
def test_no_bytes_are_more_than_a_bad_request(body: bytes) -> None:
    with pytest.raises(BadRequest):
        decode_request(body)


def test_instructions_come_first_and_the_callers_system_messages_after() -> None:
    messages = with_instructions(
        "Agent.",
        [
            {"role": "developer", "content": "Caller."},
            {"role": "system", "content": [{"type": "text", "text": "More."}]},
            HELLO,
            {"role": "developer", "content": "Late."},
        ],
    )
    assert messages == [
        {"role": "system", "content": "Agent.\n\nCaller.\n\nMore."},
        HELLO,
        {"role": "system", "content": "Late."},
    ]


def test_without_instructions_there_is_no_empty_system_message() -> None:
    assert with_instructions("", [HELLO]) == [HELLO]
