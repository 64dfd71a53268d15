"""The outermost middleware: ids, limits, the access log, and the 500 of last resort."""

import asyncio
import io
from collections.abc import AsyncIterator

import aiohttp
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from structlog.testing import capture_logs

from kaos.telemetry import serving
from kaos.telemetry.http import Observed
from kaos.testing.waiting import eventually


async def echo(request: Request) -> Response:
    body = await request.body()
    return JSONResponse({"size": len(body), "id": request.state.request_id})


async def deaf(_request: Request) -> Response:
    return JSONResponse({})


async def broken(_request: Request) -> Response:
    raise ValueError("secret detail")


@pytest.fixture
async def url() -> AsyncIterator[str]:
    app = Starlette(
        routes=[
            Route("/echo", echo, methods=["POST"]),
            Route("/deaf", deaf, methods=["POST"]),
            Route("/broken", broken),
            Route("/healthz", deaf),
            Route("/v1/models", deaf, methods=["GET", "POST"]),
            Route("/v1/models/x", deaf),
            Route("/api/tags", deaf),
        ]
    )
    async with serving.running(Observed(app, max_body=1000)) as base:
        yield base


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def test_a_request_id_is_made_or_kept(url: str, http: aiohttp.ClientSession) -> None:
    async with http.post(f"{url}/echo") as response:
        made = response.headers["x-request-id"]
        assert (await response.json())["id"] == made
    async with http.post(f"{url}/echo", headers={"x-request-id": "abc-1"}) as response:
        assert response.headers["x-request-id"] == "abc-1"


@pytest.mark.parametrize("bad", ["a b", "x" * 200, "<script>"])
async def test_an_insane_request_id_is_replaced(
    url: str, http: aiohttp.ClientSession, bad: str
) -> None:
    async with http.post(f"{url}/echo", headers={"x-request-id": bad}) as response:
        assert response.headers["x-request-id"].startswith("req-")


async def test_an_announced_body_over_the_limit_is_413(
    url: str, http: aiohttp.ClientSession
) -> None:
    async with http.post(f"{url}/echo", data=b"x" * 1001) as response:
        assert response.status == 413
        assert "larger than 1000 bytes" in (await response.text())


async def test_a_body_of_unknown_length_is_413_as_it_passes_the_limit(
    url: str, http: aiohttp.ClientSession
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 100

    async with http.post(f"{url}/echo", data=pieces()) as response:
        assert response.status == 413


async def test_a_body_at_the_limit_is_taken(url: str, http: aiohttp.ClientSession) -> None:
    async with http.post(f"{url}/echo", data=b"x" * 1000) as response:
        assert (await response.json())["size"] == 1000


async def test_a_body_nobody_reads_does_not_hold_the_server_up(
    http: aiohttp.ClientSession,
) -> None:
    """Hypercorn's queue of ten pieces once filled up, and the server never ended."""

    async def slow(_request: Request) -> Response:
        await asyncio.sleep(0.2)
        return JSONResponse({})

    app = Starlette(routes=[Route("/deaf", slow, methods=["POST"])])
    started = asyncio.get_running_loop().time()
    async with (
        serving.running(Observed(app), grace=10) as base,
        http.post(f"{base}/deaf", data=io.BytesIO(b"x" * 4_000_000)) as response,
    ):
        assert response.status == 200
    assert asyncio.get_running_loop().time() - started < 5


async def test_an_exception_is_logged_and_not_shown(url: str, http: aiohttp.ClientSession) -> None:
    with capture_logs() as logged:
        async with http.get(f"{url}/broken") as response:
            assert response.status == 500
            assert "secret detail" not in await response.text()
        await asyncio.sleep(0.05)
    assert any(line["event"] == "request failed" for line in logged)


async def test_one_line_a_request_and_none_for_probes(
    url: str, http: aiohttp.ClientSession
) -> None:
    with capture_logs() as logged:
        await (await http.post(f"{url}/echo", data=b"x")).read()
        await (await http.get(f"{url}/healthz")).read()
        await asyncio.sleep(0.05)
    (line,) = [line for line in logged if line["event"] == "request"]
    assert (line["method"], line["path"], line["status"], line["outcome"]) == (
        "POST",
        "/echo",
        200,
        "ok",
    )


@pytest.mark.parametrize(
    ("path", "method", "level"),
    [
        ("/deaf", "tools/list", "debug"),
        ("/deaf", "tools/call", "info"),
        ("/nowhere", "tools/list", "info"),
    ],
)
async def test_what_mcp_clients_ask_all_the_time_is_no_news(
    url: str, http: aiohttp.ClientSession, path: str, method: str, level: str
) -> None:
    with capture_logs() as logged:
        async with http.post(f"{url}{path}", headers={"mcp-method": method}):
            pass
        await eventually(lambda: any(line["event"] == "request" for line in logged))
    (line,) = [line for line in logged if line["event"] == "request"]
    assert line["log_level"] == level


@pytest.mark.parametrize(
    ("method", "path", "level"),
    [
        ("GET", "/v1/models", "debug"),
        ("GET", "/api/tags", "debug"),
        ("GET", "/v1/models/x", "info"),
        ("POST", "/v1/models", "info"),
        ("POST", "/api/tags", "info"),  # 405
    ],
)
async def test_the_lists_of_models_that_agents_poll_are_no_news(
    url: str, http: aiohttp.ClientSession, method: str, path: str, level: str
) -> None:
    """A model API's log was little else."""
    with capture_logs() as logged:
        async with http.request(method, f"{url}{path}"):
            pass
        await eventually(lambda: any(line["event"] == "request" for line in logged))
    (line,) = [line for line in logged if line["event"] == "request"]
    assert line["log_level"] == level
