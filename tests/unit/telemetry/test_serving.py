"""Serving: binding, grace, and the end."""

import asyncio
import os
import signal
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from kaos.telemetry import serving
from kaos.testing.waiting import eventually


class Streams:
    """An app that streams for ever, and remembers how its streams ended."""

    def __init__(self) -> None:
        self.ends: list[str] = []
        self.app = Starlette(routes=[Route("/slow", self.slow), Route("/", self.hello)])

    async def hello(self, _request: Request) -> Response:
        return PlainTextResponse("hello")

    async def slow(self, _request: Request) -> Response:
        return StreamingResponse(self.pieces())

    async def pieces(self) -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x\n"
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            self.ends.append("cancelled")
            raise


async def test_it_serves_without_naming_the_server() -> None:
    async with (
        serving.running(Streams().app) as url,
        aiohttp.ClientSession() as http,
        http.get(url) as response,
    ):
        assert await response.text() == "hello"
        assert "server" not in response.headers


async def test_a_drain_that_is_no_number_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process ended with a trace that did not say which variable it was."""
    monkeypatch.setenv(serving.DRAIN_VARIABLE, "5s")
    with pytest.raises(serving.ListenError, match="KAOS_DRAIN is '5s': it must be a number"):
        await serving.serve(Streams().app, listen="127.0.0.1:0")


async def test_a_taken_port_is_one_clear_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(serving.ListenError, match=f"cannot listen on 127.0.0.1:{port}: Addr"):
            await serving.serve(Streams().app, listen=f"127.0.0.1:{port}")


@pytest.mark.parametrize("listen", ["", "8000", "localhost:", "localhost:http", "a:99999"])
async def test_a_malformed_address_is_a_clear_error(listen: str) -> None:
    with pytest.raises(serving.ListenError, match="must be host:port"):
        await serving.serve(Streams().app, listen=listen)


async def test_a_stream_that_outlives_the_grace_is_cancelled() -> None:
    app = Streams()
    async with aiohttp.ClientSession() as http:
        async with serving.running(app.app, grace=0.1) as url:
            response = await http.get(f"{url}/slow")
            assert await response.content.readline() == b"x\n"
            ended = asyncio.get_running_loop().time()
        assert 0.05 < asyncio.get_running_loop().time() - ended < 1.5
        response.close()
    assert app.ends == ["cancelled"]


async def test_a_request_within_the_grace_is_finished() -> None:
    release = asyncio.Event()

    async def late(_request: Request) -> Response:
        await release.wait()
        return PlainTextResponse("done")

    async with aiohttp.ClientSession() as http:
        async with serving.running(Starlette(routes=[Route("/", late)]), grace=5) as url:
            call = asyncio.create_task(http.get(url))
            await asyncio.sleep(0.1)
            asyncio.get_running_loop().call_later(0.1, release.set)
        response = await call
        assert await response.text() == "done"


async def test_idle_connections_do_not_hold_up_the_end() -> None:
    async with aiohttp.ClientSession() as http:
        async with serving.running(Streams().app, grace=20) as url:
            async with http.get(url) as response:
                await response.read()
            started = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - started < 2


async def test_sigterm_ends_it_and_the_lifespan_is_closed() -> None:
    seen: list[str] = []

    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        seen.append("up")
        yield
        seen.append("down")

    app = Starlette(lifespan=asynccontextmanager(lifespan))
    loop = asyncio.get_running_loop()

    def kill(_url: str) -> None:
        loop.call_later(0.1, os.kill, os.getpid(), signal.SIGTERM)

    async with asyncio.timeout(5):
        await serving.serve(app, listen="127.0.0.1:0", on_listening=kill)
    assert seen == ["up", "down"]


async def test_what_is_done_around_the_lifespan_is_done_to_its_end() -> None:
    """Hypercorn cancelled it: last spans and open connections were lost, on Python 3.12 always."""
    seen: list[str] = []

    async def around(scope: Scope, receive: Receive, send: Send) -> None:
        await Streams().app(scope, receive, send)
        await asyncio.sleep(0.05)
        seen.append("ended")

    async with serving.running(around):
        pass
    assert seen == ["ended"]


async def test_an_app_that_cannot_start_is_not_served() -> None:
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        if not app.routes:
            raise RuntimeError("no")
        yield

    app = Starlette(lifespan=asynccontextmanager(lifespan))
    with pytest.raises(Exception, match="startup"):
        await serving.serve(app, listen="127.0.0.1:0", stop=asyncio.Event())


async def test_while_it_drains_it_serves_and_then_refuses() -> None:
    stop = asyncio.Event()
    url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    server = asyncio.create_task(
        serving.serve(
            Streams().app,
            listen="127.0.0.1:0",
            drain=0.3,
            grace=0.1,
            stop=stop,
            on_listening=url.set_result,
        )
    )
    address = await url
    stop.set()
    async with aiohttp.ClientSession() as http:
        async with http.get(address) as response:
            assert response.status == 200
        await server
        with pytest.raises(aiohttp.ClientConnectionError):
            await http.get(address)


async def test_once_told_to_stop_every_answer_is_its_connections_last() -> None:
    """A client's next request was lost when we closed the connection under it."""
    stop = asyncio.Event()
    url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    server = asyncio.create_task(
        serving.serve(
            Streams().app,
            listen="127.0.0.1:0",
            drain=0.3,
            stop=stop,
            on_listening=url.set_result,
        )
    )
    async with aiohttp.ClientSession() as http:
        for told in (False, True):
            async with http.get(await url) as answer:
                assert (answer.headers.get("connection") == "close") is told
            stop.set()
    await server


async def test_the_drain_can_be_set_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(serving.DRAIN_VARIABLE, "0.2")
    began = asyncio.get_running_loop().time()
    async with serving.running(Streams().app, grace=0.1):
        pass
    assert asyncio.get_running_loop().time() - began >= 0.2


async def test_a_client_that_resets_its_connection_leaves_none_behind() -> None:
    """Hypercorn kept it for the whole keep-alive time: 75 s."""
    async with serving.running(Streams().app) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1]))
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        await reader.readuntil(b"hello")
        assert _connections()
        at_once = struct.pack("ii", 1, 0)  # which makes the close a reset
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        writer.close()
        await writer.wait_closed()
        await eventually(lambda: not _connections())


async def test_a_connection_is_closed_when_it_was_idle_for_too_long_and_not_while_it_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serving, "KEEP_ALIVE", 0.1)
    async with serving.running(Streams().app) as url:
        port = int(url.rsplit(":", 1)[1])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        used, using = await asyncio.open_connection("127.0.0.1", port)
        using.write(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n")
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        async with asyncio.timeout(5):
            assert (await reader.read()).endswith(b"hello")  # up to the end of the connection
            for _ in range(40):
                assert await used.readuntil(b"x\n")
        for each in (writer, using):
            each.close()
            await each.wait_closed()


def _connections() -> list[str]:
    """The tasks of connections of the server."""
    names = [getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()]
    return [name for name in names if "_server_callback" in name]
