"""The other doors: MCP and A2A, by their own clients, on an agent that loads neither unasked."""

import asyncio
import subprocess
import sys
from typing import Any

import aiohttp
import pytest
import structlog
from a2a.types import TaskState
from mcp import Client
from structlog.testing import capture_logs

from kaos.agent import model as model_client
from kaos.testing.model import Failure, ScriptedModel, Turn, tool_call
from kaos.testing.waiting import eventually


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_client, "RETRY_DELAYS", ())


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_an_mcp_client_asks_the_agent(
    start_agent: Any, model: ScriptedModel, tool_server: str, mode: Any
) -> None:
    url = await start_agent(mcp_servers={"t": tool_server}, description="Knows it all")
    model.say(tool_call("echo", text="x"), "It's {last}", Turn(error=Failure(message="oops")))
    told: list[str | None] = []

    async def on_progress(
        progress: float, total: float | None = None, message: str | None = None
    ) -> None:
        told.append(message)

    async with Client(f"{url}/mcp", mode=mode) as client:
        (tool,) = (await client.list_tools()).tools
        assert (tool.name, tool.input_schema["required"]) == ("ask", ["question"])
        assert "Knows it all" in (tool.description or "")
        answer = await client.call_tool("ask", {"question": "?"}, progress_callback=on_progress)
        assert answer.content[0].text == "It's echo: x"  # type: ignore[union-attr]
        failed = await client.call_tool("ask", {"question": "?"})
    assert failed.is_error
    assert "oops" in failed.content[0].text  # type: ignore[union-attr]
    if mode == "auto":
        assert told == ["model smollm2:135m", "tool echo", "model smollm2:135m"]


async def test_an_agent_can_be_another_agents_tool_server(
    start_agent: Any, ask: Any, model: ScriptedModel
) -> None:
    inner = await start_agent(name="inner", instructions="I am inner.")
    outer = await start_agent(name="outer", mcp_servers={"inner": inner})
    model.say(tool_call("ask", question="?"), "{last}!")
    model.say("hello", when="I am inner.")
    _, body = await ask(outer)
    assert body["choices"][0]["message"]["content"] == "hello!"


@pytest.fixture
def rpc(http: aiohttp.ClientSession) -> Any:
    async def call(url: str, method: str, version: str = "1.0", **params: Any) -> Any:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        headers = {"A2A-Version": version}
        async with http.post(f"{url}/a2a", json=body, headers=headers) as answer:
            return await answer.json()

    return call


def message(text: str, **more: Any) -> dict[str, Any]:
    return {"messageId": "m1", "role": "ROLE_USER", "parts": [{"text": text}], **more}


async def test_a2a_message_task_list_and_card(
    start_agent: Any,
    rpc: Any,
    http: aiohttp.ClientSession,
    model: ScriptedModel,
    caplog: pytest.LogCaptureFixture,
) -> None:
    url = await start_agent()
    model.say("Hello you.", "Again: {last}")
    async with http.get(f"{url}/.well-known/agent-card.json") as answer:
        first = (await answer.json())["supportedInterfaces"][0]
    assert first == {"url": f"{url}/a2a", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}
    task = (await rpc(url, "SendMessage", message=message("hi")))["result"]["task"]
    assert task["status"]["state"] == "TASK_STATE_COMPLETED"
    # Of parts the SDK's own client makes lines: each word was one.
    assert task["artifacts"][0]["parts"] == [{"text": "Hello you."}]
    got = (await rpc(url, "GetTask", id=task["id"]))["result"]
    assert got["artifacts"] == task["artifacts"]
    context = task["contextId"]
    more = message("more", contextId=context)
    await rpc(url, "SendMessage", message=more)
    assert "Hello you." in str(model.requests[1].messages), "a context is a session"
    listed = (await rpc(url, "ListTasks", contextId=context))["result"]["tasks"]
    assert len(listed) == 2
    everybodys = (await rpc(url, "ListTasks"))["result"]
    assert everybodys.get("tasks", []) == []
    assert "compliant" not in caplog.text


async def test_every_door_has_the_run_in_its_log_lines(
    start_agent: Any, rpc: Any, http: aiohttp.ClientSession, model: ScriptedModel
) -> None:
    """Only chat's had it: who came by A2A or MCP could not be followed."""
    url = await start_agent()
    model.say("hello", repeat=True)
    with capture_logs([structlog.contextvars.merge_contextvars]) as logged:
        await rpc(url, "SendMessage", message=message("hi"))
        async with Client(f"{url}/mcp") as client:
            await client.call_tool("ask", {"question": "?"})
    async with http.get(f"{url}/v1/runs") as answer:
        runs = {run["id"] for run in (await answer.json())["data"]}
    assert {line.get("run") for line in logged if line["event"] == "step"} == runs
    assert len(runs) == 2


async def test_a2a_streams_and_can_be_cancelled(
    start_agent: Any, rpc: Any, http: aiohttp.ClientSession, model: ScriptedModel
) -> None:
    url = await start_agent()
    model.say(Turn(text="one two three", piece_delay=0.02), Turn(text="a late one", piece_delay=30))
    body = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "SendStreamingMessage",
        "params": {"message": message("hi")},
    }
    headers = {"A2A-Version": "1.0"}
    async with http.post(f"{url}/a2a", json=body, headers=headers) as answer:
        assert answer.content_type == "text/event-stream"
        text = await answer.text()
    assert text.count("artifactUpdate") == 3
    assert "TASK_STATE_COMPLETED" in text.splitlines()[-2] + text.splitlines()[-3]
    later = {"message": message("hi"), "configuration": {"returnImmediately": True}}
    task = (await rpc(url, "SendMessage", **later))["result"]["task"]
    assert task["status"]["state"] in ("TASK_STATE_SUBMITTED", "TASK_STATE_WORKING")
    await eventually(lambda: len(model.requests) == 2)
    subscribe = {
        "jsonrpc": "2.0",
        "id": 2,
        "method": "SubscribeToTask",
        "params": {"id": task["id"]},
    }
    async with http.post(f"{url}/a2a", json=subscribe, headers=headers) as watching:
        await watching.content.readline()
        ended = (await rpc(url, "CancelTask", id=task["id"]))["result"]
        assert ended["status"]["state"] == "TASK_STATE_CANCELED"
        assert "TASK_STATE_CANCELED" in await watching.text()
    await eventually(lambda: model.requests[1].outcome == "cancelled")


async def test_a2a_errors_are_the_protocols(
    start_agent: Any, rpc: Any, model: ScriptedModel
) -> None:
    url = await start_agent()
    model.say(Turn(error=Failure(status=500, message="oops")))
    assert (await rpc(url, "GetTask", id="none"))["error"]["code"] == -32001
    assert (await rpc(url, "GetTask", version="9.9", id="none"))["error"]["code"] == -32009
    assert (await rpc(url, "Nothing"))["error"]["code"] == -32601
    task = (await rpc(url, "SendMessage", message=message("hi")))["result"]["task"]
    assert task["status"]["state"] == TaskState.Name(TaskState.TASK_STATE_FAILED)
    assert "oops" in task["status"]["message"]["parts"][0]["text"]


async def test_a2a_takes_text_alone_and_a_context_of_any_name(
    start_agent: Any, rpc: Any, model: ScriptedModel
) -> None:
    """A message of data alone was asked as an empty text; a context with a blank in it failed."""
    url = await start_agent()
    model.say("one", "two")
    data = {"messageId": "m1", "role": "ROLE_USER", "parts": [{"data": {"a": 1}}]}
    assert (await rpc(url, "SendMessage", message=data))["error"]["code"] == -32005
    for text in ("first", "second"):
        asked = message(text, contextId="my ctx/1", messageId=text)
        task = (await rpc(url, "SendMessage", message=asked))["result"]["task"]
        assert task["status"]["state"] == TaskState.Name(TaskState.TASK_STATE_COMPLETED)
    assert [m["content"] for m in model.requests[1].messages[1:]] == ["first", "one", "second"]


@pytest.mark.process
async def test_neither_sdk_is_loaded_unasked() -> None:
    script = (
        "import sys, kaos.agent.app\n"
        "sys.exit(any(name in sys.modules for name in ('mcp', 'a2a', 'opentelemetry', 'kr8s')))"
    )
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", script], check=False, timeout=20
    )
    assert done.returncode == 0
