"""Budgets: each ends a run honestly, with what was done and which budget it was."""

from typing import Any

import pytest

from kaos.testing.model import ScriptedModel, ToolCall, Turn, tool_call
from kaos.testing.waiting import eventually

ECHO = tool_call("echo", text="x")


async def test_calls_beyond_the_budget_are_refused_and_the_answer_says_so(
    start_agent: Any, ask: Any, model: ScriptedModel, tool_server: str
) -> None:
    url = await start_agent(mcp_servers={"t": tool_server}, max_tool_calls=1, max_steps=5)
    model.say(Turn(tool_calls=ECHO.tool_calls * 2), "what I know")
    _, body = await ask(url)
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["choices"][0]["message"]["content"] == "what I know"
    assert body["kaos"]["limit"] == "max_tool_calls"
    done = sorted((done["kind"], done["is_error"]) for done in body["kaos"]["done"])
    assert done == [("model", False), ("model", False), ("tool", False), ("tool", True)]
    assert "No more tools" in model.requests[1].messages[-1]["content"]
    assert model.requests[1].body["tool_choice"] == "none"


async def test_a_budget_that_is_just_enough_ends_nothing(
    start_agent: Any, ask: Any, model: ScriptedModel, tool_server: str
) -> None:
    url = await start_agent(mcp_servers={"t": tool_server}, max_tool_calls=1)
    model.say(ECHO, "done")
    _, body = await ask(url)
    assert body["choices"][0]["finish_reason"] == "stop"
    assert "limit" not in body["kaos"]


@pytest.mark.parametrize("said", ["Let me see.", ""])
async def test_spent_tokens_end_with_what_was_said(
    start_agent: Any, stream: Any, text_of: Any, model: ScriptedModel, tool_server: str, said: str
) -> None:
    url = await start_agent(mcp_servers={"t": tool_server}, max_tokens=50)
    usage = {"prompt_tokens": 40, "completion_tokens": 10, "total_tokens": 50}
    model.say(Turn(text=said, tool_calls=ECHO.tool_calls, usage=usage))
    *_, last, _done = events = await stream(url)
    assert last["choices"][0]["finish_reason"] == "length"
    assert last["kaos"]["limit"] == "max_tokens"
    assert text_of(events) == (
        said or "[Stopped before there was an answer: max_tokens is used up.]"
    )
    assert len(model.requests) == 1, "the call is not made: nobody could use its result"


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_answer_under_way_is_cut_when_the_time_is_over(
    start_agent: Any, ask: Any, stream: Any, text_of: Any, model: ScriptedModel, streamed: bool
) -> None:
    url = await start_agent(max_seconds=0.3)
    model.say(Turn(text="one two three", piece_delay=0.2))
    if streamed:
        events = await stream(url)
        text, last = text_of(events), events[-2]
    else:
        _, last = await ask(url)
        text = last["choices"][0]["message"]["content"]
    assert text == "one two "
    assert last["choices"][0]["finish_reason"] == "length"
    assert last["kaos"]["limit"] == "max_seconds"
    await eventually(lambda: model.requests[0].outcome == "cancelled")


async def test_a_tool_under_way_is_cut_when_the_time_is_over(
    start_agent: Any, ask: Any, model: ScriptedModel
) -> None:
    slow = await start_agent(name="slow", instructions="I am slow.")
    url = await start_agent(max_seconds=0.3, peers={"slow": slow})
    call = ToolCall(name="delegate_to_slow", arguments={"task": "x"})
    model.say(Turn(text="I ask.", tool_calls=(call,)))
    model.say(Turn(text="late", delay=30), when="I am slow.")
    _, body = await ask(url)
    assert body["choices"][0]["message"]["content"] == "I ask."
    assert body["kaos"]["limit"] == "max_seconds"
    assert body["kaos"]["done"][-1] == {
        "kind": "delegation",
        "name": "delegate_to_slow",
        "is_error": True,
    }
