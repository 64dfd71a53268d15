"""How MCP servers are asked for their tools: real ones of the SDK, and ones that are no good."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.server import MCPServer

from kaos.reconcilers import mcp_query
from kaos.reconcilers.mcp_query import CannotAsk, list_tools
from kaos.telemetry import serving

Reply = Callable[[str, bytes], bytes]  # by the request's head and body
JSON = "application/json"


@asynccontextmanager
async def replying(reply: Reply | Callable[[str, bytes], Awaitable[bytes]]) -> AsyncIterator[str]:
    """A server that answers as a test says, one request on a connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
            answer = reply(head, await reader.readexactly(int(fields["content-length"])))
            writer.write(answer if isinstance(answer, bytes) else await answer)
            await writer.drain()
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()  # who hangs is not waited for


def answer(body: Any, *, status: int = 200, kind: str = JSON, headers: str = "") -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status} Reason\r\ncontent-type: {kind}\r\ncontent-length: {len(data)}\r\n"
    return f"{head}{headers}\r\n".encode() + data


def listed(*names: str, **more: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "result": {"tools": [{"name": n} for n in names], **more}}


def server_with(*tools: str) -> MCPServer:
    server = MCPServer("s")
    for tool in tools:
        server.add_tool(lambda: "", name=tool, description="")
    return server


@pytest.mark.parametrize("stateless", [False, True])
@pytest.mark.parametrize("as_json", [False, True])
async def test_a_server_of_the_sdk_tells_its_tools(stateless: bool, as_json: bool) -> None:
    app = server_with("b", "a").streamable_http_app(stateless_http=stateless, json_response=as_json)
    async with serving.running(app) as url:
        assert await list_tools(f"{url}/mcp") == ["a", "b"]
        assert await list_tools(url) == ["a", "b"]


async def test_a_server_of_the_older_era_is_asked_in_a_session_which_is_ended() -> None:
    said: list[str] = []

    def older(head: str, body: bytes) -> bytes:
        if head.startswith("DELETE"):
            said.append(f"DELETE {'mcp-session-id: s1' in head}")
            return answer({})
        message = json.loads(body)
        said.append(message["method"])
        if message["method"] == "initialize":
            result = {"protocolVersion": "2025-06-18", "capabilities": {}}
            return answer({"id": 1, "result": result}, headers="Mcp-Session-Id: s1\r\n")
        if "mcp-session-id: s1" not in head:
            return answer({"error": {"message": "no session"}}, status=400)
        assert "mcp-protocol-version: 2025-06-18" in head
        if message["method"].startswith("notifications/"):
            return answer(b"", status=202)
        first = "cursor" not in message["params"]
        return answer(listed("x", nextCursor="2") if first else listed("y"))

    async with replying(older) as url:
        assert await list_tools(url) == ["x", "y"]
    assert said == [
        "tools/list",
        "initialize",
        "notifications/initialized",
        "tools/list",
        "tools/list",
        "DELETE True",
    ]


async def test_a_stream_may_say_other_things_first() -> None:
    other = json.dumps({"method": "notifications/message"})
    data = f": hi\r\n\r\nevent: message\r\ndata: {other}\r\n\r\ndata: {json.dumps(listed('t'))}\n\n"
    kind = "text/event-stream; charset=utf-8"
    async with replying(lambda *_: answer(data.encode(), kind=kind)) as url:
        assert await list_tools(url) == ["t"]


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (answer({"error": {"message": "go\x1b away"}}), "it answers: go  away"),
        (answer({}, status=401), r"it asks for credentials \(401\)"),
        (answer(b"<html>", status=404, kind="text/html"), r"not answer as an MCP server .*404"),
        (answer(b"[1]"), r"not answer as an MCP server"),
        (answer(b"x" * (1 << 20) + b"x"), "longer than 1048576 bytes"),
        (answer(b"data: x\n\n" * (1 << 18), kind="text/event-stream"), "longer than"),
        (answer({"result": {"tools": 3}}), "its list of tools is none"),
        (answer(b"", status=307, headers="location: http://elsewhere/\r\n"), "307"),
        (b"220 mail.example ESMTP\r\n\r\n", "illegal status line"),
        (b"", "no answer of HTTP"),
    ],
)
async def test_what_is_no_good_is_told_in_a_line(reply: bytes, why: str) -> None:
    async with replying(lambda *_: reply) as url:
        with pytest.raises(CannotAsk, match=why) as found:
            await list_tools(url)
    assert "\n" not in str(found.value)


async def test_more_than_an_agent_would_use_is_cut() -> None:
    def endless(head: str, body: bytes) -> bytes:
        del head
        page = int(json.loads(body)["params"].get("cursor", 0))
        names = [f"{page:03}-{n:02}{'x' * 200}" for n in range(90)]
        return answer(listed(*names, nextCursor=str(page + 1)))

    async with replying(endless) as url:
        found = await list_tools(url)
    assert len(found) == 500
    assert max(map(len, found)) == 128


@pytest.mark.looptime
async def test_a_silent_server_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(*_: object, **__: object) -> Any:
        await asyncio.sleep(3600)

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", silent)
    with pytest.raises(CannotAsk, match="no answer in 10 s"):
        await list_tools("http://silent/mcp")


async def test_nobody_there() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # and does not listen
        with pytest.raises(CannotAsk, match="refused"):
            await list_tools(f"http://127.0.0.1:{held.getsockname()[1]}/mcp")


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "169.254.169.254",
        "10.1.2.3",
        "100.100.100.200",
        "224.0.0.1",
        "[::1]",
        "[fd00::1]",
        "[64:ff9b::a9fe:a9fe]",
        "[2002:a00:5::1]",
        "[::ffff:10.0.0.1]",
        "[::a9fe:a9fe]",
    ],
)
async def test_no_address_inside_is_asked_for_a_url_that_anybody_may_have_chosen(host: str) -> None:
    with pytest.raises(CannotAsk, match="is inside"):
        await list_tools(f"http://{host}:1/mcp", public=True)


async def test_a_name_with_one_address_inside_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async def both(*_: object, **__: object) -> list[tuple[Any, ...]]:
        return [(2, 1, 6, "", ("93.184.215.14", 80)), (2, 1, 6, "", ("10.0.0.1", 80))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", both)
    with pytest.raises(CannotAsk, match=r"example.com is inside \(10.0.0.1\)"):
        await list_tools("http://example.com/mcp", public=True)


@given(
    st.lists(
        st.sampled_from([b"data: {", b"}", b"\n", b"\r\n\r\n", b"\n\n", b"data:", b'"result"'])
        | st.binary(max_size=20),
        max_size=30,
    )
)
def test_no_stream_is_anything_but_an_answer_or_a_refusal(chunks: list[bytes]) -> None:
    sse = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"

    async def ask() -> None:
        async with replying(lambda *_: sse + b"".join(chunks)) as url:
            with pytest.raises(CannotAsk):
                await list_tools(url)

    asyncio.run(ask())


def test_the_limits_are_an_agents() -> None:
    from kaos.agent import mcp_session  # noqa: PLC0415 - loads the SDK's client

    assert (mcp_query._MOST_PAGES, mcp_query._MOST_TOOLS) == (
        mcp_session._MAX_PAGES,
        mcp_session._MAX_TOOLS,
    )


async def test_a_server_that_hangs_in_its_session_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of its session was waited for without a limit; four such took all workers."""
    monkeypatch.setattr(mcp_query, "DEADLINE", 0.3)

    async def hanging(head: str, body: bytes) -> bytes:
        if b"initialize" in body and b"notifications" not in body:
            result = {"protocolVersion": "2025-06-18"}
            return answer({"id": 1, "result": result}, headers="Mcp-Session-Id: s1\r\n")
        if "mcp-session-id" in head.lower():
            await asyncio.sleep(3600)
        return answer({"error": {"message": "no session"}}, status=400)

    async with replying(hanging) as url, asyncio.timeout(3):
        with pytest.raises(CannotAsk, match="no answer"):
            await list_tools(url)


async def test_a_stream_in_crumbs_leaves_others_their_turns() -> None:
    """Each crumb was another look at everything: one server froze the controller for 18 s."""
    sse = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"
    big = b"%x\r\n%b\r\n" % (1 << 19, b"x" * (1 << 19))
    crumbs = b"2\r\n\nx\r\n" * 20_000
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async with replying(lambda *_: sse + b"\r\n" + big + crumbs + b"0\r\n\r\n") as url:
        task = asyncio.create_task(others())
        with pytest.raises(CannotAsk):
            await list_tools(url)
        task.cancel()
    assert turns >= (len(big) + len(crumbs)) // mcp_query._READ


@pytest.mark.parametrize("url", ["http://x:99999/", "http://[::1", "http://h/a b", "http://a..b/"])
async def test_a_url_that_is_none_is_told(url: str) -> None:
    with pytest.raises(CannotAsk):
        await list_tools(url)


async def test_names_that_no_status_can_hold_are_left_out() -> None:
    names = [r'"\ud800"', r'"a\nb"', r'"\u001b[31m"', '"good"', "3"]
    tools = ",".join(f'{{"name": {name}}}' for name in names)
    body = f'{{"result": {{"tools": [{tools}, 4]}}}}'.encode()
    async with replying(lambda *_: answer(body)) as url:
        assert await list_tools(url) == ["good"]
