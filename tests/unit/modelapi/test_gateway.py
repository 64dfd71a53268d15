import asyncio
import contextlib
import gzip
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import (
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route

from kaos.modelapi import __main__ as process
from kaos.modelapi.config import ConfigError, GatewayConfig
from kaos.modelapi.gateway import build_app
from kaos.telemetry import logs
from kaos.telemetry.serving import running


class Upstream:
    """A model server that notes what it is asked and answers what a test wants."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str], bytes]] = []
        self.answer: Response = JSONResponse({"answer": 1})
        self.hang = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.app = Starlette(routes=[Route("/v1/{path:path}", self.ask, methods=["POST"])])

    async def ask(self, request: Request) -> Response:
        self.asked.append(
            (request.path_params["path"], dict(request.headers), await request.body())
        )
        if self.hang.is_set():
            while (await request.receive())["type"] != "http.disconnect":
                pass
            self.cancelled.set()
        return self.answer


@contextlib.asynccontextmanager
async def gateway(
    *models: dict[str, Any], **env: str
) -> AsyncIterator[tuple[aiohttp.ClientSession, Upstream]]:
    upstream = Upstream()
    async with running(upstream.app) as base:
        given = models or ({"name": "m"},)
        config = GatewayConfig.model_validate(
            {"models": [{"api_base": f"{base}/v1", **model} for model in given]}
        )
        async with (
            running(build_app(config, env)) as url,
            aiohttp.ClientSession(url, auto_decompress=False) as http,
        ):
            yield http, upstream


def chat(http: aiohttp.ClientSession, body: Any, **kwargs: Any) -> Any:
    return http.post("/v1/chat/completions", data=json.dumps(body), **kwargs)


async def test_the_bytes_pass_untouched_when_the_names_agree() -> None:
    async with gateway() as (http, upstream):
        raw = b'{ "model":"m",  "unknown": [1e3, "\\u00e4"] }'
        upstream.answer = Response(b'{ "x" :1}', 200, {"content-type": "application/json"})
        async with http.post(
            "/v1/embeddings", data=raw, headers={"Authorization": "Bearer for-us"}
        ) as reply:
            assert await reply.read() == b'{ "x" :1}'
    (asked,) = upstream.asked
    assert asked[0] == "embeddings"
    assert asked[2] == raw
    # What the caller showed us is not for the upstream.
    assert "authorization" not in asked[1]


async def test_the_name_is_mapped_and_the_key_added(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from-file\n")
    async with gateway(
        {"name": "pub/*", "model": "*", "api_key_env": "KEY"},
        {"name": "filed", "api_key_file": str(tmp_path / "key")},
        KEY="from-env",
    ) as (http, upstream):
        async with chat(http, {"model": "pub/x", "n": 1}) as reply:
            assert reply.status == 200
        async with chat(http, {"model": "filed"}) as reply:
            assert reply.status == 200
        (tmp_path / "key").write_text("rotated")
        async with chat(http, {"model": "filed"}) as reply:
            assert reply.status == 200
    assert json.loads(upstream.asked[0][2]) == {"model": "x", "n": 1}
    keys = [headers["authorization"] for _, headers, _ in upstream.asked]
    assert keys == ["Bearer from-env", "Bearer from-file", "Bearer rotated"]


async def test_a_stream_passes_as_it_comes() -> None:
    gate = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"data: 1\n\n"
        await gate.wait()
        yield b"data: [DONE]\n\n"

    async with gateway() as (http, upstream):
        upstream.answer = StreamingResponse(body(), media_type="text/event-stream")
        async with chat(http, {"model": "m", "stream": True}) as reply:
            # The second half does not exist yet when the first one is here.
            assert await reply.content.readany() == b"data: 1\n\n"
            gate.set()
            assert await reply.read() == b"data: [DONE]\n\n"
            assert reply.headers["x-accel-buffering"] == "no"


async def test_a_stream_that_breaks_off_ends_with_an_error_event() -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"data: 1\n\n"
        await asyncio.sleep(3600)

    async with gateway({"name": "m", "timeout": 0.1}) as (http, upstream):
        upstream.answer = StreamingResponse(body(), media_type="text/event-stream")
        async with chat(http, {"model": "m", "stream": True}) as reply:
            text = await reply.text()
    event = json.loads(text.strip().splitlines()[-1].removeprefix("data: "))
    assert event["error"]["code"] == "upstream_timeout"


async def test_the_upstreams_refusal_passes_with_its_headers() -> None:
    async with gateway() as (http, upstream):
        upstream.answer = JSONResponse(
            {"error": {"message": "slow down"}},
            429,
            {"retry-after": "7", "x-ratelimit-limit": "3", "set-cookie": "a=b"},
        )
        async with chat(http, {"model": "m"}) as reply:
            assert reply.status == 429
            assert (await reply.json())["error"]["message"] == "slow down"
            assert reply.headers["retry-after"] == "7"
            assert reply.headers["x-ratelimit-limit"] == "3"
            assert "set-cookie" not in reply.headers


async def test_an_error_page_becomes_an_error_object() -> None:
    async with gateway() as (http, upstream):
        upstream.answer = PlainTextResponse("<h1>Bad\nGateway</h1>", 502)
        async with chat(http, {"model": "m"}) as reply:
            error = (await reply.json())["error"]
            assert reply.status == 502
    assert error["message"] == "the upstream of model 'm' answered 502: <h1>Bad Gateway</h1>"
    assert error["type"] == "server_error"


async def test_an_upstream_that_has_moved_is_told_with_the_way_out() -> None:
    """The redirect made a GET of the question, and the client read "Method Not Allowed"."""
    async with gateway() as (http, upstream):
        upstream.answer = RedirectResponse("/v1/elsewhere?key=k", 301)
        async with chat(http, {"model": "m"}) as reply:
            error = (await reply.json())["error"]
            assert (reply.status, error["code"]) == (502, "upstream_moved")
    assert error["message"].endswith("/v1/elsewhere: set api_base to where it is")


async def test_an_upstream_that_is_not_there_or_silent() -> None:
    async with gateway(
        {"name": "gone", "api_base": "http://127.0.0.1:9/v1"},
        {"name": "silent", "timeout": 0.05},
    ) as (http, upstream):
        upstream.hang.set()
        async with chat(http, {"model": "gone"}) as reply:
            assert reply.status == 502
            assert (await reply.json())["error"]["code"] == "upstream_unreachable"
        async with chat(http, {"model": "silent"}) as reply:
            assert reply.status == 504
            assert (await reply.json())["error"]["code"] == "upstream_timeout"


async def test_a_client_that_goes_away_ends_the_work_upstream() -> None:
    async with gateway() as (http, upstream):
        upstream.hang.set()
        task = asyncio.create_task(chat(http, {"model": "m"}).__aenter__())
        async with asyncio.timeout(5):
            while not upstream.asked:  # noqa: ASYNC110 - it watches the upstream
                await asyncio.sleep(0.005)
            task.cancel()
            await upstream.cancelled.wait()


async def test_models_and_refusals_of_our_own() -> None:
    async with gateway({"name": "m"}, {"name": "p/*"}) as (http, upstream):
        async with http.get("/v1/models") as reply:
            assert [model["id"] for model in (await reply.json())["data"]] == ["m"]
        for path, status in [
            ("/v1/models/p/any", 200),
            ("/v1/models/other", 404),
            ("/healthz", 200),
            ("/readyz", 200),
        ]:
            async with http.get(path) as reply:
                assert reply.status == status
        for body, status, code in [
            ({"model": "other"}, 404, "model_not_found"),
            ({"model": "\ud800"}, 404, "model_not_found"),
            ({}, 400, None),
            ([], 400, None),
        ]:
            async with chat(http, body) as reply:
                assert reply.status == status
                assert (await reply.json())["error"]["code"] == code
        for nonsense in (b"\xff", b"[" * 100_000):
            async with http.post("/v1/chat/completions", data=nonsense) as reply:
                assert reply.status == 400, "too deep for the parser was an internal error"
        async with http.post("/v1/files", data=b"{}") as reply:
            assert reply.status == 404
            assert (await reply.json())["error"]["type"] == "invalid_request_error"
        assert upstream.asked == []
        async with chat(http, {"model": "p/secret-name"}):
            pass
        async with http.get("/metrics") as reply:
            page = await reply.text()
    assert 'kaos_modelapi_requests_total{model="p/*",status="200"}' in page
    assert "secret-name" not in page


def one(**model: Any) -> GatewayConfig:
    return GatewayConfig.model_validate({"models": [{"name": "m", **model}]})


def test_a_key_that_is_missing_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="model m: the API key in variable KEY is empty"):
        build_app(one(api_base="http://x", api_key_env="KEY"), {})
    with pytest.raises(ConfigError, match="variable KEY is not one line of text"):
        build_app(one(api_base="http://m", api_key_env="KEY"), {"KEY": "sk-1\nsk-2"})
    with pytest.raises(ConfigError, match="model m: cannot read"):
        build_app(one(api_base="http://x", api_key_file=str(tmp_path / "none")), {})


def test_a_provider_without_litellm_stops_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    # It would log to this test's captured standard error for the rest of the session.
    monkeypatch.setattr(logs, "configure", lambda *_: None)
    path = tmp_path / "config.json"
    path.write_text('{"models": [{"name": "claude", "provider": "anthropic"}]}')
    assert process.main(["serve", "--config", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("model 'claude' needs provider 'anthropic', which needs LiteLLM")


def test_a_litellm_that_cannot_be_loaded_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "litellm.py").write_text("raise FileNotFoundError('no folder\\nto write to')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "litellm", raising=False)
    monkeypatch.setattr(logs, "configure", lambda *_: None)
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    path = tmp_path / "config.json"
    path.write_text('{"models": [{"name": "claude", "provider": "anthropic"}]}')
    assert process.main(["serve", "--config", str(path)]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "LiteLLM cannot be loaded: FileNotFoundError: no folder to write to"
    ]


async def test_a_provider_through_litellm(litellm: Any) -> None:
    model = {"name": "a/*", "model": "*", "provider": "acme", "api_key_env": "K"}
    async with gateway(model, K="key") as (http, upstream):
        async with chat(http, {"model": "a/b", "messages": []}) as reply:
            assert await reply.json() == {"model": "a/b", "choices": []}
        async with chat(http, {"model": "a/b", "messages": "refuse"}) as reply:
            assert reply.status == 429
            assert "no quota left" in (await reply.json())["error"]["message"]
        async with chat(http, {"model": "a/b", "messages": [], "stream": True}) as reply:
            assert await reply.text() == 'data: {"model": "a/b", "delta": 1}\n\ndata: [DONE]\n\n'
        async with chat(http, {"model": "a/b", "messages": "break", "stream": True}) as reply:
            events = (await reply.text()).strip().split("\n\n")
            assert "broke" in json.loads(events[1].removeprefix("data: "))["error"]["message"]
            assert len(events) == 2
        async with http.post("/v1/responses", data=b'{"model": "a/b"}') as reply:
            assert reply.status == 404
    assert upstream.asked == []
    assert litellm.asked[0]["model"] == "acme/b"
    assert litellm.asked[0]["api_key"] == "key"
    assert litellm.drop_params is True


async def test_nobody_gets_gzip_who_did_not_ask_for_it() -> None:
    """aiohttp asked the upstream in the caller's place, and curl printed binary."""
    async with gateway() as (http, upstream):
        skipped = {"skip_auto_headers": ["Accept-Encoding"]}
        async with chat(http, {"model": "m"}, **skipped):
            pass
        async with chat(http, {"model": "m"}, headers={"Accept-Encoding": "gzip"}):
            pass
        upstream.answer = Response(
            gzip.compress(b"<h1>no</h1>"), 502, {"content-encoding": "gzip"}, "text/html"
        )
        async with chat(http, {"model": "m"}, headers={"Accept-Encoding": "gzip"}) as reply:
            error = (await reply.json())["error"]
    assert [h["accept-encoding"] for _, h, _ in upstream.asked] == ["identity", "gzip", "gzip"]
    assert error["message"] == "the upstream of model 'm' answered 502: with a page that is no text"
