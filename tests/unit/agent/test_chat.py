"""POST /v1/chat/completions over HTTP: whole, streamed, failing, abandoned."""

import asyncio
from typing import Any

import aiohttp
import pytest

from kaos.agent import model as model_client
from kaos.agent import streams
from kaos.agent.loop import Conversation
from kaos.testing.model import Failure, ScriptedModel, ToolCall, Turn, tool_call
from kaos.testing.waiting import eventually

WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
AWKWARD = "I don't know: use \"x\"\n\n- item é \\ None True {'a': 1}"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_client, "RETRY_DELAYS", (0.01, 0.01))


async def test_an_answer_is_a_chat_completion(
    start_agent: Any, ask: Any, model: ScriptedModel
) -> None:
    model.say("Hi there.")
    status, body = await ask(await start_agent(), temperature=0.5, unknown=1)
    assert status == 200
    assert body["object"] == "chat.completion"
    assert body["model"] == "assistant"
    assert body["choices"][0]["message"] == {
        "role": "assistant",
        "content": "Hi there.",
        "refusal": None,
    }
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"]["completion_tokens"] == 2
    (request,) = model.requests
    assert request.body["model"] == "smollm2:135m"
    assert request.body["temperature"] == 0.5
    assert "unknown" not in request.body
    assert request.messages[0] == {"role": "system", "content": "You are a test."}


async def test_a_stream_is_the_same_text_as_a_whole_answer(
    start_agent: Any, ask: Any, stream: Any, text_of: Any, model: ScriptedModel, tool_server: str
) -> None:
    turns = (
        Turn(text="Let me see.", tool_calls=(ToolCall(name="echo", arguments={"text": "a"}),)),
        AWKWARD,
    )
    url = await start_agent(mcp_servers={"tools": tool_server})
    model.say(*turns, *turns)
    _, whole = await ask(url)
    events = await stream(url)
    assert text_of(events) == whole["choices"][0]["message"]["content"]
    assert text_of(events) == f"Let me see.\n\n{AWKWARD}"


async def test_a_stream_has_the_shape_clients_expect(
    start_agent: Any, stream: Any, model: ScriptedModel
) -> None:
    model.say("a b c")
    events = await stream(await start_agent(), stream_options={"include_usage": True})
    *chunks, last, usage, done = events
    assert done == "[DONE]"
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert {(e["id"], e["created"], e["model"], e["object"]) for e in events[:-1]} == {
        (chunks[0]["id"], chunks[0]["created"], "assistant", "chat.completion.chunk")
    }
    assert last["choices"][0] == {"index": 0, "delta": {}, "finish_reason": "stop"}
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 3


async def test_usage_is_not_streamed_unasked(
    start_agent: Any, stream: Any, model: ScriptedModel
) -> None:
    model.say("a")
    assert not any("usage" in event for event in (await stream(await start_agent()))[:-1])


async def test_deltas_are_forwarded_as_they_come(
    start_agent: Any, http: aiohttp.ClientSession, model: ScriptedModel
) -> None:
    model.say(Turn(text="one two three", piece_delay=0.1))
    body = {"messages": [{"role": "user", "content": "x"}], "stream": True}
    loop = asyncio.get_running_loop()
    async with http.post(f"{await start_agent()}/v1/chat/completions", json=body) as answer:
        times = [loop.time() async for line in answer.content if line.startswith(b"data: {")]
    assert times[-1] - times[0] > 0.15


async def test_a_call_to_the_callers_tool_is_handed_back(
    start_agent: Any, ask: Any, stream: Any, model: ScriptedModel, tool_server: str
) -> None:
    url = await start_agent(mcp_servers={"tools": tool_server})
    model.say(tool_call("weather", city="Ulm"), tool_call("weather", city="Ulm"), "It rains.")
    _, body = await ask(url, tools=[WEATHER])
    choice = body["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    (call,) = choice["message"]["tool_calls"]
    assert call["function"] == {"name": "weather", "arguments": '{"city": "Ulm"}'}
    offered = [tool["function"]["name"] for tool in model.requests[0].body["tools"]]
    assert offered == ["weather", "echo", "fail"]

    events = await stream(url, tools=[WEATHER])
    deltas = [e["choices"][0]["delta"] for e in events[:-1]]
    (streamed,) = [delta["tool_calls"] for delta in deltas if "tool_calls" in delta]
    assert streamed[0]["function"] == call["function"]
    assert events[-2]["choices"][0]["finish_reason"] == "tool_calls"

    answer = {"role": "tool", "tool_call_id": call["id"], "content": "rain"}
    _, body = await ask(url, [{"role": "user", "content": "?"}, choice["message"], answer])
    assert body["choices"][0]["message"]["content"] == "It rains."
    assert model.requests[-1].messages[-1] == answer


async def test_calls_to_both_are_handed_back_without_the_agents_own(
    start_agent: Any, ask: Any, model: ScriptedModel, tool_server: str
) -> None:
    calls = (ToolCall(name="echo", arguments={"text": "x"}), ToolCall(name="weather"))
    model.say(Turn(tool_calls=calls))
    url = await start_agent(mcp_servers={"tools": tool_server})
    _, body = await ask(url, tools=[WEATHER])
    names = [c["function"]["name"] for c in body["choices"][0]["message"]["tool_calls"]]
    assert names == ["weather"]
    assert len(model.requests) == 1


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (Failure(status=400, message="bad temperature"), 400, "invalid_request"),
        (Failure(status=401, message="who?"), 502, "model_refused"),
        (Failure(status=404, message="no such model", code="model_not_found"), 502, None),
        (Failure(status=429, message="slow down", retry_after=9), 429, "rate_limit_exceeded"),
        (Failure(status=500, message="oops"), 502, "model_failed"),
        (Failure(status=503, message="loading", retry_after=9), 503, "model_unavailable"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_the_models_failures_have_true_statuses(
    start_agent: Any,
    ask: Any,
    model: ScriptedModel,
    failure: Failure,
    status: int,
    code: str | None,
    streamed: bool,
) -> None:
    model.say(Turn(error=failure), repeat=True)
    got, body = await ask(await start_agent(), stream=streamed)
    assert got == status
    assert failure.message in body["error"]["message"]
    assert body["error"]["code"] == (code or failure.code)


async def test_a_model_that_is_down_is_503_with_retry_after(
    start_agent: Any, http: aiohttp.ClientSession
) -> None:
    url = await start_agent(ready=False, model_api_url="http://127.0.0.1:9")
    body = {"messages": [{"role": "user", "content": "x"}]}
    for streamed in (False, True):
        async with http.post(
            f"{url}/v1/chat/completions", json={**body, "stream": streamed}
        ) as answer:
            assert answer.status == 503
            assert int(answer.headers["retry-after"]) > 0
            assert answer.headers["x-kaos-run"].startswith("run-")
            assert "127.0.0.1:9 cannot be reached" in (await answer.json())["error"]["message"]


@pytest.mark.parametrize(
    "turn", [Turn(text="a b c", break_after=2), Turn(text="a b", error_after=2)]
)
async def test_a_stream_that_fails_ends_with_an_error_event(
    start_agent: Any, stream: Any, model: ScriptedModel, turn: Turn
) -> None:
    model.say(turn)
    events = await stream(await start_agent())
    assert events[-1]["error"]["code"] == "model_failed"
    assert "[DONE]" not in events
    assert len(model.requests) == 1, "what has been shown is not tried again"


async def test_a_failure_that_passes_is_tried_again(
    start_agent: Any, ask: Any, model: ScriptedModel
) -> None:
    model.say(Turn(error=Failure(status=502, message="gone")), "second try")
    status, body = await ask(await start_agent())
    assert (status, body["choices"][0]["message"]["content"]) == (200, "second try")


async def test_after_a_tool_was_called_clients_are_told_not_to_retry(
    start_agent: Any, http: aiohttp.ClientSession, model: ScriptedModel, tool_server: str
) -> None:
    model.say(tool_call("echo", text="x"), Turn(error=Failure(status=500)))
    url = await start_agent(mcp_servers={"tools": tool_server})
    body = {"messages": [{"role": "user", "content": "x"}]}
    async with http.post(f"{url}/v1/chat/completions", json=body) as answer:
        assert answer.status == 502
        assert answer.headers["x-should-retry"] == "false"
        assert "retry-after" not in answer.headers


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_caller_that_hangs_up_stops_the_model(
    start_agent: Any, ask: Any, model: ScriptedModel, streamed: bool
) -> None:
    model.say(Turn(text="a b c d e", delay=0.05, piece_delay=30 if streamed else 0))
    if not streamed:
        model.say(Turn(text="late", delay=30))
    call = asyncio.create_task(ask(await start_agent(), stream=streamed))
    await eventually(lambda: bool(model.requests))
    await asyncio.sleep(0.2)
    call.cancel()
    await eventually(lambda: model.requests[0].outcome == "cancelled")


async def test_the_deadline_of_a_request_is_504(
    start_agent: Any, ask: Any, model: ScriptedModel
) -> None:
    model.say(Turn(text="late", delay=30))
    status, body = await ask(await start_agent(request_timeout=0.2))
    assert (status, body["error"]["code"]) == (504, "deadline_exceeded")
    await eventually(lambda: model.requests[0].outcome == "cancelled")


async def test_a_silent_model_is_504(start_agent: Any, ask: Any, model: ScriptedModel) -> None:
    model.say(Turn(text="late", delay=30))
    status, body = await ask(await start_agent(model_timeout=0.2))
    assert (status, body["error"]["code"]) == (504, "model_timeout")


async def test_a_silent_stream_is_kept_alive_by_comments(
    start_agent: Any,
    http: aiohttp.ClientSession,
    model: ScriptedModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams, "KEEP_ALIVE", 0.05)
    model.say(Turn(text="late", delay=0.3))
    body = {"messages": [{"role": "user", "content": "x"}], "stream": True}
    async with http.post(f"{await start_agent()}/v1/chat/completions", json=body) as answer:
        text = await answer.text()
    assert text.startswith(": keep-alive\n\n")
    first, *_ = [line for line in text.splitlines() if line.startswith("data: ")]
    assert '"role":"assistant"' in first
    assert "late" in text


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_bug_of_ours_is_a_500_that_does_not_show_it(
    start_agent: Any, ask: Any, monkeypatch: pytest.MonkeyPatch, streamed: bool
) -> None:
    async def bug(_self: Conversation) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(Conversation, "hold", bug)
    status, body = await ask(await start_agent(), stream=streamed)
    assert (status, body["error"]["code"]) == (500, "internal_error")
    assert "secret" not in body["error"]["message"]


async def test_run_and_request_ids_are_returned_and_kept(
    start_agent: Any, http: aiohttp.ClientSession, model: ScriptedModel
) -> None:
    model.say("x", repeat=True)
    url = await start_agent()
    body = {"messages": [{"role": "user", "content": "x"}]}
    sent = {"x-kaos-run": "run-1", "x-request-id": "req-1", "traceparent": "00-aa-bb-01"}
    async with http.post(f"{url}/v1/chat/completions", json=body, headers=sent) as answer:
        assert answer.headers["x-kaos-run"] == "run-1"
        assert answer.headers["x-request-id"] == "req-1"
        assert (await answer.json())["kaos"]["run"] == "run-1"
    assert model.requests[0].headers["x-kaos-run"] == "run-1"
    assert model.requests[0].headers["traceparent"] == "00-aa-bb-01"
    async with http.post(
        f"{url}/v1/chat/completions", json=body, headers={"x-kaos-run": "a b"}
    ) as answer:
        assert answer.headers["x-kaos-run"].startswith("run-")


async def test_a_forced_tool_choice_holds_for_the_first_answer_only(
    start_agent: Any, ask: Any, model: ScriptedModel, tool_server: str
) -> None:
    model.say(tool_call("echo", text="x"), "done")
    url = await start_agent(mcp_servers={"tools": tool_server})
    await ask(url, tool_choice="required", parallel_tool_calls=False)
    choices = [request.body["tool_choice"] for request in model.requests]
    assert choices == ["required", "auto"]
    assert model.requests[0].body["parallel_tool_calls"] is False


async def test_without_tools_there_is_no_word_of_them(
    start_agent: Any, ask: Any, model: ScriptedModel
) -> None:
    model.say("x")
    await ask(await start_agent(), tool_choice="auto", parallel_tool_calls=True)
    assert not {"tools", "tool_choice", "parallel_tool_calls"} & set(model.requests[0].body)


async def test_routing_errors_are_openais_too(
    start_agent: Any, http: aiohttp.ClientSession
) -> None:
    url = await start_agent()
    expected: dict[tuple[str, str], int] = {
        ("GET", "/nothing"): 404,
        ("GET", "/v1/chat/completions"): 405,
        ("GET", "/v1/models/other"): 404,
    }
    for (method, path), status in expected.items():
        async with http.request(method, url + path) as answer:
            assert answer.status == status
            assert set((await answer.json())["error"]) == {"message", "type", "param", "code"}


async def test_a_body_over_the_limit_is_413(start_agent: Any, http: aiohttp.ClientSession) -> None:
    url = await start_agent(max_body=2000)
    async with http.post(f"{url}/v1/chat/completions", data=b"x" * 3000) as answer:
        assert answer.status == 413
        assert "larger than 2000 bytes" in (await answer.json())["error"]["message"]


async def test_models_lists_the_agent(start_agent: Any, http: aiohttp.ClientSession) -> None:
    url = await start_agent()
    async with http.get(f"{url}/v1/models") as answer:
        (entry,) = (await answer.json())["data"]
    assert (entry["id"], entry["object"]) == ("assistant", "model")
    async with http.get(f"{url}/v1/models/assistant") as answer:
        assert await answer.json() == entry
