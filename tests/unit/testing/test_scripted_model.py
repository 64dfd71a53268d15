"""The scripted model: what it says, to whom, and what it remembers."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from kaos.testing.model import (
    Conversation,
    Failure,
    Script,
    ScriptedModel,
    ToolCall,
    Turn,
    tool_call,
)
from kaos.testing.waiting import eventually


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def ask(
    http: aiohttp.ClientSession, url: str, *messages: dict[str, Any] | str, **more: Any
) -> tuple[int, str]:
    said = [{"role": "user", "content": m} if isinstance(m, str) else m for m in messages]
    async with http.post(f"{url}/v1/chat/completions", json={"messages": said, **more}) as answer:
        return answer.status, await answer.text()


def content(answer: tuple[int, str]) -> Any:
    assert answer[0] == 200, answer[1]
    return json.loads(answer[1])["choices"][0]["message"]["content"]


def events(text: str) -> list[Any]:
    lines = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


async def test_turns_come_in_order_and_beyond_them_is_an_error(
    http: aiohttp.ClientSession,
) -> None:
    async with ScriptedModel("one", "two: {last}").serve() as url:
        assert content(await ask(http, url, "x")) == "one"
        assert content(await ask(http, url, "hello")) == "two: hello"
        status, text = await ask(http, url, "x")
        assert (status, json.loads(text)["error"]["code"]) == (400, "script_exhausted")


async def test_a_streamed_turn_is_the_same_as_a_whole_one(http: aiohttp.ClientSession) -> None:
    turn = Turn(text='it\'s "so"\n\n- x', tool_calls=(ToolCall(name="f", arguments={"a": 1}),))
    async with ScriptedModel(turn, turn).serve() as url:
        whole = json.loads((await ask(http, url, "x"))[1])["choices"][0]
        _, text = await ask(http, url, "x", stream=True, stream_options={"include_usage": True})
    *chunks, usage, done = events(text)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert "".join(delta.get("content") or "" for delta in deltas) == turn.text
    pieces = [call for delta in deltas for call in delta.get("tool_calls", ())]
    assert "".join(piece["function"]["arguments"] for piece in pieces) == '{"a": 1}'
    assert pieces[0]["function"]["name"] == whole["message"]["tool_calls"][0]["function"]["name"]
    assert chunks[-1]["choices"][0]["finish_reason"] == whole["finish_reason"] == "tool_calls"
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] > 0
    assert done == "[DONE]"


async def test_conversations_are_told_apart_by_a_text(http: aiohttp.ClientSession) -> None:
    model = ScriptedModel(
        script=Script(
            conversations=(
                Conversation(when="coordinator", turns=(Turn(text="c1"), Turn(text="c2"))),
                Conversation(turns=(Turn(text="other"),), repeat=True),
            )
        )
    )
    boss = {"role": "system", "content": "You are a coordinator"}
    async with model.serve() as url:
        assert content(await ask(http, url, boss, "x")) == "c1"
        assert content(await ask(http, url, "x")) == "other"
        assert content(await ask(http, url, boss, "x")) == "c2"
        assert content(await ask(http, url, "x")) == "other"
    assert [request.conversation for request in model.requests] == ["coordinator", ""] * 2


async def test_by_step_concurrent_callers_do_not_disturb_each_other(
    http: aiohttp.ClientSession,
) -> None:
    turns = (tool_call("f"), Turn(text="end"))
    model = ScriptedModel(script=Script(conversations=(Conversation(turns=turns, by="step"),)))
    called: dict[str, Any] = {"role": "assistant", "content": None, "tool_calls": []}
    async with model.serve() as url:
        for _ in range(3):
            assert content(await ask(http, url, "x")) is None
            assert content(await ask(http, url, "x", called)) == "end"


async def test_an_error_is_an_http_error(http: aiohttp.ClientSession) -> None:
    failure = Failure(status=429, message="slow down", retry_after=2)
    async with (
        ScriptedModel(Turn(error=failure)).serve() as url,
        http.post(f"{url}/v1/chat/completions", json={"messages": []}) as answer,
    ):
        assert (answer.status, answer.headers["retry-after"]) == (429, "2")
        assert (await answer.json())["error"]["message"] == "slow down"


async def test_a_broken_stream_breaks_and_a_failed_one_says_so(
    http: aiohttp.ClientSession,
) -> None:
    model = ScriptedModel(Turn(text="a b c", break_after=2), Turn(text="a b c", error_after=2))
    async with model.serve() as url:
        with pytest.raises(aiohttp.ClientPayloadError):
            await ask(http, url, "x", stream=True)
        _, text = await ask(http, url, "x", stream=True)
        assert "error" in events(text)[-1]
    assert [request.outcome for request in model.requests] == ["failed", "failed"]


async def test_a_caller_that_hangs_up_is_recorded(http: aiohttp.ClientSession) -> None:
    model = ScriptedModel(Turn(text="late", delay=20))
    async with model.serve() as url:
        call = asyncio.create_task(ask(http, url, "x"))
        await eventually(lambda: bool(model.requests))
        call.cancel()
        await eventually(lambda: model.requests[0].outcome == "cancelled")


async def test_requests_are_served_and_forgotten(http: aiohttp.ClientSession) -> None:
    async with ScriptedModel("one").serve() as url:
        await ask(http, url, "x", temperature=0.5)
        async with http.get(f"{url}/requests") as answer:
            (record,) = await answer.json()
        assert (record["body"]["temperature"], record["outcome"]) == (0.5, "answered")
        assert record["headers"]["host"] in url
        await http.delete(f"{url}/requests")
        async with http.get(f"{url}/requests") as answer:
            assert await answer.json() == []


async def test_a_script_can_be_replaced_and_a_wrong_one_is_refused(
    http: aiohttp.ClientSession,
) -> None:
    async with ScriptedModel().serve() as url:
        good = {"conversations": [{"turns": [{"text": "new"}]}]}
        async with http.put(f"{url}/script", json=good) as answer:
            assert answer.status == 200
        assert content(await ask(http, url, "x")) == "new"
        bad = {"conversations": [{"turns": [{"txet": "new"}]}]}
        async with http.put(f"{url}/script", json=bad) as answer:
            assert answer.status == 422
            assert "txet" in await answer.text()


@pytest.mark.process
def test_a_missing_script_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "kaos.testing.model", "--script", str(tmp_path / "none")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert "none" in result.stderr


def test_the_fixture_is_there(scripted_model: type[ScriptedModel]) -> None:
    assert scripted_model("x").requests == []
