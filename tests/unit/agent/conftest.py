"""Agents in this process, on real sockets, with a scripted model behind them."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest
from mcp.server import MCPServer

from kaos.agent.app import create_app
from kaos.agent.settings import Settings
from kaos.telemetry import serving
from kaos.testing.model import ScriptedModel
from kaos.testing.waiting import eventually

StartAgent = Callable[..., Awaitable[str]]
Answer = tuple[int, Any]
Ask = Callable[..., Awaitable[Answer]]
Stream = Callable[..., Awaitable[list[Any]]]


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """What a test starts, stopped in reverse order."""
    async with AsyncExitStack() as opened:
        yield opened


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    timeout = aiohttp.ClientTimeout(total=15)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        yield session


@pytest.fixture
def model() -> ScriptedModel:
    return ScriptedModel()


@pytest.fixture
async def model_url(stack: AsyncExitStack, model: ScriptedModel) -> str:
    return await stack.enter_async_context(model.serve())


@pytest.fixture
async def tool_server(stack: AsyncExitStack) -> str:
    """A real MCP server of the SDK."""
    server = MCPServer("tools")

    @server.tool()
    def echo(text: str) -> str:
        """Repeat a text."""
        return f"echo: {text}"

    @server.tool()
    def fail() -> str:
        """Fail."""
        raise ValueError("kaput")

    return await stack.enter_async_context(serving.running(server.streamable_http_app()))


@pytest.fixture
def start_agent(stack: AsyncExitStack, model_url: str, http: aiohttp.ClientSession) -> StartAgent:
    """Start an agent and return its base URL once it is ready."""

    async def start(*, ready: bool = True, listen: str = "127.0.0.1:0", **changes: Any) -> str:
        given: dict[str, Any] = {
            "name": "assistant",
            "model_api_url": model_url,
            "model_name": "smollm2:135m",
            "instructions": "You are a test.",
            **changes,
        }
        app = create_app(Settings(**given))
        url = await stack.enter_async_context(serving.running(app, listen=listen, grace=0.2))

        async def is_ready() -> bool:
            async with http.get(f"{url}/readyz") as response:
                return response.status == 200

        if ready:
            await eventually(is_ready)
        return url

    return start


def question(text: str | list[Any], **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}] if isinstance(text, str) else text
    return {"model": "assistant", "messages": messages, **more}


@pytest.fixture
def ask(http: aiohttp.ClientSession) -> Ask:
    """Ask an agent: a text or messages, and more request fields; status and body are returned."""

    async def ask(url: str, text: str | list[Any] = "Hello!", **more: Any) -> Answer:
        headers = more.pop("headers", {})
        body = question(text, **more)
        async with http.post(f"{url}/v1/chat/completions", json=body, headers=headers) as answer:
            return answer.status, await answer.json()

    return ask


@pytest.fixture
def stream(http: aiohttp.ClientSession) -> Stream:
    """Ask an agent for a stream; the decoded events are returned, `[DONE]` as it is."""

    async def stream(url: str, text: str | list[Any] = "Hello!", **more: Any) -> list[Any]:
        body = question(text, stream=True, **more)
        async with http.post(f"{url}/v1/chat/completions", json=body) as answer:
            assert answer.status == 200, await answer.text()
            assert answer.content_type == "text/event-stream"
            text = await answer.text()
        data = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
        return [event if event == "[DONE]" else json.loads(event) for event in data]

    return stream


def text_of(events: list[Any]) -> str:
    """Return the text of a stream."""
    deltas = [e["choices"][0]["delta"] for e in events if e != "[DONE]" and e.get("choices")]
    return "".join(delta.get("content") or "" for delta in deltas)


@pytest.fixture(name="text_of")
def text_of_fixture() -> Callable[[list[Any]], str]:
    return text_of
