"""An MCP server on stdio, or at a URL, behind ours."""

import asyncio
import contextlib
import functools
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from kaos.telemetry.serving import running
from kaos.toolserver import bridge as bridging
from kaos.toolserver import upstream as upstreams
from kaos.toolserver.bridge import Bridge, BridgeError
from kaos.toolserver.server import build_app, build_server
from kaos.toolserver.upstream import Child, Remote, Upstream
from tests.unit.toolserver.test_server import text

pytestmark = pytest.mark.process

STUB = str(Path(__file__).with_name("stub.py"))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridging, "FIRST_PAUSE", 0.001)


def child(*words: str, **env: str) -> Child:
    return Child("stub", [sys.executable, STUB, *words], {"PATH": os.environ["PATH"], **env})


class Told:
    def __init__(self) -> None:
        self.tools: list[list[str]] = []
        self.event = asyncio.Event()

    def __call__(self, tools: list[str]) -> None:
        self.tools.append(tools)
        self.event.set()

    async def again(self) -> list[str]:
        async with asyncio.timeout(10):
            await self.event.wait()
        self.event.clear()
        return self.tools[-1]


@contextlib.asynccontextmanager
async def bridged(upstream: Upstream) -> AsyncIterator[tuple[str, Told]]:
    """A bridge in front of an upstream that has just been reached."""
    bridge, told = Bridge("bridge"), Told()
    keeping = asyncio.create_task(bridge.keep(upstream, told))
    app = build_app(bridge, allowed_hosts=None, problem=lambda: bridge.problem)
    try:
        async with running(app) as url:
            await told.again()
            yield url, told
    finally:
        await bridging.close(bridge, keeping)
    assert keeping.cancelled() or keeping.exception() is None


async def ready(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as http, http.get(f"{url}/readyz") as reply:
        return reply.status, await reply.text()


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_everything_of_an_old_stdio_server_is_served_to_both_eras(mode: str) -> None:
    seen: list[float] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        seen.append(progress)

    async with (
        bridged(child("--word", "$(HOME) `id`; 'x'")) as (url, _),
        Client(f"{url}/mcp", mode=mode) as client,
    ):
        assert client.instructions == "Use it well."
        assert "echo" in [tool.name for tool in (await client.list_tools()).tools]
        said = await client.call_tool("echo", {"message": "Hëllo"}, progress_callback=note)
        assert text(said) == "Hëllo"
        assert seen == [1]
        words = json.loads(text(await client.call_tool("arguments", {})))
        assert words == ["--word", "$(HOME) `id`; 'x'"]  # no shell has read them
        assert [r.name for r in (await client.list_resources()).resources] == ["one"]
        (content,) = (await client.read_resource("stub://one")).contents
        assert getattr(content, "text", "") == "first"
        assert (await client.list_prompts()).prompts == []
        assert await ready(url) == (200, "ok\n")


async def test_a_child_that_dies_is_started_again_and_its_caller_is_told() -> None:
    async with bridged(child()) as (url, told):
        async with Client(f"{url}/mcp") as client:
            with pytest.raises(MCPError, match="Connection closed"):
                await client.call_tool("die", {})
        assert "echo" in await told.again()
        async with Client(f"{url}/mcp") as client:
            assert text(await client.call_tool("echo", {"message": "back"})) == "back"


async def test_new_tools_are_told_to_those_who_listen_and_in_the_log() -> None:
    async with bridged(child()) as (url, told), Client(f"{url}/mcp") as client:
        async with client.listen(tools_list_changed=True) as events:
            await client.call_tool("grow", {})
            async with asyncio.timeout(10):
                await anext(events)
        assert "grown" in await told.again()
        async with aiohttp.ClientSession() as http, http.get(f"{url}/tools") as reply:
            assert "grown" in [tool["name"] for tool in (await reply.json())["tools"]]


async def test_a_child_that_never_serves_ends_the_bridge_with_its_last_words() -> None:
    bridge = Bridge("bridge")
    with pytest.raises(BridgeError, match=r"^stub cannot be used: KeyError: 'TOKEN'$"):
        await bridge.keep(child("broken"), Told())
    async with Client(bridge._server) as client:
        with pytest.raises(MCPError, match="cannot be used now: KeyError"):
            await client.list_tools()


async def test_a_child_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridging, "CONNECT_TIMEOUT", 0.05)
    monkeypatch.setattr("mcp.client.stdio.PROCESS_TERMINATION_TIMEOUT", 0.05)
    with pytest.raises(BridgeError, match="stub cannot be used: TimeoutError"):
        await Bridge("bridge").keep(child("deaf"), Told())


async def test_the_end_takes_the_child_and_its_own_children_along(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mcp.client.stdio.PROCESS_TERMINATION_TIMEOUT", 0.05)
    monkeypatch.setattr("mcp.client.stdio.FORCE_KILL_TIMEOUT", 0.05)
    async with bridged(child()) as (url, _), Client(f"{url}/mcp") as client:
        pids = [int(pid) for pid in text(await client.call_tool("child", {})).split()]
        os.kill(pids[0], signal.SIGSTOP)  # it will not go by itself
    async with asyncio.timeout(5):
        while any(running_(pid) for pid in pids):  # noqa: ASYNC110 - init reaps in its own time
            await asyncio.sleep(0.01)


def running_(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


class Guarded:
    """A server that asks for a token, and notes what it is shown."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.token = "Bearer one"
        self.down = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            shown = Request(scope).headers.get("authorization")
            if shown != self.token or self.down:
                answer = PlainTextResponse("who are you?", 503 if self.down else 401)
                await answer(scope, receive, send)
                return
        await self.app(scope, receive, send)


def shout(message: str) -> str:
    return message.upper()


async def test_a_remote_server_gets_the_headers_of_the_files_also_new_ones(tmp_path: Path) -> None:
    (tmp_path / "Authorization").write_text("Bearer one\n")
    (tmp_path / "..data").mkdir()
    app = Guarded(build_app(build_server("remote", [shout]), allowed_hosts=None))
    async with (
        running(app) as there,
        bridged(Remote(f"{there}/mcp", tmp_path)) as (url, _),
        Client(f"{url}/mcp") as client,
    ):
        assert text(await client.call_tool("shout", {"message": "a"})) == "A"
        app.token = "Bearer two"
        (tmp_path / "Authorization").write_text("Bearer two")
        assert text(await client.call_tool("shout", {"message": "b"})) == "B"


async def test_a_remote_server_that_refuses_or_is_not_there_is_told(tmp_path: Path) -> None:
    (tmp_path / "Authorization").write_text("Bearer s3cret")
    app = Guarded(build_app(build_server("remote", [shout]), allowed_hosts=None))
    async with running(app) as there:
        with pytest.raises(
            BridgeError, match=r"/mcp cannot be used: it answers 401 Unauthorized"
        ) as caught:
            await Bridge("bridge").keep(Remote(f"{there}/mcp?key=k", tmp_path), Told())
        assert "s3cret" not in str(caught.value)
        assert "key=k" not in str(caught.value)
    with pytest.raises(BridgeError, match="cannot be reached"):
        await Bridge("bridge").keep(Remote(f"{there}/mcp", None), Told())
    (tmp_path / "Authorization").write_text("Bearer s3cret\nand more")
    with pytest.raises(BridgeError, match="header authorization is not one line") as caught:
        await Bridge("bridge").keep(Remote(f"{there}/mcp", tmp_path), Told())
    assert "s3cret" not in str(caught.value), "the client quoted it"


async def test_a_remote_server_that_has_served_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridging, "RELIST", 0.01)
    monkeypatch.setattr(bridging, "LONGEST_PAUSE", 0.01)
    (tmp_path / "Authorization").write_text("Bearer one")
    app = Guarded(build_app(build_server("remote", [shout]), allowed_hosts=None))
    async with running(app) as there, bridged(Remote(f"{there}/mcp", tmp_path)) as (url, told):
        app.down = True
        async with asyncio.timeout(10):
            while (await ready(url))[0] == 200:  # noqa: ASYNC110 - the bridge finds out
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)  # more tries than a child is given
        assert (await ready(url))[0] == 503
        told.event.clear()
        app.down = False
        assert await told.again() == ["shout"]


async def test_a_session_that_a_remote_server_has_forgotten_costs_no_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every call was an error until the next list, fifteen seconds later."""
    monkeypatch.setattr(upstreams, "Client", functools.partial(Client, mode="legacy"))

    def server() -> ASGIApp:
        return build_server("remote", [shout]).streamable_http_app()

    async with contextlib.AsyncExitStack() as first:
        there = await first.enter_async_context(running(server()))
        async with bridged(Remote(f"{there}/mcp", None)) as (url, _):
            await first.aclose()
            async with (
                running(server(), listen=urlsplit(there).netloc),
                Client(f"{url}/mcp") as client,
            ):
                calls = (client.call_tool("shout", {"message": "a"}) for _ in range(5))
                assert [text(answer) for answer in await asyncio.gather(*calls)] == ["A"] * 5


async def process(folder: Path, *words: str, **env: str) -> asyncio.subprocess.Process:
    """The tool server with a package that has been installed before: the stub."""
    argv = [sys.executable, STUB]
    (folder / "kaos-argv.json").write_text(json.dumps({"package": "stub", "argv": argv}))
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "kaos.toolserver", *words),
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "KAOS_PACKAGE_FOLDER": str(folder), **env},
    )


async def test_the_process_serves_a_package_and_ends_when_told_to(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        listen = "{}:{}".format(*probe.getsockname())
    # The name is no built-in server's, so it is a package's.
    served = await process(tmp_path, "--a", MCP_BUILTIN="stub", KAOS_LISTEN=listen, OWN="mine")
    assert served.stderr is not None
    while b"serving tools" not in (line := await served.stderr.readline()):
        assert line
    assert json.loads(line)["tools"][0] == "echo"
    async with Client(f"http://{listen}/mcp") as client:
        assert text(await client.call_tool("arguments", {})) == '["--a"]'
        assert text(await client.call_tool("environment", {"name": "OWN"})) == "mine"
        path = text(await client.call_tool("environment", {"name": "PATH"}))
        assert path.startswith(f"{tmp_path}/bin:")
    served.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(served.wait(), 10) == 0


async def test_the_process_of_a_package_that_cannot_run_ends_with_its_words(tmp_path: Path) -> None:
    ended = await process(tmp_path, "broken", MCP_PACKAGE="stub", KAOS_LISTEN="127.0.0.1:0")
    _, errors = await ended.communicate()
    assert ended.returncode == 1
    last = errors.decode().splitlines()[-1]
    assert last == "kaos.toolserver: stub cannot be used: KeyError: 'TOKEN'"
