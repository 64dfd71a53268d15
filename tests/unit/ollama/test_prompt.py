from typing import Any

import pytest

from kaos.local.ollama.prompt import Conversation, PromptError

SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "Repeat: hi"}
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {"id": "1", "type": "function", "function": {"name": "echo", "arguments": '{"m": "hi"}'}}
    ],
}
RESULT = {"role": "tool", "tool_call_id": "1", "content": "hi"}


def test_a_plain_conversation_stays_as_it_is() -> None:
    turns = [SYSTEM, USER, {"role": "assistant", "content": "hi"}, USER]
    conversation = Conversation.parse(turns)
    assert conversation.messages() == turns
    assert conversation.question == "Repeat: hi"
    assert conversation.awaits_choice


def test_system_messages_are_one_and_there_is_always_one() -> None:
    parts = [{"type": "text", "text": "And kind."}]
    conversation = Conversation.parse([SYSTEM, USER, {"role": "developer", "content": parts}])
    assert conversation.messages()[0] == {"role": "system", "content": "Be brief.\nAnd kind."}
    assert Conversation.parse([USER]).messages()[0]["role"] == "system"


def test_results_become_part_of_the_question() -> None:
    conversation = Conversation.parse([SYSTEM, USER, CALL, RESULT, {**RESULT, "content": "ho"}])
    assert not conversation.awaits_choice
    assert conversation.messages()[-1]["content"] == "Repeat: hi\n\nThe tool returned: hi ho"


def test_results_of_earlier_turns_are_told_in_their_place() -> None:
    later = {"role": "user", "content": "And now?"}
    conversation = Conversation.parse(
        [USER, CALL, RESULT, {"role": "assistant", "content": "hi"}, later]
    )
    assert [message["content"] for message in conversation.messages()[1:]] == [
        "Repeat: hi",
        '{"name": "echo", "arguments": "{\\"m\\": \\"hi\\"}"}',
        "The tool returned: hi",
        "hi",
        "And now?",
    ]


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        (None, "messages"),
        ([], "messages"),
        (["hi"], "messages[0]"),
        ([{"role": "king", "content": ""}], "messages[0].role"),
        ([{"role": "user", "content": 3}], "messages[0].content"),
        (
            [USER, {"role": "user", "content": [{"type": "image_url", "image_url": {}}]}],
            "messages[1].content[0]",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(messages: Any, param: str) -> None:
    with pytest.raises(PromptError) as caught:
        Conversation.parse(messages)
    assert caught.value.param == param
