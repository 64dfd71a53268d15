"""Asking an agent: what it says is passed on, what goes wrong is one line."""

import socket

import pytest

from kaos.cli.ask import agent_url, ask, require_reachable
from kaos.cli.errors import CliError
from kaos.testing.model import Failure, ScriptedModel, Turn

HELLO = [{"role": "user", "content": "Hello!"}]


async def answer(url: str) -> list[str]:
    return [piece async for piece in ask(url, "assistant", HELLO)]


def test_an_agent_is_asked_at_the_path_that_nobody_else_can_take() -> None:
    assert agent_url("http://localhost:8080", "team", "a") == "http://localhost:8080/team/agent/a"


def test_an_agent_that_is_not_exposed_is_not_asked() -> None:
    routed = {"type": "Routed", "status": "False", "reason": "NotExposed", "message": "expose: no"}
    hidden = {
        "kind": "Agent",
        "metadata": {"name": "a"},
        "status": {"conditions": [{"type": "Ready", "status": "True"}, routed]},
    }
    with pytest.raises(CliError, match=r"^Agent/a is not exposed: expose: no$"):
        require_reachable(hidden)
    require_reachable({"kind": "Agent", "metadata": {"name": "a"}})


async def test_the_answer_comes_in_pieces() -> None:
    model = ScriptedModel("Hello there, friend")
    async with model.serve() as url:
        pieces = await answer(url)
    assert "".join(pieces) == "Hello there, friend"
    assert len(pieces) > 1
    assert model.requests[0].body == {"model": "assistant", "messages": HELLO, "stream": True}


async def test_an_error_status_is_told_in_the_servers_words() -> None:
    async with ScriptedModel(
        Turn(error=Failure(status=503, message="model is loading"))
    ).serve() as url:
        with pytest.raises(CliError, match=r"^assistant answered 503: model is loading$"):
            await answer(url)


async def test_an_agent_with_auth_is_shown_the_token_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("KAOS_TOKEN", raising=False)
    refused = Turn(error=Failure(status=401, message="no"))
    model = ScriptedModel(refused, "come in")
    async with model.serve() as url:
        with pytest.raises(CliError, match=r"^assistant wants a token .*: set KAOS_TOKEN$"):
            await answer(url)
        monkeypatch.setenv("KAOS_TOKEN", "s3cret")
        assert "".join(await answer(url)) == "come in"
    assert [r.headers.get("authorization") for r in model.requests] == [None, "Bearer s3cret"]


async def test_an_error_in_the_stream_is_an_error() -> None:
    turn = Turn(text="one two three", error_after=1)
    async with ScriptedModel(turn).serve() as url:
        with pytest.raises(CliError, match=r"^the answer broke off: .*fail"):
            await answer(url)


async def test_a_stream_that_is_cut_is_an_error() -> None:
    async with ScriptedModel(Turn(text="one two three", break_after=1)).serve() as url:
        with pytest.raises(CliError, match=r"broke off|cannot talk"):
            await answer(url)


async def test_nobody_there_is_an_error() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        with pytest.raises(CliError, match=f"cannot talk to assistant at {url}"):
            await answer(url)
