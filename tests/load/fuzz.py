"""Bad requests for every endpoint of an agent, and an agent that counts what they leave behind.

Guarantees: most requests are nearly right, because what is nonsense from its first byte is refused
by the first check and proves nothing of the others; an agent is started once and asked many
times, so that a leak adds up.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import aiohttp
from anyio.from_thread import start_blocking_portal
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from mcp.server import MCPServer

from kaos.agent.app import create_app
from kaos.agent.settings import Settings
from kaos.telemetry import serving
from kaos.testing.model import ScriptedModel, Turn, tool_call
from kaos.testing.waiting import eventually

JSON: SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3)
    ),
    max_leaves=5,
)
WORD = st.text("ab1_-./:@ é\x00", max_size=12)
TOKEN = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=12)
ROLES = ("system", "developer", "user", "assistant", "tool", "function", "x")
CALL = st.fixed_dictionaries(
    {"id": WORD | JSON, "type": st.just("function")},
    optional={"function": st.fixed_dictionaries({"name": WORD}, optional={"arguments": JSON})},
)
PART = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "image_url", "input_audio", "file", "x"])},
    optional={"text": JSON, "image_url": JSON},
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(ROLES)},
    optional={
        "content": st.text(max_size=9) | st.lists(PART, max_size=2) | JSON,
        "tool_calls": st.lists(CALL, max_size=2) | JSON,
        "tool_call_id": WORD | JSON,
        "name": JSON,
    },
)
TOOL = st.fixed_dictionaries(
    {"type": st.just("function")},
    optional={"function": st.fixed_dictionaries({"name": WORD}, optional={"parameters": JSON})},
)
GOOD = {"role": "user", "content": "Hello!"}
CHAT = st.fixed_dictionaries(
    {"messages": st.just([GOOD]) | st.lists(MESSAGE, max_size=3) | JSON},
    optional={
        "stream": st.booleans() | JSON,
        "tools": st.lists(TOOL, max_size=2) | JSON,
        "metadata": st.fixed_dictionaries({"session_id": WORD | JSON}) | JSON,
        **dict.fromkeys(
            (
                *("model", "stream_options", "tool_choice", "n", "temperature", "stop", "user"),
                *("response_format", "max_tokens", "logit_bias", "parallel_tool_calls", "seed"),
            ),
            JSON,
        ),
    },
)
CHAT_HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "content-type": st.sampled_from(["application/json", "text/plain", "x"]),
        **dict.fromkeys(
            (
                *("idempotency-key", "x-session-id", "x-kaos-run", "x-kaos-parent-step"),
                *("x-kaos-path", "x-kaos-steps", "x-stainless-retry-count", "traceparent"),
                *("tracestate", "baggage", "authorization", "x-request-id"),
            ),
            TOKEN,
        ),
        "x-request-timeout": TOKEN | st.sampled_from(["5", "nan", "inf", "-1", "1e999"]),
    },
)
A2A_METHODS = (
    *("SendMessage", "SendStreamingMessage", "GetTask", "ListTasks", "CancelTask"),
    *("SubscribeToTask", "GetExtendedAgentCard", "CreateTaskPushNotificationConfig", "x"),
)
A2A_MESSAGE = st.fixed_dictionaries(
    {
        "messageId": st.just("m") | JSON,
        "role": st.sampled_from(["ROLE_USER", "ROLE_AGENT", "x"]),
        "parts": st.just([{"text": "hi"}]) | st.lists(JSON, max_size=2),
    },
    optional=dict.fromkeys(("contextId", "taskId", "metadata", "extensions"), WORD | JSON),
)
A2A_PARAMS = st.fixed_dictionaries(
    {}, optional={"message": A2A_MESSAGE, "id": WORD, "pageSize": JSON, "configuration": JSON}
)
MCP_METHODS = (
    *("initialize", "tools/list", "tools/call", "ping", "server/discover", "resources/list"),
    *("notifications/initialized", "notifications/cancelled", "subscriptions/listen", "x"),
)
MCP_META = st.fixed_dictionaries(
    {},
    optional={
        "io.modelcontextprotocol/protocolVersion": st.just("2026-07-28") | JSON,
        "io.modelcontextprotocol/clientCapabilities": st.just({}) | JSON,
        "progressToken": JSON,
    },
)
MCP_PARAMS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.just("ask") | JSON,
        "arguments": st.just({"question": "x"}) | JSON,
        "_meta": MCP_META | JSON,
        "protocolVersion": st.sampled_from(["2025-06-18", "2026-07-28", "x"]),
        "capabilities": st.just({}) | JSON,
        "clientInfo": st.just({"name": "x", "version": "1"}) | JSON,
        "cursor": JSON,
    },
)
MCP_HEADERS = st.fixed_dictionaries(
    {"accept": st.just("application/json, text/event-stream") | TOKEN},
    optional={
        "mcp-protocol-version": st.sampled_from(["2025-06-18", "2026-07-28", "x"]),
        "mcp-method": st.sampled_from(MCP_METHODS),
        "mcp-name": TOKEN,
        "mcp-session-id": TOKEN,
    },
)
PATHS = ("/v1/chat/completions", "/v1/models", "/v1/runs", "/sessions", "/mcp", "/a2a", "/healthz")


@dataclass(frozen=True)
class Sent:
    """One request."""

    method: str
    path: str
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


def _encoded(value: Any, at: int) -> bytes:
    """Encode a body, cut short as by a broken client if there is a place to cut at."""
    data = json.dumps(value).encode("utf-8", "surrogatepass")
    return data[: at % (len(data) + 1)] if at else data


def _bodies(values: SearchStrategy[Any]) -> SearchStrategy[bytes]:
    cuts = st.just(0) | st.just(0) | st.integers(1, 400)
    return st.builds(_encoded, values, cuts) | st.binary(max_size=30)


def _rpc(methods: tuple[str, ...], params: SearchStrategy[Any]) -> SearchStrategy[Any]:
    call = st.fixed_dictionaries(
        {"jsonrpc": st.just("2.0") | JSON, "method": st.sampled_from(methods) | JSON},
        optional={"id": st.integers(0, 9) | JSON, "params": params | JSON},
    )
    return call | st.lists(call, max_size=2) | JSON


def _get(path: str, names: tuple[str, ...]) -> SearchStrategy[Sent]:
    query = st.dictionaries(st.sampled_from(names), WORD | st.integers().map(str), max_size=2)
    asked = st.builds(
        lambda rest, asked: f"{path}{rest}?{'&'.join(f'{k}={quote(v)}' for k, v in asked.items())}",
        st.just("") | WORD.map(lambda word: f"/{quote(word, safe='')}"),
        query,
    )
    methods = st.sampled_from(["GET", "GET", "DELETE", "POST"])
    headers = st.fixed_dictionaries({}, optional={"last-event-id": TOKEN, "x-session-id": TOKEN})
    return st.builds(Sent, methods, asked, st.just(b""), headers)


CHATS = st.builds(
    Sent, st.just("POST"), st.just("/v1/chat/completions"), _bodies(CHAT), CHAT_HEADERS
)
REQUESTS: SearchStrategy[Sent] = st.one_of(
    CHATS,
    CHATS,
    CHATS,
    _get("/sessions", ("limit", "before")),
    _get("/v1/runs", ("limit", "after")),
    st.builds(
        Sent,
        st.just("POST"),
        st.just("/a2a"),
        _bodies(_rpc(A2A_METHODS, A2A_PARAMS)),
        st.fixed_dictionaries({}, optional={"a2a-version": TOKEN | st.just("1.0")}),
    ),
    st.builds(
        Sent,
        st.sampled_from(["POST", "POST", "POST", "GET", "DELETE"]),
        st.just("/mcp"),
        _bodies(_rpc(MCP_METHODS, MCP_PARAMS)),
        MCP_HEADERS.map(lambda given: {"content-type": "application/json", **given}),
    ),
    st.builds(
        Sent,
        st.sampled_from(["PUT", "PATCH", "OPTIONS", "HEAD", "TRACE", "DELETE", "POST"]),
        st.sampled_from(PATHS) | WORD.map(lambda word: f"/{quote(word)}"),
        st.binary(max_size=20),
    ),
)
_INTERNAL = '"code":-32603'  # JSON-RPC's word for a 500, which comes with status 200
_LONGEST = 2.0  # of a stream that is open as long as its reader likes


STREAMED = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "SendStreamingMessage",
    "params": {"message": {"messageId": "1", "role": "ROLE_USER", "parts": [{"text": "hi"}]}},
}


class Target:
    """An agent with a model and a tool server, all in this process."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self._tasks: Counter[str] = Counter()
        self._url = ""
        self._http: aiohttp.ClientSession

    def send(self, sent: Sent) -> tuple[int, str]:
        """Send one request; returns the status and the body."""
        return self._runner.run(self._send(sent))

    def refuses(self, sent: Sent) -> int:
        """Send a request, which must not be an internal error; returns the status."""
        status, text = self.send(sent)
        assert status != 500, (sent, text)
        assert _INTERNAL not in text.replace(" ", ""), (sent, text)
        return status

    def leaks(self) -> dict[str, Any]:
        """What is there now that was not there before the first request."""
        return self._runner.run(self._leaks())

    async def _open(self) -> None:
        model, server = ScriptedModel(), MCPServer("tools")
        model.say(tool_call("echo", text="x"), Turn(text="ok"), repeat=True)
        server.add_tool(_echo, name="echo")
        enter = self._stack.enter_async_context
        # In a thread, because the connections that the agent keeps open are tasks there.
        others = self._stack.enter_context(start_blocking_portal())
        thread = self._stack.enter_context(ExitStack())
        model_url = thread.enter_context(others.wrap_async_context_manager(model.serve()))
        app = server.streamable_http_app()
        tools = thread.enter_context(others.wrap_async_context_manager(serving.running(app)))
        given = Settings(
            name="a",
            model_api_url=model_url,
            model_name="m",
            mcp_servers={"tools": tools},
            memory_max_sessions=50,
            memory_open_list=True,
        )
        self._url = await enter(serving.running(create_app(given)))
        connector = aiohttp.TCPConnector(force_close=True)  # so that no connection is a task
        self._http = await enter(aiohttp.ClientSession(connector=connector))
        # The doors open at the first knock, and stay open.
        for sent in (
            Sent("POST", "/a2a", json.dumps(STREAMED).encode(), {"a2a-version": "1.0"}),
            Sent("POST", "/mcp", b"{}", {"content-type": "application/json"}),
            Sent("POST", "/v1/chat/completions", json.dumps({"messages": [GOOD]}).encode()),
        ):
            await self._send(sent)
        self._tasks = await self._settled()

    async def _close(self) -> None:
        await self._stack.aclose()

    async def _send(self, sent: Sent) -> tuple[int, str]:
        async with self._http.request(
            sent.method, f"{self._url}{sent.path}", data=sent.body, headers=sent.headers
        ) as answer:
            text = b""
            with suppress(TimeoutError):
                async with asyncio.timeout(_LONGEST):
                    async for piece in answer.content.iter_any():
                        text += piece
            return answer.status, text.decode()

    async def _leaks(self) -> dict[str, Any]:
        tasks = await self._settled()
        async with self._http.get(f"{self._url}/metrics") as answer:
            page = await answer.text()
        async with self._http.get(f"{self._url}/v1/runs?limit=1000") as answer:
            runs = (await answer.json())["data"]
        async with self._http.get(f"{self._url}/sessions?limit=1000") as answer:
            sessions = (await answer.json())["data"]
        under_way = [line for line in page.splitlines() if line.startswith("kaos_agent_runs ")]
        return {
            "tasks": dict(tasks - self._tasks),
            "runs under way": float(under_way[0].split()[1]),
            "runs without an end": sum(run["status"] == "running" for run in runs),
            "runs beyond the limit": max(0, len(runs) - 200),
            "sessions beyond the limit": max(0, len(sessions) - 50),
        }

    async def _settled(self) -> Counter[str]:
        """The tasks by what they run, when their number has stopped to change."""
        seen = [-1] * 10

        def steady() -> bool:
            seen.append(len(asyncio.all_tasks()))
            return len(set(seen[-10:])) == 1

        await eventually(steady, within=20)
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        return Counter(getattr(task.get_coro(), "__qualname__", "?") for task in tasks)


@contextmanager
def target() -> Iterator[Target]:
    """An agent to send bad requests to."""
    made = Target()
    with made._runner as runner:
        runner.run(made._open())
        try:
            yield made
        finally:
            runner.run(made._close())


def _echo(text: str) -> str:
    """Repeat a text."""
    return text
