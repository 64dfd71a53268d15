"""The transport over real sockets, and its retries on virtual time."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
import pytest
from aiohttp import web

from kaos.runtime import CONFIG_MAP, Client, ClusterConfig, NotLeader, Unreachable
from kaos.runtime.config import Credentials, Login
from kaos.runtime.metrics import Metrics
from kaos.runtime.pool import HttpTransport
from kaos.runtime.transport import HttpRequest, HttpResponse, send
from tests.unit.runtime.fake import FakeServer, refused, status
from tests.unit.runtime.support import THINGS, things

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    yield f"http://{host}:{port}"
    await runner.cleanup()


@asynccontextmanager
async def connected(config: ClusterConfig) -> AsyncIterator[HttpTransport]:
    transport = HttpTransport(config, Metrics())
    yield transport
    await transport.close()


async def test_requests_share_a_pool_and_streams_have_their_own_connections() -> None:
    peers: dict[str, set[object]] = {"get": set(), "watch": set()}

    async def handler(request: web.Request) -> web.StreamResponse:
        peers[request.path.strip("/")].add(request.transport)
        if request.path == "/get":
            assert request.headers["Accept-Encoding"] == "identity"
            return web.Response(text="{}")
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"line\n")
        with contextlib.suppress(asyncio.CancelledError, ConnectionError):
            await asyncio.sleep(30)
        return response

    async with (
        serving(handler) as url,
        connected(ClusterConfig.direct(url)) as transport,
        transport.stream(HttpRequest("GET", "/watch")) as one,
        transport.stream(HttpRequest("GET", "/watch")) as two,
    ):
        assert await anext(one.chunks()) == b"line\n"
        assert await anext(two.chunks()) == b"line\n"
        for _ in range(5):
            assert (await transport.request(HttpRequest("GET", "/get"))).status == 200
    assert len(peers["watch"]) == 2
    assert len(peers["get"]) == 1


async def test_more_requests_than_connections_all_end() -> None:
    """httpx without a limit of its own: the 101st request hung for ever."""

    async def handler(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.001)
        return web.Response(text="{}")

    async with serving(handler) as url, connected(ClusterConfig.direct(url)) as transport:
        with anyio.fail_after(10):
            asked = (transport.request(HttpRequest("GET", "/")) for _ in range(300))
            assert {r.status for r in await asyncio.gather(*asked)} == {200}


async def test_a_refused_token_is_renewed_once_for_all_and_streams_live_on() -> None:
    """kr8s#536 and its 403: a new login closed the connections under all watches."""
    valid = "first"
    logins = 0

    async def login() -> Login:
        nonlocal logins
        logins += 1
        await asyncio.sleep(0.05)
        return Login("second")

    async def handler(request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {valid}":
            return web.Response(status=401, text="{}")
        if request.path != "/watch":
            return web.Response(text="{}")
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(asyncio.CancelledError, ConnectionError):
            for n in range(100):
                await response.write(f"{n}\n".encode())
                await asyncio.sleep(0.02)
        return response

    async with serving(handler) as url:
        config = ClusterConfig(url, credentials=Credentials(Login("first"), login))
        async with (
            connected(config) as transport,
            transport.stream(HttpRequest("GET", "/watch")) as stream,
        ):
            chunks = stream.chunks()
            await anext(chunks)
            valid = "second"
            asked = (transport.request(HttpRequest("GET", "/")) for _ in range(10))
            assert {r.status for r in await asyncio.gather(*asked)} == {200}
            assert logins == 1
            for _ in range(3):
                assert await anext(chunks)


async def test_a_token_is_renewed_before_it_expires() -> None:
    logins = 0

    async def login() -> Login:
        nonlocal logins
        logins += 1
        return Login(f"token-{logins}", expires=1e12)

    credentials = Credentials(Login("old", expires=1.0), login)
    assert await asyncio.gather(*(credentials.token() for _ in range(5))) == ["token-1"] * 5
    assert logins == 1


async def test_a_request_without_an_answer_ends_at_its_deadline() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(30)
        return web.Response()

    async with serving(handler) as url, connected(ClusterConfig.direct(url)) as transport:
        with pytest.raises(Unreachable, match=r"GET /slow: no answer in 0\.1 s"):
            await transport.request(HttpRequest("GET", "/slow", timeout=0.1))


async def test_a_stream_that_breaks_off_says_so() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"half a li")
        assert request.transport is not None
        request.transport.abort()
        return response

    async with (
        serving(handler) as url,
        connected(ClusterConfig.direct(url)) as transport,
        transport.stream(HttpRequest("GET", "/watch")) as stream,
    ):
        with pytest.raises(Unreachable):
            async for _ in stream.chunks():
                pass


READ = HttpRequest("GET", THINGS, idempotent=True)
WRITE = HttpRequest("POST", THINGS, body=b"{}")


def fake(*faults: HttpResponse | Exception) -> FakeServer:
    server = FakeServer()
    things(server)
    left = list(faults)

    def fault(request: HttpRequest) -> HttpResponse | Exception | None:
        return left.pop(0) if left else None

    server.faults.append(fault)
    return server


@pytest.mark.looptime
async def test_429_is_tried_again_after_the_time_the_server_asks_for() -> None:
    busy = HttpResponse(429, b"{}", retry_after=7.0)
    server = fake(busy, busy)
    assert (await send(server, READ)).status == 200
    times = [at for at, _ in server.requests]
    assert times[1] - times[0] >= 7
    assert times[2] - times[1] >= 7


@pytest.mark.looptime
async def test_a_write_is_not_sent_twice_when_nobody_knows_what_became_of_it() -> None:
    server = fake(refused(WRITE))
    with pytest.raises(Unreachable):
        await send(server, WRITE)
    assert len(server.requests) == 1
    server = fake(status(503, "ServiceUnavailable"))
    assert (await send(server, WRITE)).status == 503
    assert len(server.requests) == 1


@pytest.mark.looptime
async def test_a_retry_is_no_way_past_a_lost_lease() -> None:
    """The chaos test: a frozen leader woke up between two attempts, and wrote."""
    server = fake(HttpResponse(429, b"{}", retry_after=7.0))
    deadline = asyncio.get_running_loop().time() + 5

    def check() -> None:
        if asyncio.get_running_loop().time() > deadline:
            raise NotLeader("write refused")

    client = Client(server)
    client.guard(check)
    with pytest.raises(NotLeader):
        await client.create(CONFIG_MAP.body("a", "default"))
    assert len(server.requests) == 1


@pytest.mark.parametrize("refused_first", [True, False])
async def test_a_login_is_no_way_past_a_lost_lease(refused_first: bool) -> None:
    """A write was sent again after a 401, whatever had become of the lease during the login."""
    leading = True
    writes = 0

    async def login() -> Login:
        nonlocal leading
        leading = False  # it took longer than the lease lasts
        return Login("second")

    async def handler(request: web.Request) -> web.StreamResponse:
        nonlocal writes
        writes += 1
        return web.Response(status=401, text="{}")

    def check() -> None:
        if not leading:
            raise NotLeader("write refused")

    async with serving(handler) as url:
        expires = 0.0 if refused_first else 1.0
        config = ClusterConfig(url, credentials=Credentials(Login("first", expires=expires), login))
        async with connected(config) as transport:
            client = Client(transport)
            client.guard(check)
            with pytest.raises(NotLeader):
                await client.delete(CONFIG_MAP, "a", "default")
    assert writes == (1 if refused_first else 0)


@pytest.mark.looptime
async def test_a_read_is_tried_again_within_its_deadline() -> None:
    server = fake(refused(READ), status(503, "ServiceUnavailable"), status(500, "InternalError"))
    assert (await send(server, READ)).status == 200
    assert len(server.requests) == 4
    busy = [HttpResponse(429, b"{}", retry_after=20.0)] * 9
    server = fake(*busy)
    start = asyncio.get_running_loop().time()
    assert (await send(server, READ)).status == 429
    assert asyncio.get_running_loop().time() - start <= 30


@pytest.mark.looptime
async def test_a_second_attempt_gets_what_the_first_left_of_the_deadline() -> None:
    """It began anew with each attempt: a deadline of 30 s ended after 59 s."""
    server = fake()
    tries = 0

    async def hanging(request: HttpRequest) -> HttpResponse:
        nonlocal tries
        tries += 1
        await asyncio.sleep(request.timeout - 1 if tries == 1 else request.timeout)
        raise refused(request)

    server.request = hanging  # type: ignore[method-assign]
    start = asyncio.get_running_loop().time()
    with pytest.raises(Unreachable):
        await send(server, READ)
    assert tries == 2
    assert asyncio.get_running_loop().time() - start <= READ.timeout


@pytest.mark.looptime
async def test_a_write_under_way_is_answered_though_its_task_is_cancelled() -> None:
    """controller-runtime#967: a stop in mid-write left nobody knowing whether it happened."""
    server = fake()
    answered = []
    original = server.request

    async def slow(request: HttpRequest) -> HttpResponse:
        await asyncio.sleep(1)
        answer = await original(request)
        answered.append(answer.status)
        return answer

    server.request = slow  # type: ignore[method-assign]
    body = b'{"metadata":{"name":"a","namespace":"default"}}'
    request = HttpRequest("POST", "/apis/example.com/v1/namespaces/default/things", body=body)
    async with anyio.create_task_group() as group:
        group.start_soon(send, server, request)
        await asyncio.sleep(0.5)
        group.cancel_scope.cancel()
    assert answered == [201]
