"""A recorded conversation is played again without the model."""

import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from kaos.telemetry import serving
from kaos.testing.model import Script, ScriptedModel, ToolCall, Turn, tool_call
from kaos.testing.model.record import Recorder

FIRST = {"role": "user", "content": "What is 2+2?"}
CALLED: dict[str, Any] = {"role": "assistant", "content": None, "tool_calls": []}
RESULT = {"role": "tool", "tool_call_id": "c", "content": "4"}
CONVERSATION: list[list[dict[str, Any]]] = [
    [FIRST],
    [FIRST, CALLED, RESULT],
    [
        FIRST,
        CALLED,
        RESULT,
        {"role": "assistant", "content": "Four"},
        {"role": "user", "content": "Sure?"},
    ],
]


async def asked(url: str, messages: list[dict[str, Any]], *, stream: bool) -> list[Any]:
    body = {"model": "m", "messages": messages, "stream": stream}
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{url}/v1/chat/completions", json=body) as answer,
    ):
        assert answer.status == 200
        text = await answer.text()
    if not stream:
        return [json.loads(text)["choices"]]
    data = [line[6:] for line in text.splitlines() if line.startswith("data: {")]
    return [json.loads(event)["choices"] for event in data]


@pytest.mark.parametrize("stream", [False, True])
async def test_what_was_recorded_is_played_again(tmp_path: Path, stream: bool) -> None:
    calls = (ToolCall(name="add", arguments={"a": 2, "b": 2}, id="c"), ToolCall(name="x", id="d"))
    model = ScriptedModel(Turn(tool_calls=calls), 'It\'s "four"\n', tool_call("sure"))
    file = tmp_path / "script.json"
    async with model.serve() as upstream, serving.running(Recorder(upstream, file).app) as url:
        said = [await asked(url, messages, stream=stream) for messages in CONVERSATION]
        async with aiohttp.ClientSession() as http, http.get(f"{url}/v1/models") as answer:
            assert (await answer.json())["data"][0]["id"] == "scripted"
    again = ScriptedModel(script=Script.model_validate_json(file.read_bytes()))
    async with again.serve() as url:
        for messages, before in zip(CONVERSATION, said, strict=True):
            assert await asked(url, messages, stream=stream) == before


async def test_a_failure_is_passed_on_and_not_recorded(tmp_path: Path) -> None:
    file = tmp_path / "script.json"
    async with (
        ScriptedModel().serve() as upstream,
        serving.running(Recorder(upstream, file).app) as url,
        aiohttp.ClientSession() as http,
        http.post(f"{url}/v1/chat/completions", json={"messages": [FIRST]}) as answer,
    ):
        assert answer.status == 400
        assert (await answer.json())["error"]["code"] == "script_exhausted"
    assert not file.exists()
