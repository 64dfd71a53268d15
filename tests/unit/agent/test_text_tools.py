"""Models without native calls: tools in the prompt, calls out of the text, nothing shown."""

from typing import Any

import pytest

from kaos.agent import model as model_client
from kaos.agent.openai import Json
from kaos.agent.text_tools import ToolCalling, as_text
from kaos.testing.model import Failure, ScriptedModel, Turn

CALL = '<tool_call>\n{"name": "echo", "arguments": {"text": "hi"}}\n</tool_call>'


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_client, "RETRY_DELAYS", ())


@pytest.mark.parametrize("piece", [1, 3, 0])
async def test_a_call_in_text_is_made_and_never_streamed(
    start_agent: Any, stream: Any, text_of: Any, model: ScriptedModel, tool_server: str, piece: int
) -> None:
    url = await start_agent(mcp_servers={"tools": tool_server}, tool_call_mode="text")
    model.say(Turn(text=f"Let me see.{CALL}", piece=piece), Turn(text="It is: hi"))
    assert text_of(await stream(url)) == "Let me see.\n\nIt is: hi"
    first, second = (request.body for request in model.requests)
    assert "tools" not in first
    assert '"name":"echo"' in first["messages"][0]["content"]
    assert [m["role"] for m in second["messages"]] == ["system", "user", "assistant", "user"]
    assert second["messages"][-2]["content"].endswith("</tool_call>")
    assert second["messages"][-1]["content"] == "<tool_response>\necho: hi\n</tool_response>"


async def test_no_token_of_a_call_is_shown_by_its_logprobs() -> None:
    def logprobs(token: str) -> Json:
        return {"content": [{"token": token, "logprob": -1.0}]}

    class Model:
        async def complete(self, body: Json, *, headers: Any = None, emit: Any = None) -> Any:
            for text in ("Well. ", CALL):
                await emit({"content": text, "logprobs": logprobs(text)})
            message = {"role": "assistant", "content": f"Well. {CALL}"}
            return {"message": message, "finish_reason": "stop", "logprobs": logprobs(CALL)}

    shown: list[Json] = []

    async def emit(delta: Json) -> None:
        shown.append(delta)

    model: Any = Model()
    tools = [{"type": "function", "function": {"name": "echo"}}]
    body = {"messages": [{"role": "user", "content": "Hi"}], "tools": tools}
    turn = await ToolCalling(model, "text").complete(body, emit=emit)
    assert len(turn["message"]["tool_calls"]) == 1
    assert shown == [{"content": "Well. ", "logprobs": logprobs("Well. ")}]
    assert "logprobs" not in turn


async def test_whole_answers_are_read_the_same_way(
    start_agent: Any, ask: Any, model: ScriptedModel, tool_server: str
) -> None:
    url = await start_agent(mcp_servers={"tools": tool_server}, tool_call_mode="text")
    model.say(f"Let me see.{CALL}", "It is: hi")
    _, body = await ask(url)
    assert body["choices"][0]["message"]["content"] == "Let me see.\n\nIt is: hi"


@pytest.mark.parametrize(
    "refusal",
    [
        Failure(status=400, message="registry/smollm2:135m does not support tools"),
        Failure(status=500, message="tools param requires --jinja flag"),
    ],
)
async def test_a_model_that_takes_no_tools_is_given_them_as_text_from_then_on(
    start_agent: Any, ask: Any, model: ScriptedModel, tool_server: str, refusal: Failure
) -> None:
    url = await start_agent(mcp_servers={"tools": tool_server})
    model.say(Turn(error=refusal), CALL, "done", "again")
    _, body = await ask(url)
    assert body["choices"][0]["message"]["content"] == "done"
    await ask(url)
    assert ["tools" in request.body for request in model.requests] == [True, False, False, False]


async def test_one_callers_wish_does_not_take_the_tools_from_all(
    start_agent: Any, ask: Any, model: ScriptedModel, tool_server: str
) -> None:
    """The words are those of a model without tools, and were taken so by the whole process."""
    url = await start_agent(mcp_servers={"tools": tool_server})
    message = "Function tools with reasoning_effort are not supported for this model."
    model.say(Turn(error=Failure(status=400, message=message)), "as text", "native")
    assert (await ask(url, reasoning_effort="high"))[0] == 200
    await ask(url)
    assert ["tools" in request.body for request in model.requests] == [True, False, True]


async def test_native_means_native(
    start_agent: Any, ask: Any, model: ScriptedModel, tool_server: str
) -> None:
    url = await start_agent(mcp_servers={"tools": tool_server}, tool_call_mode="native")
    model.say(CALL, Turn(error=Failure(status=400, message="does not support tools")))
    _, body = await ask(url)
    assert body["choices"][0]["message"]["content"] == CALL
    status, _ = await ask(url)
    assert status == 400


async def test_a_callers_tool_called_in_text_is_handed_back(
    start_agent: Any, ask: Any, model: ScriptedModel
) -> None:
    model.say('<tool_call>{"name": "weather", "arguments": {}}</tool_call>')
    tools = [{"type": "function", "function": {"name": "weather"}}]
    _, body = await ask(await start_agent(tool_call_mode="text"), tools=tools)
    choice = body["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["tool_calls"][0]["function"]["name"] == "weather"


def test_results_that_follow_each_other_become_one_message() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "a", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": None, "tool_calls": [call, call]},
        {"role": "tool", "tool_call_id": "1", "content": "one"},
        {"role": "tool", "tool_call_id": "1", "content": "two"},
    ]
    tools = [{"type": "function", "function": {"name": "a"}}]
    named = {"type": "function", "function": {"name": "a"}}
    body = as_text({"messages": messages, "tools": tools, "tool_choice": named, "seed": 1})
    assert set(body) == {"messages", "seed"}
    system, user, assistant, results = body["messages"]
    assert system["content"].endswith("Now call the function a.")
    assert [user["role"], assistant["role"], results["role"]] == ["user", "assistant", "user"]
    assert results["content"].count("<tool_response>") == 2
    assert "function" not in as_text({"messages": messages[:1], "tool_choice": "none"})["messages"]
