import asyncio
import os
import signal
from pathlib import Path

import aiohttp
import pytest

from kaos.local.ollama.__main__ import SettingsError, _number, listen_address, main
from kaos.local.ollama.app import Ollama
from kaos.local.ollama.catalogue import SMOLLM2, Weights
from kaos.local.ollama.engine import Engine, EngineError, EngineSettings, WeightsGoneError
from kaos.local.ollama.store import Store, cache_folder
from kaos.telemetry.serving import running
from tests.unit.ollama.conftest import CONTENT
from tests.unit.ollama.test_app import chat, pull


async def test_without_weights_nothing_is_started(tmp_path: Path, weights: Weights) -> None:
    engine = Engine(weights, Store(tmp_path, None, ()), EngineSettings())
    with pytest.raises(WeightsGoneError):
        await engine.complete({})
    assert engine.pid is None


async def test_weights_that_cannot_be_loaded_are_an_error(tmp_path: Path, weights: Weights) -> None:
    store = Store(tmp_path, None, ())
    store.path(weights).write_bytes(CONTENT)
    engine = Engine(weights, store, EngineSettings())
    with pytest.raises(EngineError, match="the model cannot be loaded"):
        await engine.load()
    assert engine.pid is None


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("", "127.0.0.1:11434"),
        ("127.0.0.1:4000", "127.0.0.1:4000"),
        ("http://0.0.0.0:4000/", "0.0.0.0:4000"),
        ("0.0.0.0", "0.0.0.0:11434"),
        (":4000", "127.0.0.1:4000"),
        ("[::1]:4000", "[::1]:4000"),
        ("[::1]", "[::1]:11434"),
        ("::1", "[::1]:11434"),
    ],
)
def test_ollama_host(host: str, address: str) -> None:
    assert listen_address(host) == address


def test_numbers_of_the_environment() -> None:
    assert _number({}, "N", 1) == 1
    assert _number({"N": " 4 "}, "N", 1) == 4
    for text in ("0", "-1", "two"):
        with pytest.raises(SettingsError, match="N must be a positive number"):
            _number({"N": text}, "N", 1)


def test_the_verbs_work_on_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "names"))
    assert main(["list"]) == 0
    assert main(["show", "smollm2:135m"]) == 1
    assert main(["pull", "llama3.2:latest"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    first, second = captured.err.splitlines()
    assert first == "model 'smollm2:135m' not found"
    assert "'llama3.2:latest' cannot be had" in second
    monkeypatch.setenv("KAOS_MODEL_OVERRIDES", "x")
    assert main(["list"]) == 2


REAL = Store(cache_folder(os.environ), None, (SMOLLM2,))
needs_weights = pytest.mark.skipif(
    not REAL.has(SMOLLM2.weights),
    reason="no weights in the cache: python -m kaos.local.ollama pull smollm2:135m",
)


@pytest.mark.process
@needs_weights
async def test_the_real_model_talks_calls_tools_and_comes_back(tmp_path: Path) -> None:
    store = Store(REAL.weights, tmp_path, (SMOLLM2,))
    ollama = Ollama(store, overrides={}, settings=EngineSettings(slots=1, context=1024))
    echo = {
        "type": "function",
        "function": {
            "name": "echo",
            "description": "Repeat a message.",
            "parameters": {
                "type": "object",
                "properties": {"message": {"type": "string"}},
                "required": ["message"],
            },
        },
    }

    async with running(ollama.app()) as url, aiohttp.ClientSession(url) as http:

        async def ask(text: str) -> dict[str, object]:
            status, answer = await chat(
                http,
                model="smollm2:135m",
                tools=[echo],
                messages=[{"role": "user", "content": text}],
            )
            assert status == 200
            assert answer["usage"]["prompt_tokens"] > 10
            message: dict[str, object] = answer["choices"][0]["message"]
            return message

        assert (await pull(http, "smollm2:135m"))[-1] == {"status": "success"}
        greeting = await ask("Hello!")
        assert isinstance(greeting["content"], str)
        assert len(greeting["content"]) > 5
        call = await ask("use the echo tool to repeat hello world")
        calls = call["tool_calls"]
        assert isinstance(calls, list)
        assert calls[0]["function"] == {"name": "echo", "arguments": '{"message": "hello world"}'}

        question = {"role": "user", "content": "use the echo tool to repeat hello world"}
        result = {"role": "tool", "tool_call_id": "x", "content": "hello world"}
        _, answer = await chat(http, model="smollm2:135m", messages=[question, call, result])
        assert "hello world" in answer["choices"][0]["message"]["content"]

        status, answer = await chat(
            http, model="smollm2:135m", messages=[{"role": "user", "content": "word " * 2000}]
        )
        assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")

        pid = ollama._engine(SMOLLM2).pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(0.1)  # for the loop to hear of it
        assert (await ask("Hello!"))["content"] == greeting["content"]
        assert ollama._engine(SMOLLM2).pid != pid
