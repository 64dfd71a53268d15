"""MCP servers: real ones of the SDK, killed and restarted."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import httpx2
import mcp_types as types
import pytest
from mcp.client.client import Client
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from kaos.agent import mcp_session
from kaos.agent.mcp_pool import ToolPool
from kaos.agent.mcp_transport import Transport
from kaos.agent.runs import MemoryRun, Step, nobody
from kaos.agent.tools import CallContext, Toolbox, result
from kaos.telemetry import serving
from kaos.testing.model import ScriptedModel, tool_call
from kaos.testing.waiting import eventually


def echo_server(*more: str) -> MCPServer:
    server = MCPServer("echo")

    @server.tool()
    def echo(text: str) -> str:
        """Repeat a text."""
        return f"echo: {text}"

    for name in more:
        server.add_tool(lambda: "more", name=name, description="More")
    return server


@asynccontextmanager
async def pooled(*urls: str) -> AsyncIterator[ToolPool]:
    pool = ToolPool({f"s{n}": url for n, url in enumerate(urls)}, timeout=5)
    task = asyncio.create_task(pool.run())
    try:
        await eventually(lambda: pool.settled)
        yield pool
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def call(pool: ToolPool, name: str, arguments: str = "{}") -> str:
    asked = {"id": "c", "function": {"name": name, "arguments": arguments}}
    box = Toolbox(pool.tools(), [])
    (message,) = await box.call_all([asked], MemoryRun("r"), CallContext(run="r"))
    return str(message["content"])


@pytest.mark.parametrize("stateless", [False, True])
async def test_tools_are_listed_and_called(stateless: bool) -> None:
    app = echo_server().streamable_http_app(stateless_http=stateless)
    async with serving.running(app) as url, pooled(url) as pool:
        (tool,) = pool.tools()
        assert (tool.name, tool.description) == ("echo", "Repeat a text.")
        assert tool.parameters["properties"]["text"]["type"] == "string"
        assert await call(pool, "echo", '{"text": "hi"}') == "echo: hi"


@pytest.mark.parametrize("path", ["", "/mcp"])
async def test_the_url_may_be_the_base_or_the_endpoint(path: str) -> None:
    async with serving.running(echo_server().streamable_http_app()) as url, pooled(url + path) as p:
        assert await call(p, "echo", '{"text": "hi"}') == "echo: hi"


async def test_what_is_larger_than_a_buffer_goes_both_ways() -> None:
    text = "long " * 200_000
    async with serving.running(echo_server().streamable_http_app()) as url, pooled(url) as pool:
        (tool,) = pool.tools()
        answer = await tool.call({"text": text}, CallContext(run="r"), Step("1", nobody))
    assert answer == result(f"echo: {text}")


async def test_a_result_in_a_stream_does_not_cost_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Servers of before 2026 stream each result, and the SDK leaves the stream before its end."""
    monkeypatch.setattr("kaos.agent.model.END_OF_STREAM", 2.0)
    callers: list[Any] = []

    async def pieces() -> AsyncIterator[bytes]:
        yield b"data: {}\n\n"
        await asyncio.sleep(0.01)

    async def stream(request: Request) -> Response:
        callers.append(request.client)
        return StreamingResponse(pieces(), media_type="text/event-stream")

    app = Starlette(routes=[Route("/", stream)])
    async with (
        serving.running(app) as url,
        aiohttp.ClientSession() as connections,
        httpx2.AsyncClient(transport=Transport(connections)) as http,
    ):
        for _ in range(3):
            async with http.stream("GET", url) as answer:
                assert await anext(answer.aiter_lines()) == "data: {}"
    assert len(set(callers)) == 1


async def test_wrong_arguments_are_the_servers_error_for_the_model() -> None:
    async with serving.running(echo_server().streamable_http_app()) as url, pooled(url) as pool:
        text = await call(pool, "echo", '{"txt": 1}')
        assert text.startswith("Error: ")
        assert "text" in text


async def test_a_server_that_is_down_leaves_the_others_usable() -> None:
    async with (
        serving.running(echo_server().streamable_http_app()) as url,
        pooled("http://127.0.0.1:9", url) as pool,
    ):
        await eventually(lambda: pool.servers[1].status.state == "ready")
        await eventually(lambda: pool.servers[0].status.state == "down")
        assert "cannot be reached" in pool.servers[0].status.error
        assert await call(pool, "echo", '{"text": "hi"}') == "echo: hi"


@pytest.mark.parametrize("legacy", [False, True])
async def test_a_killed_server_is_an_error_and_comes_back_by_itself(
    legacy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SDK issue 3560: a refused connection cancelled the caller and killed the client."""
    monkeypatch.setattr(mcp_session, "PATIENCE", (0.01,))
    if legacy:
        monkeypatch.setattr(mcp_session, "Client", _legacy_client)
    stop = asyncio.Event()
    async with serving.running(echo_server().streamable_http_app()) as first:
        listen = urlsplit(first).netloc
    stopped = asyncio.create_task(
        serving.serve(echo_server().streamable_http_app(), listen=listen, stop=stop, grace=0.1)
    )
    async with pooled(f"http://{listen}") as pool:
        await eventually(lambda: pool.servers[0].status.state == "ready")
        assert await call(pool, "echo", '{"text": "1"}') == "echo: 1"
        stop.set()
        await stopped
        texts = await asyncio.gather(*(call(pool, "echo", '{"text": "2"}') for _ in range(5)))
        assert all(text.startswith("Error: ") for text in texts)
        await eventually(lambda: pool.servers[0].status.state == "down")
        async with serving.running(echo_server("fresh").streamable_http_app(), listen=listen):
            await eventually(lambda: pool.servers[0].status.state == "ready", within=10)
            assert await call(pool, "echo", '{"text": "3"}') == "echo: 3"
            assert [tool.name for tool in pool.tools()] == ["echo", "fresh"]


def _legacy_client(*arguments: Any, **options: Any) -> Any:
    return Client(*arguments, mode="legacy", **options)


@pytest.mark.parametrize("legacy", [False, True])
async def test_a_restart_costs_no_call_that_was_not_under_way(
    legacy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was refused is tried again: a connection, or by an older server a session it forgot."""
    if legacy:
        monkeypatch.setattr(mcp_session, "Client", _legacy_client)
    stop = asyncio.Event()
    app = echo_server().streamable_http_app()
    url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    first = asyncio.create_task(
        serving.serve(app, listen="127.0.0.1:0", stop=stop, grace=0.1, on_listening=url.set_result)
    )
    async with pooled(await url) as pool:
        stop.set()
        await first
        calls = asyncio.gather(*(call(pool, "echo", '{"text": "x"}') for _ in range(10)))
        await asyncio.sleep(0.4)
        again = echo_server().streamable_http_app()
        async with serving.running(again, listen=urlsplit(url.result()).netloc):
            assert await calls == ["echo: x"] * 10
            assert await call(pool, "echo", '{"text": "y"}') == "echo: y"


@pytest.mark.parametrize("json_response", [False, True])
async def test_a_server_killed_during_a_call_is_an_error_of_that_call(json_response: bool) -> None:
    server = echo_server()

    @server.tool()
    async def hang() -> str:
        """Hang."""
        await asyncio.sleep(60)
        return "late"

    stop = asyncio.Event()
    url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    app = server.streamable_http_app(json_response=json_response)
    first = asyncio.create_task(
        serving.serve(app, listen="127.0.0.1:0", stop=stop, grace=0.1, on_listening=url.set_result)
    )
    async with pooled(await url) as pool:
        hanging = asyncio.create_task(call(pool, "hang"))
        await asyncio.sleep(0.2)
        stop.set()
        await first
        assert (await asyncio.wait_for(hanging, 3)).startswith("Error: ")
        again = echo_server().streamable_http_app()
        async with serving.running(again, listen=urlsplit(url.result()).netloc):
            await eventually(lambda: pool.servers[0].status.state == "ready", within=10)
            assert await call(pool, "echo", '{"text": "x"}') == "echo: x"


@pytest.mark.parametrize("legacy", [False, True])
async def test_a_changed_list_of_tools_is_noticed(
    legacy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if legacy:
        monkeypatch.setattr(mcp_session, "Client", _legacy_client)
    server = echo_server()

    @server.tool()
    async def grow(ctx: Context) -> str:
        """Add a tool and tell everybody."""
        server.add_tool(lambda: "x", name="later", description="Later")
        if legacy:
            await ctx.session.send_tool_list_changed()
        else:
            await ctx.notify_tools_changed()
        return "grown"

    async with serving.running(server.streamable_http_app()) as url, pooled(url) as pool:
        await asyncio.sleep(0.1)
        assert await call(pool, "grow") == "grown"
        await eventually(lambda: [t.name for t in pool.tools()] == ["echo", "grow", "later"])


async def test_the_agent_uses_them_and_a_tools_error_reaches_the_model(
    start_agent: Any, ask: Any, model: ScriptedModel, tool_server: str
) -> None:
    model.say(tool_call("fail"), "so be it", tool_call("echo", text="it's"), "{last}")
    url = await start_agent(mcp_servers={"tools": tool_server})
    await ask(url)
    assert model.requests[1].messages[-1]["content"].startswith("Error: ")
    _, body = await ask(url)
    assert body["choices"][0]["message"]["content"] == "echo: it's"


def test_all_kinds_of_content_reach_the_model() -> None:
    blocks: list[types.ContentBlock] = [
        types.TextContent(text="one"),
        types.ImageContent(data="AAAA", mime_type="image/png"),
        types.AudioContent(data="AAAA", mime_type="audio/wav"),
        types.EmbeddedResource(resource=types.TextResourceContents(uri="f:///a", text="two")),
        types.EmbeddedResource(
            resource=types.BlobResourceContents(uri="f:///b", blob="AAAA", mime_type="x/y")
        ),
        types.ResourceLink(name="doc", uri="f:///c", description="A doc"),
    ]
    content = mcp_session.to_result(types.CallToolResult(content=blocks))["content"]
    assert content.splitlines() == [
        "one",
        "[image image/png, 3 bytes, not shown]",
        "[audio audio/wav, 3 bytes, not shown]",
        "two",
        "[resource f:///b x/y, 3 bytes, not shown]",
        "[doc](f:///c) A doc",
    ]


def test_structured_content_is_used_when_there_is_no_text() -> None:
    answer = types.CallToolResult(content=[], structured_content={"a": [1]})
    assert mcp_session.to_result(answer) == result('{"a":[1]}')


def test_an_error_is_an_error() -> None:
    answer = types.CallToolResult(content=[types.TextContent(text="no")], is_error=True)
    assert mcp_session.to_result(answer) == result("Error: no", is_error=True)


_ALONE = """
import asyncio, sys
from kaos.agent import mcp_session

async def main(url):
    async with mcp_session.connect(url, asyncio.Event(), 5) as session:
        print((await session.call("echo", {"text": "hi"}, 5))["content"])

asyncio.run(main(sys.argv[1]))
print([name for name in ("mcp.server", "cryptography") if name in sys.modules])
from kaos.agent import mcp_door
print(mcp_door.MCPServer("real").name)
"""


@pytest.mark.process
async def test_the_client_comes_without_the_sdks_server_and_the_door_with_it(
    tool_server: str,
) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _ALONE, f"{tool_server}/mcp"), stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    assert said.decode().splitlines() == ["echo: hi", "[]", "real"]
