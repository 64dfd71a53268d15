import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from kaos.local.ollama.app import Ollama
from kaos.local.ollama.catalogue import Model, Weights
from kaos.local.ollama.download import DownloadError, Progress
from kaos.local.ollama.engine import EngineError, EngineSettings, RefusedError, WeightsGoneError
from kaos.local.ollama.store import Store
from kaos.telemetry.serving import running
from tests.unit.ollama.conftest import CONTENT

USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
ECHO = {
    "type": "function",
    "function": {
        "name": "echo",
        "description": "Repeat a message.",
        "parameters": {
            "type": "object",
            "properties": {"message": {"type": "string"}},
            "required": ["message"],
        },
    },
}


class FakeEngine:
    """Answers in place of the model's process."""

    def __init__(self) -> None:
        self.loaded = 0
        self.asked: list[dict[str, Any]] = []
        self.text = "Hello there"
        self.error: Exception | None = None
        self.hang = False
        self.cancelled = asyncio.Event()

    async def load(self) -> None:
        self.loaded += 1
        if self.error:
            raise self.error

    async def close(self) -> None:
        pass

    async def _work(self, body: dict[str, Any]) -> None:
        self.asked.append(body)
        try:
            await asyncio.sleep(3600 if self.hang else 0)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        if self.error:
            raise self.error

    async def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        await self._work(body)
        return {
            "choices": [{"message": {"content": self.text}, "finish_reason": "stop"}],
            "usage": USAGE,
        }

    async def stream(self, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        await self._work(body)
        for word in self.text.split():
            yield {"choices": [{"delta": {"content": word}, "finish_reason": None}]}
        yield {"choices": [{"delta": {}, "finish_reason": "length"}]}
        yield {"choices": [], "usage": USAGE}


class Fixture(Ollama):
    """The app, with a fake engine and a download that writes a file."""

    def __init__(self, store: Store, model: Model) -> None:
        super().__init__(
            store,
            overrides={"big:70b": "tiny:1b"},
            settings=EngineSettings(),
            catalogue=(model,),
            download=self.fetch,
        )
        self.engine = FakeEngine()
        self.refuse: str | None = None

    def _engine(self, model: Model) -> Any:
        return self.engine

    async def fetch(self, weights: Weights, store: Store, progress: Progress) -> None:
        progress("pulling", 0, 10)
        progress("pulling", 0, 10)
        progress("pulling", 10, 10)
        if self.refuse:
            raise DownloadError(self.refuse)
        store.weights.mkdir(exist_ok=True)
        store.path(weights).write_bytes(CONTENT)


@pytest.fixture
async def ollama(tmp_path: Path, model: Model) -> Fixture:
    return Fixture(Store(tmp_path / "cache", tmp_path / "names", (model,)), model)


@pytest.fixture
async def http(ollama: Fixture) -> AsyncIterator[aiohttp.ClientSession]:
    async with running(ollama.app()) as url, aiohttp.ClientSession(url) as session:
        yield session


async def post(http: aiohttp.ClientSession, path: str, body: Any) -> tuple[int, Any]:
    async with http.post(path, json=body) as reply:
        text = await reply.text()
        return reply.status, json.loads(text) if text else None


async def pull(http: aiohttp.ClientSession, name: str) -> list[dict[str, Any]]:
    async with http.post("/api/pull", json={"model": name}) as reply:
        return [json.loads(line) async for line in reply.content]


async def tags(http: aiohttp.ClientSession) -> list[str]:
    async with http.get("/api/tags") as reply:
        return [model["name"] for model in (await reply.json())["models"]]


async def chat(http: aiohttp.ClientSession, **body: Any) -> tuple[int, Any]:
    asked = {"model": "tiny:1b", "messages": [{"role": "user", "content": "Hello!"}], **body}
    return await post(http, "/v1/chat/completions", asked)


async def events(http: aiohttp.ClientSession, **body: Any) -> list[Any]:
    asked = {"model": "tiny:1b", "messages": [{"role": "user", "content": "Hello!"}], **body}
    async with http.post("/v1/chat/completions", json={**asked, "stream": True}) as reply:
        assert reply.content_type == "text/event-stream"
        lines = [line.removeprefix("data: ") for line in (await reply.text()).split("\n\n")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines if line]


async def test_a_pull_reports_as_ollama_does_and_loads_the_model(
    http: aiohttp.ClientSession, ollama: Fixture
) -> None:
    assert await tags(http) == []
    lines = await pull(http, "tiny:1b")
    digest = f"sha256:{ollama._catalogue[0].weights.sha256}"
    assert lines == [
        {"status": "pulling manifest"},
        {"status": "pulling", "digest": digest, "total": 10, "completed": 0},
        {"status": "pulling", "digest": digest, "total": 10, "completed": 10},
        {"status": "success"},
    ]
    assert await tags(http) == ["tiny:1b"]
    assert ollama.engine.loaded == 1
    assert await post(http, "/api/pull", {"model": "tiny:1b", "stream": False}) == (
        200,
        {"status": "success"},
    )


async def test_a_pull_that_fails_says_so_in_ollamas_form(
    http: aiohttp.ClientSession, ollama: Fixture
) -> None:
    lines = await pull(http, "llama3.2:latest")
    assert "'llama3.2:latest' cannot be had" in lines[-1]["error"]
    ollama.refuse = "pip failed"
    assert (await pull(http, "tiny:1b"))[-1] == {"error": "model 'tiny:1b': pip failed"}
    ollama.refuse, ollama.engine.error = None, EngineError("no memory")
    assert (await pull(http, "tiny:1b"))[-1] == {"error": "model 'tiny:1b': no memory"}
    status, body = await post(http, "/api/pull", {"name": "nope", "stream": False})
    assert status == 500
    assert "nope:latest" in body["error"]


async def test_an_override_is_served_under_the_name_asked_for(http: aiohttp.ClientSession) -> None:
    await pull(http, "big:70b")
    assert await tags(http) == ["big:70b"]
    status, answer = await chat(http, model="ollama/big:70b")
    assert (status, answer["model"]) == (200, "ollama/big:70b")


async def test_show_copy_delete_and_models(http: aiohttp.ClientSession) -> None:
    assert (await post(http, "/api/show", {"model": "tiny"}))[0] == 404
    await pull(http, "tiny")
    assert (await post(http, "/api/show", {"model": "tiny"}))[1]["capabilities"][1] == "tools"
    copied = {"source": "tiny", "destination": "second"}
    assert await post(http, "/api/copy", copied) == (200, None)
    assert await post(http, "/api/copy", {"source": "none", "destination": "x"}) == (
        404,
        {"error": "model 'none' not found"},
    )
    assert (await post(http, "/api/copy", {}))[0] == 400
    async with http.delete("/api/delete", json={"model": "tiny"}) as reply:
        assert reply.status == 200
    async with http.delete("/api/delete", json={"model": "tiny"}) as reply:
        assert reply.status == 404
    async with http.get("/v1/models") as reply:
        assert [model["id"] for model in (await reply.json())["data"]] == ["second:latest"]
    async with http.get("/v1/models/second") as reply:
        assert reply.status == 200
    for path, words in (("/", "Ollama is running"), ("/api/version", "version")):
        async with http.get(path) as reply:
            assert words in await reply.text()
    status, body = await post(http, "/api/chat", {})
    assert (status, "no such call" in body["error"]) == (404, True)
    status, body = await post(http, "/v1/embeddings", {})
    assert (status, body["error"]["type"]) == (404, "invalid_request_error")
    assert (await post(http, "/api/show", []))[1] == {"error": "the body must be a JSON object"}


async def test_a_text_answer(http: aiohttp.ClientSession, ollama: Fixture) -> None:
    await pull(http, "tiny")
    status, answer = await chat(http, model="tiny", temperature=0.5, max_completion_tokens=9)
    assert status == 200
    assert answer["object"] == "chat.completion"
    assert answer["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello there", "refusal": None},
            "finish_reason": "stop",
            "logprobs": None,
        }
    ]
    assert answer["usage"] == USAGE
    (asked,) = ollama.engine.asked
    assert (asked["temperature"], asked["max_tokens"]) == (0.5, 9)


async def test_a_text_stream(http: aiohttp.ClientSession) -> None:
    await pull(http, "tiny:1b")
    got = await events(http, stream_options={"include_usage": True})
    assert got[-1] == "[DONE]"
    assert len({(event["id"], event["created"], event["model"]) for event in got[:-1]}) == 1
    deltas = [choice["delta"] for event in got[:-1] for choice in event["choices"]]
    assert deltas == [
        {"role": "assistant", "content": ""},
        {"content": "Hello"},
        {"content": "there"},
        {},
    ]
    assert got[-3]["choices"][0]["finish_reason"] == "length"
    assert (got[-2]["choices"], got[-2]["usage"]) == ([], USAGE)


async def test_a_tool_call_whole_and_streamed(http: aiohttp.ClientSession, ollama: Fixture) -> None:
    await pull(http, "tiny:1b")
    ollama.engine.text = '{"name": "echo", "arguments": {"message": "hi"}}'
    asked: dict[str, Any] = {"tools": [ECHO], "messages": [{"role": "user", "content": "echo hi"}]}
    _, answer = await chat(http, **asked)
    (choice,) = answer["choices"]
    (call,) = choice["message"]["tool_calls"]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)
    assert call["function"] == {"name": "echo", "arguments": '{"message": "hi"}'}
    got = await events(http, **asked)
    deltas = [event["choices"][0]["delta"] for event in got[:-1]]
    first, second = deltas[0]["tool_calls"][0], deltas[1]["tool_calls"][0]
    assert first["id"].startswith("call_")
    assert first["function"] == {"name": "echo", "arguments": ""}
    assert second == {"index": 0, "function": {"arguments": '{"message": "hi"}'}}
    assert got[-2]["choices"][0]["finish_reason"] == "tool_calls"


def offered(body: dict[str, Any]) -> list[str]:
    """The tools that the grammar of a request allows."""
    form = body.get("response_format", {}).get("json_schema", {}).get("schema", {})
    return [option["properties"]["name"]["const"] for option in form.get("oneOf", [])]


OTHER = {"type": "function", "function": {"name": "other", "parameters": {}}}
CHOICE = {"type": "function", "function": {"name": "other"}}
ALLOWED = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [CHOICE]}}


@pytest.mark.parametrize(
    ("message", "tool_choice", "expected"),
    [
        ("Hello!", None, []),
        ("echo hi", "auto", ["echo"]),
        ("echo hi", "none", []),
        ("echo hi", "required", ["echo"]),
        ("Hello!", "required", ["echo", "other"]),
        ("echo hi", CHOICE, ["other"]),
        ("echo hi", ALLOWED, ["other"]),
    ],
)
async def test_tool_choice(
    http: aiohttp.ClientSession,
    ollama: Fixture,
    message: str,
    tool_choice: Any,
    expected: list[str],
) -> None:
    await pull(http, "tiny:1b")
    ollama.engine.text = '{"name": "echo", "arguments": {}}'
    messages = [{"role": "user", "content": message}]
    await chat(http, messages=messages, tools=[ECHO, OTHER], tool_choice=tool_choice)
    assert offered(ollama.engine.asked[0]) == expected


async def test_after_a_result_the_answer_is_text(
    http: aiohttp.ClientSession, ollama: Fixture
) -> None:
    await pull(http, "tiny:1b")
    messages = [
        {"role": "user", "content": "echo hi"},
        {"role": "assistant", "tool_calls": [{"function": {"name": "echo", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "x", "content": "hi"},
    ]
    _, answer = await chat(http, messages=messages, tools=[ECHO])
    assert offered(ollama.engine.asked[0]) == []
    assert answer["choices"][0]["finish_reason"] == "stop"
    # With one the model turned "hello world" into "Hello World".
    assert "repeat_penalty" not in ollama.engine.asked[0]
    await chat(http)
    assert "repeat_penalty" in ollama.engine.asked[1]


@pytest.mark.parametrize("stream", [False, True])
async def test_too_long_a_conversation_is_a_clear_400(
    http: aiohttp.ClientSession, ollama: Fixture, stream: bool
) -> None:
    await pull(http, "tiny:1b")
    detail = {"type": "exceed_context_size_error", "n_prompt_tokens": 6031, "n_ctx": 4096}
    ollama.engine.error = RefusedError(400, detail)
    status, body = await chat(http, stream=stream)
    assert status == 400
    assert body["error"] == {
        "message": "the messages are 6031 tokens long, and this model's context has room for 4096",
        "type": "invalid_request_error",
        "param": "messages",
        "code": "context_length_exceeded",
    }


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"model": "none"}, 404, "model 'none' not found"),
        ({"model": None}, 400, "you must provide a model"),
        ({"messages": []}, 400, "at least one message"),
        ({"n": 2}, 400, "n must be 1"),
        ({"max_tokens": 0}, 400, "max_tokens must be"),
        ({"tools": {}}, 400, "tools must be a list"),
        ({"tools": [{"type": "function"}]}, 400, "tools[0] must be a function"),
        ({"tool_choice": "required"}, 400, "there are no tools"),
        ({"tools": [ECHO], "tool_choice": CHOICE}, 400, "names 'other', which is not"),
    ],
)
async def test_requests_that_are_refused(
    http: aiohttp.ClientSession, body: dict[str, Any], status: int, words: str
) -> None:
    await pull(http, "tiny:1b")
    got, answer = await chat(http, **body)
    assert got == status
    assert words in answer["error"]["message"]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (EngineError("it went away"), 503),
        (WeightsGoneError("gone"), 503),
        (RefusedError(500, {"message": "bug"}), 500),
    ],
)
async def test_a_model_that_fails(
    http: aiohttp.ClientSession, ollama: Fixture, error: Exception, status: int
) -> None:
    await pull(http, "tiny:1b")
    ollama.engine.error = error
    got, answer = await chat(http)
    assert (got, answer["error"]["type"]) == (status, "server_error")


async def test_a_call_that_was_not_finished(http: aiohttp.ClientSession, ollama: Fixture) -> None:
    await pull(http, "tiny:1b")
    ollama.engine.text = '{"name": "echo", "argum'
    status, answer = await chat(http, tools=[ECHO], tool_choice="required")
    assert (status, answer["error"]["message"]) == (500, "the model did not finish the tool call")


async def test_when_the_client_goes_away_the_model_stops(
    http: aiohttp.ClientSession, ollama: Fixture
) -> None:
    await pull(http, "tiny:1b")
    ollama.engine.hang = True
    task = asyncio.create_task(chat(http))
    async with asyncio.timeout(5):
        while not ollama.engine.asked:  # noqa: ASYNC110 - it watches the fake
            await asyncio.sleep(0.005)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await ollama.engine.cancelled.wait()
