"""What of a session goes into a prompt, and what of a request is new to it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaos.agent.memory.history import continue_, fit, kept, tokens

ALL = 10**9
Message = dict[str, Any]


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def said(text: str) -> Message:
    return {"role": "assistant", "content": text}


CALL: Message = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    ],
}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "rain"}
KNOWN = [user("a"), said("A"), user("b"), said("B")]


def test_new_messages_get_the_history_in_front() -> None:
    joined = continue_(KNOWN, [user("c")], ALL)
    assert joined.prompt == [*KNOWN, user("c")]
    assert joined.new == [user("c")]


def test_a_whole_conversation_adds_what_comes_after_what_is_known() -> None:
    joined = continue_(KNOWN, [*KNOWN, user("c")], ALL)
    assert joined.prompt == [*KNOWN, user("c")]
    assert joined.new == [user("c")]


def test_the_end_of_a_conversation_gets_its_beginning() -> None:
    joined = continue_(KNOWN, [said("B"), user("c")], ALL)
    assert joined.prompt == [*KNOWN, user("c")]
    assert joined.new == [user("c")]


def test_a_conversation_that_knows_more_than_the_session_is_taken_as_it_is() -> None:
    asked = [user("older"), said("OLDER"), *KNOWN, user("c")]
    joined = continue_(KNOWN, asked, ALL)
    assert (joined.prompt, joined.new) == (asked, [user("c")])


def test_the_same_words_again_are_a_new_message() -> None:
    joined = continue_([user("a"), said("A")], [user("a")], ALL)
    assert joined.prompt == [user("a"), said("A"), user("a")]
    assert joined.new == [user("a")]


def test_an_edited_conversation_is_the_prompt_and_its_new_end_is_added() -> None:
    asked = [user("a"), said("A"), user("b, rather")]
    joined = continue_(KNOWN, asked, ALL)
    assert (joined.prompt, joined.new) == (asked, [user("b, rather")])


def test_a_conversation_the_session_knows_nothing_of_is_imported_whole() -> None:
    asked = [user("x"), said("X"), user("y")]
    for known in ([], KNOWN):
        joined = continue_(known, asked, ALL)
        assert (joined.prompt, joined.new, joined.own) == (asked, asked, True)


@pytest.mark.parametrize("asked", [[RESULT], [CALL, RESULT], [user("w?"), CALL, RESULT]])
def test_a_tools_result_finds_its_call(asked: list[Message]) -> None:
    known = [user("w?"), CALL]
    joined = continue_(known, asked, ALL)
    assert joined.prompt == [user("w?"), CALL, RESULT]
    assert joined.new == [RESULT]


def test_what_a_client_adds_or_drops_does_not_make_a_message_another() -> None:
    theirs = {**said(" B\n"), "refusal": None, "annotations": []}
    parts = user([{"type": "text", "text": "c"}])  # type: ignore[arg-type]
    joined = continue_(KNOWN, [user("a"), said("A"), user("b"), theirs, parts], ALL)
    assert joined.new == [parts]


def test_a_picture_is_a_part_of_what_makes_a_message() -> None:
    one, other = (
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}
        for url in ("data:1", "data:2")
    )
    joined = continue_([one, said("A")], [other, said("A"), user("c")], ALL)
    assert joined.prompt == [other, said("A"), user("c")]


def test_system_messages_belong_to_the_request() -> None:
    system = {"role": "system", "content": "Be brief."}
    developer = {"role": "developer", "content": "Be kind."}
    joined = continue_(KNOWN, [system, user("c"), developer], ALL)
    assert joined.prompt == [system, *KNOWN, user("c"), developer]
    assert joined.new == [user("c")]


def test_the_history_is_cut_before_a_users_message() -> None:
    known = [user("w?"), CALL, RESULT, said("It rains."), user("b"), said("B")]
    one = tokens(user("b")) + tokens(said("B"))
    assert fit(known, one + tokens(said("It rains.")) + 101) == known
    for limit in range(101, 101 + tokens(CALL)):
        assert fit(known, limit)[0]["role"] == "user"
    long = [user("x" * 3000), said("A"), user("b"), said("B")]
    assert fit(long, 500) == long[2:]
    assert fit([user("x" * 3000), said("A")], 500) == []
    assert fit(known, 0) == []


def test_a_small_limit_counts_messages_as_it_did_in_earlier_versions() -> None:
    assert fit(KNOWN, 2) == KNOWN[2:]
    assert fit(KNOWN, 3) == KNOWN[2:]
    assert fit(KNOWN, 4) == KNOWN


WORDS = st.text("ab ", min_size=1, max_size=3)


@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=8), st.data())
def test_however_a_caller_sends_a_conversation_the_session_and_the_prompts_are_the_same(
    turns: list[tuple[str, str]], data: st.DataObject
) -> None:
    session: list[Message] = []
    for number, (asks, answers) in enumerate(turns):
        # From here back the caller sends along: nothing, a part, or all it has.
        back = data.draw(st.integers(0, number))
        at = 2 * (number - back)
        whole = [*session, user(asks)]
        joined = continue_(session, whole[at:] if back else [user(asks)], ALL)
        assert [m["content"].strip() for m in joined.prompt] == [
            m["content"].strip() for m in whole
        ]
        session += [*joined.new, said(answers)]
    assert [m["content"] for m in session] == [text for turn in turns for text in turn]


def test_a_call_is_known_whatever_the_order_of_its_fields() -> None:
    """openai's client sends `{arguments, name}` back: each session with tools was stored twice."""
    function = {"arguments": "{}", "name": "weather"}
    theirs = {**CALL, "tool_calls": [{"id": "c1", "type": "function", "function": function}]}
    known = [user("a"), said("A"), user("w"), CALL]
    joined = continue_(known, [user("w"), theirs, RESULT], ALL)
    assert joined.new == [RESULT]
    assert joined.prompt == [user("a"), said("A"), user("w"), theirs, RESULT]


def test_a_call_that_the_caller_never_answered_is_left_out() -> None:
    """Model APIs refuse a call without its result, so each later request of the session failed."""
    joined = continue_([user("w"), CALL], [user("never mind")], ALL)
    assert joined.prompt == [user("w"), user("never mind")]
    more = {**CALL, "content": "Wait.", "tool_calls": [*CALL["tool_calls"], {"id": "c2"}]}
    joined = continue_([user("w"), more, RESULT, said("rain")], [user("and?")], ALL)
    assert joined.prompt[1] == {**more, "tool_calls": CALL["tool_calls"]}


def test_a_result_comes_with_its_call_whatever_that_costs() -> None:
    """A long question was cut away, and the model got a result of nothing."""
    known = [user("a"), said("A"), user("w" * 1000), CALL]
    joined = continue_(known, [RESULT], 200)
    assert joined.prompt == [user("w" * 1000), CALL, RESULT]
    assert joined.new == [RESULT]


def test_an_answer_without_text_is_remembered_as_one() -> None:
    """null content without a call is refused by model APIs."""
    assert kept({"role": "assistant", "content": None}) == {"role": "assistant", "content": ""}
    assert kept(CALL)["content"] is None
