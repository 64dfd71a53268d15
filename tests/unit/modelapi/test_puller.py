import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from structlog.testing import capture_logs

from kaos.modelapi.names import OverrideError, full_name, parse_overrides
from kaos.modelapi.ollama_client import OllamaClient, PullError, Unreachable
from kaos.modelapi.puller import Puller, build_app
from kaos.telemetry.serving import running


class FakeOllama:
    """A store, and the lines that a pull answers."""

    def __init__(self) -> None:
        self.store: set[str] = set()
        self.pulled: list[str] = []
        self.lines: list[dict[str, Any]] = [
            {"status": "pulling manifest"},
            {"status": "pulling abc", "total": 100, "completed": 40},
            {"status": "pulling abc", "total": 100, "completed": 100},
            {"status": "success"},
        ]
        self.refuse: Response | None = None
        self.app = Starlette(
            routes=[
                Route("/api/tags", self.tags),
                Route("/api/pull", self.pull, methods=["POST"]),
                Route("/api/copy", self.copy, methods=["POST"]),
            ]
        )

    async def tags(self, _: Request) -> Response:
        return JSONResponse({"models": [{"name": name, "model": name} for name in self.store]})

    async def pull(self, request: Request) -> Response:
        model = (await request.json())["model"]
        self.pulled.append(model)
        if self.refuse is not None:
            return self.refuse
        lines = self.lines  # a test may set others while these are sent
        if lines[-1].get("status") == "success":
            self.store.add(model)

        def body() -> Iterator[str]:
            for line in lines:
                yield json.dumps(line) + "\n"

        return StreamingResponse(body(), media_type="application/x-ndjson")

    async def copy(self, request: Request) -> Response:
        names = await request.json()
        if names["source"] not in self.store:
            return JSONResponse({"error": f"model '{names['source']}' not found"}, status_code=404)
        self.store.add(names["destination"])
        return Response()


@pytest.fixture
def ollama() -> FakeOllama:
    return FakeOllama()


@contextlib.asynccontextmanager
async def watching(
    ollama: FakeOllama, model: str = "tiny", **overrides: str
) -> AsyncIterator[tuple[Puller, "asyncio.Task[None]"]]:
    async with running(ollama.app) as url, aiohttp.ClientSession() as http:
        named = parse_overrides(",".join(f"{a}={b}" for a, b in overrides.items()))
        puller = Puller(
            OllamaClient(http, url), model, overrides=named, look_every=0.01, retry_every=0.01
        )
        task = asyncio.create_task(puller.run())
        try:
            yield puller, task
        finally:
            task.cancel()
            await asyncio.wait([task])


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - it watches, without a hook
            await asyncio.sleep(0.005)


async def test_a_missing_model_is_pulled_and_progress_is_logged(ollama: FakeOllama) -> None:
    with capture_logs() as logged:
        async with watching(ollama) as (puller, _):
            assert not puller.ready
            await until(lambda: puller.ready)
    assert ollama.pulled == ["tiny:latest"]
    progress = [line for line in logged if line["event"] == "pull" and "total" in line]
    assert [line["completed"] for line in progress] == [40, 100]


async def test_a_model_that_is_there_is_not_pulled(ollama: FakeOllama) -> None:
    ollama.store.add("tiny:latest")
    async with watching(ollama, "ollama/tiny") as (puller, _):
        await until(lambda: puller.ready)
    assert ollama.pulled == []


async def test_a_model_that_is_lost_is_pulled_again(ollama: FakeOllama) -> None:
    async with watching(ollama) as (puller, _):
        await until(lambda: puller.ready)
        ollama.store.clear()
        await until(lambda: len(ollama.pulled) == 2 and puller.ready)


async def test_an_override_is_pulled_and_copied_to_the_name(ollama: FakeOllama) -> None:
    async with watching(ollama, "tiny", tiny="small:1b") as (puller, _):
        await until(lambda: puller.ready)
    assert ollama.pulled == ["small:1b"]
    assert ollama.store == {"small:1b", "tiny:latest"}


async def test_ollamas_words_end_the_watch(ollama: FakeOllama) -> None:
    ollama.lines = [{"status": "pulling manifest"}, {"error": "pull model manifest:\nno such"}]
    async with watching(ollama) as (_, task):
        with pytest.raises(PullError) as caught:
            await task
    assert str(caught.value) == "model 'tiny:latest' cannot be pulled: pull model manifest: no such"


async def test_a_refusal_before_the_stream_ends_it_too(ollama: FakeOllama) -> None:
    ollama.refuse = JSONResponse({"error": "disk full"}, status_code=500)
    async with watching(ollama, "tiny", tiny="small") as (_, task):
        with pytest.raises(PullError, match=r"'small:latest' \(in place of 'tiny:latest'\).*disk"):
            await task


async def test_a_stream_that_breaks_off_is_tried_again(ollama: FakeOllama) -> None:
    whole, ollama.lines = ollama.lines, [{"status": "pulling manifest"}]
    async with watching(ollama) as (puller, _):
        await until(lambda: len(ollama.pulled) >= 2)
        assert not puller.ready
        ollama.lines = whole
        await until(lambda: puller.ready)


async def test_it_waits_for_an_ollama_that_is_not_there_yet() -> None:
    async with aiohttp.ClientSession() as http:
        client = OllamaClient(http, "http://127.0.0.1:9")
        with pytest.raises(Unreachable):
            await client.models()
        puller = Puller(client, "tiny", overrides={}, retry_every=0.001)
        with capture_logs() as logged, pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await puller.run()
    # It says so once, not with every try.
    assert [line["event"] for line in logged] == ["waiting for Ollama"]


async def test_ready_only_while_the_model_is_there(ollama: FakeOllama) -> None:
    async with watching(ollama) as (puller, task):
        await until(lambda: puller.ready)
        task.cancel()
        async with running(build_app(puller)) as url, aiohttp.ClientSession(url) as http:
            async with http.get("/readyz") as reply:
                assert reply.status == 200
            puller.ready = False
            async with http.get("/readyz") as reply:
                assert reply.status == 503
                assert "tiny:latest" in await reply.text()
            async with http.get("/healthz") as reply:
                assert reply.status == 200


def test_names_and_overrides() -> None:
    assert full_name("a") == "a:latest"
    assert full_name("host:5000/a") == "host:5000/a:latest"
    assert full_name("a:b") == "a:b"
    assert parse_overrides(" a=b:1 , c:2=d,") == {"a:latest": "b:1", "c:2": "d:latest"}
    with pytest.raises(OverrideError, match="'a' is not NAME=NAME"):
        parse_overrides("a")


@pytest.mark.process
async def test_the_last_line_of_the_process_is_the_sentence(ollama: FakeOllama) -> None:
    ollama.lines = [{"error": "file does not exist"}]
    async with running(ollama.app) as url:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "kaos.modelapi", "pull"),
            *("--model", "llama9", "--upstream", url),
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "KAOS_LISTEN": "127.0.0.1:0"},
        )
        _, err = await process.communicate()
    assert process.returncode == 1
    lines = err.decode().splitlines()
    assert lines[-1] == "model 'llama9:latest' cannot be pulled: file does not exist"
    assert json.loads(lines[0])["event"] == "pull"
