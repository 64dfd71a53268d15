"""What an earlier agent got wrong, each row of the list a test of its name.

R5 (imports were invisible inside tools) is in tests/unit/toolserver/test_source.py, R13 (pods ran
as root, with a token) in tests/unit/reconcilers/test_overrides.py.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from mcp.server import MCPServer

from kaos.agent import model as model_client
from kaos.telemetry import serving
from kaos.testing.model import Failure, ScriptedModel, ToolCall, Turn, tool_call

AWKWARD = "I don't know: use \"x\"\n\n- item; None, 'None', {'a': \"b\"} \\n é 🙂 \u2028\x85 </s>"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_client, "RETRY_DELAYS", ())


@pytest.mark.parametrize("size", [1, 2, 7, 0])
async def test_r1_a_stream_loses_no_character(
    start_agent: Any, stream: Any, text_of: Any, model: ScriptedModel, size: int
) -> None:
    model.say(Turn(text=AWKWARD, piece=size))
    assert text_of(await stream(await start_agent())) == AWKWARD


async def test_r2_tools_are_called_natively_and_several_at_once(
    start_agent: Any, ask: Any, model: ScriptedModel, tool_server: str
) -> None:
    calls = tuple(ToolCall(name="echo", arguments={"text": t}, id=t) for t in ("a", "b"))
    model.say(Turn(tool_calls=calls), "done")
    url = await start_agent(mcp_servers={"tools": tool_server})
    await ask(url)
    assert [tool["function"]["name"] for tool in model.requests[0].body["tools"]] == [
        "echo",
        "fail",
    ]
    assert model.requests[1].messages[-2:] == [
        {"role": "tool", "tool_call_id": "a", "content": "echo: a"},
        {"role": "tool", "tool_call_id": "b", "content": "echo: b"},
    ]


async def test_r2_prose_that_looks_like_a_call_is_prose(
    start_agent: Any, ask: Any, model: ScriptedModel, tool_server: str
) -> None:
    prose = 'Write ```tool_call\n{"tool": "echo", "arguments": {"text": "x"}}\n``` to call it.'
    model.say(prose)
    _, body = await ask(await start_agent(mcp_servers={"tools": tool_server}))
    assert body["choices"][0]["message"]["content"] == prose
    assert len(model.requests) == 1


async def test_r3_the_callers_history_reaches_the_model_once_and_in_order(
    start_agent: Any, ask: Any, model: ScriptedModel
) -> None:
    history = [
        {"role": "user", "content": "q1"},
        {"role": "assistant", "content": "a1"},
        {"role": "user", "content": "q2"},
    ]
    model.say("a2")
    await ask(await start_agent(), history)
    assert model.requests[0].messages[1:] == history


@pytest.mark.parametrize("streamed", [False, True])
async def test_r4_a_failure_is_never_a_200_with_an_apology(
    start_agent: Any, ask: Any, model: ScriptedModel, streamed: bool
) -> None:
    model.say(Turn(error=Failure(status=500, message="boom")))
    status, body = await ask(await start_agent(), stream=streamed)
    assert status == 502
    assert "choices" not in body


async def test_r4_spent_steps_are_said(
    start_agent: Any, ask: Any, stream: Any, model: ScriptedModel, tool_server: str
) -> None:
    model.say(tool_call("echo", text="x"), "As far as I got.", repeat=True)
    url = await start_agent(mcp_servers={"tools": tool_server}, max_steps=1)
    _, body = await ask(url)
    choice = body["choices"][0]
    assert choice["message"]["content"] == "As far as I got."
    assert choice["finish_reason"] == "length"
    assert body["kaos"]["limit"] == "max_steps"
    assert model.requests[1].body["tool_choice"] == "none"
    last = (await stream(url))[-2]
    assert last["choices"][0]["finish_reason"] == "length"
    assert last["kaos"]["limit"] == "max_steps"


async def test_r6_a_tools_error_is_an_error_and_no_block_is_dropped(
    start_agent: Any, ask: Any, model: ScriptedModel
) -> None:
    server = MCPServer("s")

    @server.tool()
    def blocks() -> list[str]:
        """Return two blocks."""
        return ["one", "two"]

    @server.tool()
    def fail() -> str:
        """Fail."""
        raise ValueError("x")

    calls = (ToolCall(name="blocks"), ToolCall(name="fail"))
    model.say(Turn(tool_calls=calls), "done")
    async with serving.running(server.streamable_http_app()) as tools:
        await ask(await start_agent(mcp_servers={"s": tools}))
    two, failed = (message["content"] for message in model.requests[1].messages[-2:])
    assert "one" in two
    assert "two" in two
    assert failed.startswith("Error: ")


async def test_r6_of_two_tools_with_one_name_both_can_be_called(
    start_agent: Any, ask: Any, model: ScriptedModel, tool_server: str
) -> None:
    other = MCPServer("other")

    @other.tool()
    def echo(text: str) -> str:
        """Echo from elsewhere."""
        return f"other: {text}"

    calls = tuple(ToolCall(name=f"{s}_echo", arguments={"text": "x"}) for s in ("one", "two"))
    model.say(Turn(tool_calls=calls), "done")
    async with serving.running(other.streamable_http_app()) as second:
        await ask(await start_agent(mcp_servers={"one": tool_server, "two": second}))
    texts = [message["content"] for message in model.requests[1].messages[-2:]]
    assert texts == ["echo: x", "other: x"]


async def test_r7_usage_counts_every_call_and_parameters_reach_the_model(
    start_agent: Any, ask: Any, model: ScriptedModel, tool_server: str
) -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13}
    call = ToolCall(name="echo", arguments={"text": "x"})
    model.say(Turn(tool_calls=(call,), usage=usage), Turn(text="x", usage=usage))
    url = await start_agent(mcp_servers={"tools": tool_server})
    _, body = await ask(url, temperature=0, max_tokens=9, response_format={"type": "json_object"})
    assert body["usage"] == {"prompt_tokens": 20, "completion_tokens": 6, "total_tokens": 26}
    for request in model.requests:
        assert request.body["temperature"] == 0
        assert request.body["max_tokens"] == 9
        assert request.body["response_format"] == {"type": "json_object"}


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"messages": []}', b'{"messages": [{}]}'])
async def test_r7_bad_input_is_openais_error_object_and_400(
    start_agent: Any, http: aiohttp.ClientSession, body: bytes
) -> None:
    async with http.post(f"{await start_agent()}/v1/chat/completions", data=body) as answer:
        assert answer.status == 400
        assert set((await answer.json())["error"]) == {"message", "type", "param", "code"}


async def test_r7_readiness_is_the_truth(start_agent: Any, http: aiohttp.ClientSession) -> None:
    url = await start_agent(ready=False, model_api_url="http://127.0.0.1:1")
    async with http.get(f"{url}/readyz") as answer:
        assert (answer.status, (await answer.json())["status"]) == (503, "unavailable")


async def test_r8_the_card_is_where_a2a_says_and_not_at_localhost(
    start_agent: Any, http: aiohttp.ClientSession
) -> None:
    url = await start_agent()
    headers = {"host": "assistant.default.svc.cluster.local"}
    async with http.get(f"{url}/.well-known/agent-card.json", headers=headers) as answer:
        card = await answer.json()
    urls = [interface["url"] for interface in card["supportedInterfaces"]]
    base = "http://assistant.default.svc.cluster.local"
    assert urls == [f"{base}/a2a", f"{base}/v1"]


async def test_r9_a_role_of_our_own_is_refused(
    start_agent: Any, ask: Any, model: ScriptedModel
) -> None:
    status, body = await ask(await start_agent(), [{"role": "task-delegation", "content": "x"}])
    assert (status, body["error"]["param"]) == (400, "messages.0.role")


async def test_r9_a_cycle_and_too_deep_a_path_are_refused(
    start_agent: Any, ask: Any, model: ScriptedModel
) -> None:
    url = await start_agent(max_delegation_depth=2)
    for path, code in (
        ("boss.default,assistant.default", "delegation_cycle"),
        ("a.x,b.x,c.x", "delegation_too_deep"),
    ):
        status, body = await ask(url, headers={"x-kaos-path": path})
        assert (status, body["error"]["code"]) == (400, code)
    assert model.requests == []


async def test_r10_a_stream_keeps_the_callers_trace(
    start_agent: Any, http: aiohttp.ClientSession, model: ScriptedModel, tool_server: str
) -> None:
    trace = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "tracestate": "x=1", "baggage": "k=v"}
    model.say(tool_call("echo", text="x"), "done")
    url = await start_agent(mcp_servers={"tools": tool_server})
    body = {"messages": [{"role": "user", "content": "x"}], "stream": True}
    async with http.post(f"{url}/v1/chat/completions", json=body, headers=trace) as answer:
        await answer.read()
    for request in model.requests:
        assert {name: request.headers[name] for name in trace} == trace


async def test_r11_no_other_origin_is_invited_and_no_memory_is_shown(
    start_agent: Any, http: aiohttp.ClientSession, model: ScriptedModel
) -> None:
    model.say("x")
    url = await start_agent()
    body = {"messages": [{"role": "user", "content": "x"}], "stream": True}
    headers = {"origin": "https://evil.example"}
    async with http.post(f"{url}/v1/chat/completions", json=body, headers=headers) as answer:
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]
        await answer.read()
    async with http.get(f"{url}/memory/events") as answer:
        assert answer.status == 404


async def test_r11_with_auth_on_nothing_is_told_to_strangers(
    start_agent: Any, http: aiohttp.ClientSession, model: ScriptedModel
) -> None:
    url = await start_agent(auth_tokens="alice token-of-alice-1234", ready=False)
    for path in ("/v1/models", "/v1/runs", "/sessions", "/mcp", "/a2a"):
        async with http.get(url + path) as answer:
            assert answer.status == 401, path


async def test_r14_a_restart_loses_no_conversation(
    start_agent: Any, ask: Any, model: ScriptedModel, tmp_path: Path
) -> None:
    model.say("A", "B")
    for text in ("a", "b"):  # two agents of one name are an agent and what comes after it
        url = await start_agent(memory_type="sqlite", memory_url=str(tmp_path / "s.db"))
        await ask(url, text, headers={"x-session-id": "s"})
    assert [message["content"] for message in model.requests[-1].messages[1:]] == ["a", "A", "b"]


@pytest.mark.process
def test_r12_and_r15_an_agent_loads_no_mock_and_nothing_it_does_not_use() -> None:
    program = (
        "import sys, json, kaos.agent.__main__;"
        "print(json.dumps([name for name, module in sys.modules.items() if module]))"
    )
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30
    ).stdout
    tops = {module.split(".")[0] for module in json.loads(output)}
    assert not tops & {"litellm", "openai", "kr8s", "mcp", "httpx", "a2a", "grpc", "rich"}
    assert "kaos.testing" not in output
    assert "kaos.runtime" not in output
