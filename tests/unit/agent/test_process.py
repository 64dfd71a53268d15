"""`python -m kaos.agent` as a pod runs it."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from typing import Any

import aiohttp
import pytest

from kaos.testing.model import ScriptedModel, Turn
from kaos.testing.waiting import eventually

pytestmark = pytest.mark.process


def environment(**changes: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "KAOS_LOG_FORMAT": "json", **changes}


def run(**env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kaos.agent"],
        env=environment(**env),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_without_settings_it_says_what_is_missing_in_one_line() -> None:
    result = run()
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    for variable in ("AGENT_NAME", "MODEL_API_URL", "MODEL_NAME"):
        assert f"{variable} is not set" in result.stderr


def test_a_taken_port_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        result = run(AGENT_NAME="a", MODEL_API_URL="http://m", MODEL_NAME="m", KAOS_LISTEN=listen)
    assert result.returncode == 1
    assert result.stderr == f"error: cannot listen on {listen}: Address already in use\n"


async def test_sigterm_lets_a_stream_end_and_the_exit_code_is_0(
    http: aiohttp.ClientSession, model: ScriptedModel, model_url: str
) -> None:
    model.say(Turn(text="a b c d e f", piece_delay=0.1))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        listen = f"127.0.0.1:{probe.getsockname()[1]}"
    env = environment(AGENT_NAME="a", MODEL_API_URL=model_url, MODEL_NAME="m", KAOS_LISTEN=listen)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "kaos.agent", env=env, stderr=asyncio.subprocess.PIPE
    )

    async def up() -> bool:
        try:
            async with http.get(f"http://{listen}/readyz") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    try:
        await eventually(up, within=20)
        body = {"messages": [{"role": "user", "content": "x"}], "stream": True}
        async with http.post(f"http://{listen}/v1/chat/completions", json=body) as answer:
            await answer.content.readline()
            process.send_signal(signal.SIGTERM)
            rest = await answer.text()
        assert rest.endswith("data: [DONE]\n\n")
        _, logged = await asyncio.wait_for(process.communicate(), 10)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0
    assert b'"event": "agent listening"' in logged


async def test_a_stream_that_outlives_the_grace_ends_with_an_error_event(
    start_agent: Any, stack: Any, http: aiohttp.ClientSession, model: ScriptedModel
) -> None:
    model.say(Turn(text="a b", piece_delay=30))
    url = await start_agent()
    body = {"messages": [{"role": "user", "content": "x"}], "stream": True}
    async with http.post(f"{url}/v1/chat/completions", json=body) as answer:
        assert b"assistant" in await answer.content.readline()
        closing = asyncio.create_task(stack.aclose())
        rest = await answer.text()
        await closing
    assert "the agent is shutting down" in rest
    assert "[DONE]" not in rest


async def test_a_request_that_outlives_the_grace_is_503(
    start_agent: Any, ask: Any, stack: Any, model: ScriptedModel
) -> None:
    model.say(Turn(text="late", delay=30))
    call = asyncio.create_task(ask(await start_agent()))
    await eventually(lambda: bool(model.requests))
    await stack.aclose()
    status, body = await call
    assert (status, body["error"]["code"]) == (503, "shutting_down")
