import asyncio
import functools
import os
import signal
import socket
import sys
import threading
from typing import Any

import aiohttp
import pytest
from mcp import Client
from mcp_types import CallToolResult, TextContent

from kaos.telemetry.serving import running
from kaos.toolserver.builtin import BUILTIN
from kaos.toolserver.server import ToolSchemaError, build_app, build_server
from kaos.toolserver.settings import SOURCES


def text(result: object) -> str:
    assert isinstance(result, CallToolResult)
    (content,) = result.content
    assert isinstance(content, TextContent)
    return content.text


def shout(message: str, times: int = 1) -> str:
    """Say it loudly.

    More than once if asked.
    """
    return message.upper() * times


async def slow(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "slept"


def thread() -> str:
    return threading.current_thread().name


def fail(reason: str) -> str:
    raise LookupError(reason)


def leave() -> str:
    sys.exit(3)


@pytest.fixture
def server() -> Any:
    return build_server("test", [shout, slow, thread, fail, leave])


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_both_eras_over_http(server: Any, mode: str) -> None:
    async with (
        running(build_app(server, allowed_hosts=["127.0.0.1"])) as url,
        Client(f"{url}/mcp", mode=mode) as client,
    ):
        listed = await client.list_tools()
        assert len(listed.tools) == 5
        result = await client.call_tool("shout", {"message": "hey", "times": 2})
        assert text(result) == "HEYHEY"


async def test_no_session_is_kept_for_legacy_clients_so_replicas_work(server: Any) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    headers = {
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": "2025-11-25",
    }
    async with (
        running(build_app(server, allowed_hosts=None)) as url,
        aiohttp.ClientSession() as http,
        http.post(f"{url}/mcp", json=body, headers=headers) as reply,
    ):
        assert reply.status == 200
        assert "Mcp-Session-Id" not in reply.headers
        assert "shout" in await reply.text()


async def test_what_a_tool_raises_reaches_the_caller_and_the_server_lives(server: Any) -> None:
    async with Client(server) as client:
        failed = await client.call_tool("fail", {"reason": "no such city"})
        assert failed.is_error
        assert "LookupError: no such city" in text(failed)
        left = await client.call_tool("leave", {})
        assert left.is_error
        assert "SystemExit: 3" in text(left)
        wrong = await client.call_tool("shout", {"message": 3})
        assert wrong.is_error
        assert text(await client.call_tool("slow", {"seconds": 0})) == "slept"


async def test_sync_tools_run_in_threads(server: Any) -> None:
    async with Client(server) as client:
        assert text(await client.call_tool("thread", {})) != threading.main_thread().name


async def test_host_names_and_side_doors(server: Any) -> None:
    async with (
        running(build_app(server, allowed_hosts=["127.0.0.1", "tools.default.svc"])) as url,
        aiohttp.ClientSession(url) as http,
    ):
        for host, status in [
            ("evil.example", 421),
            ("tools.default.svc:8000", 400),
            ("tools.default.svc", 400),
        ]:
            async with http.post(
                "/mcp", data="{}", headers={"Host": host, "Content-Type": "application/json"}
            ) as reply:
                # 400 is the next check: this body is no message.
                assert reply.status == status
        # A kubelet asks by pod address; a web page learns nothing here.
        for path in ("/healthz", "/readyz", "/metrics"):
            async with http.get(path, headers={"Host": "10.1.2.3:8000"}) as reply:
                assert reply.status == 200
        async with http.get("/tools") as reply:
            listed = await reply.json()
        assert listed["server"] == "test"
        tool = listed["tools"][0]
        assert tool["name"] == "shout"
        assert tool["description"] == "Say it loudly.\n\nMore than once if asked."
        assert tool["inputSchema"]["required"] == ["message"]


def test_a_signature_without_a_schema_names_the_function() -> None:
    def odd(handler: threading.Thread) -> str:
        return ""

    with pytest.raises(ToolSchemaError, match="function 'odd' cannot be a tool: "):
        build_server("test", [odd])


def test_a_parameter_that_cannot_be_named_names_the_function() -> None:
    def odd(a: int, /) -> int:
        return a

    with pytest.raises(ToolSchemaError, match="'odd' cannot be a tool: its parameter a cannot be"):
        build_server("test", [odd])


async def test_a_decorated_async_function_is_awaited() -> None:
    def logged(function: Any) -> Any:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return call

    async with Client(build_server("test", [logged(slow)])) as client:
        assert text(await client.call_tool("slow", {"seconds": 0})) == "slept"


async def test_what_cannot_be_told_is_an_error_with_its_reason() -> None:
    def noise() -> bytes:
        return b"\xff"

    def broken() -> str:
        raise OSError("no \ud800")

    async with Client(build_server("test", [noise, broken])) as client:
        assert "invalid utf-8" in text(await client.call_tool("noise", {}))
        assert text(await client.call_tool("broken", {})).endswith("OSError: no ?")


async def test_the_builtin_echo_server() -> None:
    builtin = BUILTIN["test-mcp-echo-server"]
    server = build_server("echo", builtin.tools, instructions=builtin.instructions)
    async with Client(server) as client:
        assert text(await client.call_tool("echo", {"message": "Hëllo\n"})) == "Hëllo\n"
        tool = (await client.list_tools()).tools[0]
    assert tool.input_schema["required"] == ["message"]


async def start(**env: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "kaos.toolserver",
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"], **env},
    )


@pytest.mark.process
@pytest.mark.parametrize(
    ("env", "status", "last"),
    [
        (
            {},
            2,
            f"kaos.toolserver: set one of {', '.join(SOURCES)}: none is set",
        ),
        (
            {"MCP_PACKAGE": "../evil"},
            1,
            "kaos.toolserver: '../evil' is not the name of a package for python",
        ),
        (
            {"MCP_TOOLS_STRING": "def a(): ...\ndef f(:"},
            1,
            "kaos.toolserver: tools.fromString, line 2: invalid syntax: 'def f(:'",
        ),
    ],
)
async def test_the_last_line_says_why(env: dict[str, str], status: int, last: str) -> None:
    process = await start(**env)
    _, err = await process.communicate()
    assert process.returncode == status
    assert err.decode().splitlines()[-1] == last


@pytest.mark.process
async def test_the_process_ends_when_told_to_even_with_a_tool_that_does_not() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = await start(
        MCP_TOOLS_STRING="import time\ndef hang() -> str:\n    time.sleep(3600)\n",
        KAOS_LISTEN=f"127.0.0.1:{port}",
    )
    assert process.stderr is not None
    while b"serving tools" not in (line := await process.stderr.readline()):
        assert line
    url = f"http://127.0.0.1:{port}/mcp"
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "hang"}}
    headers = {
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": "2025-11-25",
    }
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(0.5)) as http:
        with pytest.raises(TimeoutError):
            async with http.post(url, json=body, headers=headers) as reply:
                await reply.read()
    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), 10) == 0
