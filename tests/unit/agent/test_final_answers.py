"""How an answer ends when the model does what it must not, or cannot finish."""

from typing import Any

import pytest

from kaos.testing.model import ScriptedModel, ToolCall, Turn, tool_call

ECHO = tool_call("echo", text="x")
MINE = {"type": "function", "function": {"name": "mine", "parameters": {"type": "object"}}}
AS_JSON = {"response_format": {"type": "json_object"}}


@pytest.mark.parametrize("mode", ["native", "text"])
async def test_no_tool_runs_when_the_caller_forbids_it(
    start_agent: Any, ask: Any, model: ScriptedModel, tool_server: str, mode: str
) -> None:
    """Small models call tools under `tool_choice: none` too, and these were run."""
    url = await start_agent(mcp_servers={"t": tool_server}, tool_call_mode=mode)
    marked = '<tool_call>{"name": "echo", "arguments": {"text": "x"}}</tool_call>'
    model.say(ECHO if mode == "native" else Turn(text=f"Well. {marked}"), "never said")
    _, body = await ask(url, tool_choice="none")
    assert len(model.requests) == 1
    choice = body["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert "tool_calls" not in choice["message"]


@pytest.mark.parametrize("mode", ["native", "text"])
async def test_only_the_tools_that_the_caller_allows_are_run(
    start_agent: Any, ask: Any, model: ScriptedModel, tool_server: str, mode: str
) -> None:
    """After the first answer all were allowed, and in text from the beginning."""
    url = await start_agent(mcp_servers={"t": tool_server}, tool_call_mode=mode)
    model.say(*(tool_call(name) for name in ("fail", "echo", "mine")), "done")
    only = {"mode": "required", "tools": [{"type": "function", "function": {"name": "fail"}}]}
    choice = {"type": "allowed_tools", "allowed_tools": only}
    _, body = await ask(url, tools=[MINE], tool_choice=choice)
    assert body["choices"][0]["message"]["content"] == "done"
    results = "".join(str(message["content"]) for message in model.requests[-1].messages)
    assert results.count("Error executing tool fail") == 1
    assert results.count("The tools are: fail.") == 2
    if mode == "native":
        named = [[t["function"]["name"] for t in r.body["tools"]] for r in model.requests]
        assert named == [["fail"]] * 4
        assert [r.body["tool_choice"] for r in model.requests] == ["required", *["auto"] * 3]
    status, body = await ask(url, tool_choice={"type": "allowed_tools", "allowed_tools": {}})
    assert (status, body["error"]["param"]) == (400, "allowed_tools.mode")


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_callers_call_that_was_cut_off_says_so(
    start_agent: Any, ask: Any, stream: Any, model: ScriptedModel, streamed: bool
) -> None:
    """It was called complete, and the client parsed half of a JSON object."""
    url = await start_agent()
    cut = Turn(tool_calls=(ToolCall(name="mine", arguments='{"a": "b'),), finish_reason="length")
    model.say(cut)
    last = (await stream(url, tools=[MINE]))[-2] if streamed else (await ask(url, tools=[MINE]))[1]
    assert last["choices"][0]["finish_reason"] == "length"


async def test_an_own_call_that_was_cut_off_is_not_made(
    start_agent: Any, ask: Any, model: ScriptedModel, tool_server: str
) -> None:
    url = await start_agent(mcp_servers={"t": tool_server})
    call = ToolCall(name="echo", arguments='{"text": "b')
    model.say(Turn(text="I", tool_calls=(call,), finish_reason="length"), "never said")
    _, body = await ask(url)
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["choices"][0]["message"]["content"] == "I"
    assert len(model.requests) == 1


async def test_a_model_that_calls_on_when_its_steps_are_spent_gives_a_note(
    start_agent: Any, ask: Any, model: ScriptedModel, tool_server: str
) -> None:
    """The answer was null."""
    url = await start_agent(mcp_servers={"t": tool_server}, max_steps=1)
    model.say(ECHO, ECHO)
    _, body = await ask(url)
    assert body["choices"][0]["finish_reason"] == "length"
    assert "max_steps" in body["choices"][0]["message"]["content"]


@pytest.mark.parametrize("streamed", [False, True])
async def test_what_is_parsed_has_nothing_in_front_of_it(
    start_agent: Any,
    ask: Any,
    stream: Any,
    text_of: Any,
    model: ScriptedModel,
    tool_server: str,
    streamed: bool,
) -> None:
    """With a `response_format`, what the model says beside its calls made the answer no JSON."""
    url = await start_agent(mcp_servers={"t": tool_server})
    model.say(Turn(text="Let me look.", tool_calls=ECHO.tool_calls), '{"answer": 5}')
    if streamed:
        text = text_of(await stream(url, **AS_JSON))
    else:
        text = (await ask(url, **AS_JSON))[1]["choices"][0]["message"]["content"]
    assert text == '{"answer": 5}'


@pytest.mark.parametrize(
    "calls",
    [
        [{"id": "c", "type": "custom", "custom": {"name": "grep", "input": "x"}}],
        [{"id": "c", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}],
        [{"id": "c", "type": "function"}],
    ],
)
async def test_calls_of_every_form_are_written_as_text(
    start_agent: Any, ask: Any, model: ScriptedModel, calls: list[Any]
) -> None:
    """A custom call in the history was a 500 in text mode."""
    url = await start_agent(tool_call_mode="text")
    model.say("ok")
    history = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c", "content": "r"},
    ]
    status, _ = await ask(url, history, tools=[MINE])
    assert status == 200
    assert "<tool_call>" in model.requests[0].messages[-2]["content"]


async def test_a_number_that_json_cannot_hold_is_refused(start_agent: Any, http: Any) -> None:
    url = await start_agent()
    body = '{"messages": [{"role": "user", "content": "q"}], "temperature": 1e999}'
    async with http.post(f"{url}/v1/chat/completions", data=body) as response:
        assert response.status == 400
        assert "temperature" in await response.text()
