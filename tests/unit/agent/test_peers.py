"""Delegation: real agents that call each other, with one scripted model behind all."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from kaos.agent import limits, peers
from kaos.agent import model as model_client
from kaos.agent.errors import DelegationRefused
from kaos.agent.peers import delegation_path
from kaos.telemetry import serving
from kaos.testing.model import Failure, ScriptedModel, Turn, tool_call
from kaos.testing.waiting import eventually


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_client, "RETRY_DELAYS", ())
    monkeypatch.setattr(peers, "REFRESH_WHILE_UNKNOWN", 0.05)


@pytest.fixture
async def analyst(start_agent: Any) -> str:
    return str(
        await start_agent(
            name="analyst", description="Knows numbers", instructions="You are an analyst."
        )
    )


@pytest.fixture
async def coordinator(start_agent: Any, analyst: str, http: aiohttp.ClientSession) -> str:
    url = str(
        await start_agent(
            name="coordinator", instructions="You coordinate.", peers={"analyst": analyst}
        )
    )

    async def knows_analyst() -> bool:
        async with http.get(f"{url}/readyz") as answer:
            return bool((await answer.json())["peers"][0]["state"] == "ready")

    await eventually(knows_analyst)
    return url


async def test_a_peer_is_a_tool_with_its_own_description(
    coordinator: str, ask: Any, model: ScriptedModel
) -> None:
    model.say("no need")
    await ask(coordinator)
    (tool,) = model.requests[0].body["tools"]
    assert tool["function"]["name"] == "delegate_to_analyst"
    assert "Knows numbers" in tool["function"]["description"]
    assert tool["function"]["parameters"]["required"] == ["task"]


async def test_a_task_is_delegated_in_standard_roles_within_one_run(
    coordinator: str, http: aiohttp.ClientSession, model: ScriptedModel
) -> None:
    model.say(tool_call("delegate_to_analyst", task="2+2?"), "The analyst says: {last}")
    model.say("It's four.", when="You are an analyst")
    body = {"messages": [{"role": "user", "content": "What is 2+2?"}]}
    headers = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
    async with http.post(
        f"{coordinator}/v1/chat/completions", json=body, headers=headers
    ) as answer:
        said = (await answer.json())["choices"][0]["message"]["content"]
        run = answer.headers["x-kaos-run"]
    assert said == "The analyst says: It's four."
    delegated = model.requests[1]
    assert delegated.messages == [
        {"role": "system", "content": "You are an analyst."},
        {"role": "user", "content": "2+2?"},
    ]
    assert {request.headers["x-kaos-run"] for request in model.requests} == {run}
    assert {request.headers["traceparent"] for request in model.requests} == set(headers.values())


async def test_a_cycle_is_refused_and_the_model_is_told(
    start_agent: Any, ask: Any, model: ScriptedModel
) -> None:
    """a delegates to b, b back to a: nobody is asked a second time."""
    b = await start_agent(name="b", instructions="I am b.", peers={"a": "http://127.0.0.1:9"})
    a = await start_agent(name="a", instructions="I am a.", peers={"b": b})
    model.say(tool_call("delegate_to_b", task="x"), "a: {last}", when="I am a.")
    model.say(tool_call("delegate_to_a", task="y"), "b: {last}", when="I am b.")
    _, body = await ask(a)
    text = body["choices"][0]["message"]["content"]
    assert text.startswith("a: b: Error: a is already waiting")
    assert len(model.requests) == 4


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("x.default,assistant.default", "delegation_cycle"),
        ("a.n,b.n,c.n", "delegation_too_deep"),
        ("a b", "delegation_refused"),
    ],
)
async def test_a_request_that_has_been_here_is_refused(
    start_agent: Any, ask: Any, model: ScriptedModel, path: str, code: str
) -> None:
    url = await start_agent(max_delegation_depth=2)
    status, body = await ask(url, headers={"x-kaos-path": path})
    assert (status, body["error"]["code"]) == (400, code)
    assert model.requests == []


def test_the_path_grows_by_this_agent() -> None:
    assert delegation_path({}, "a.n", 3) == ("a.n",)
    assert delegation_path({"x-kaos-path": "b.n, c.n"}, "a.n", 3) == ("b.n", "c.n", "a.n")
    with pytest.raises(DelegationRefused):
        delegation_path({"x-kaos-path": ",".join(f"a{n}" for n in range(100))}, "a.n", 99)


@pytest.mark.parametrize(
    ("turn", "complaint"),
    [
        (Turn(error=Failure(status=500, message="oops")), "analyst failed: the model failed"),
        (Turn(error=Failure(status=400, message="bad")), "analyst failed: the model refused"),
    ],
)
async def test_a_peer_that_fails_is_told_to_the_model(
    coordinator: str, ask: Any, model: ScriptedModel, turn: Turn, complaint: str
) -> None:
    model.say(tool_call("delegate_to_analyst", task="x"), "{last}")
    model.say(turn, when="You are an analyst")
    status, body = await ask(coordinator)
    assert status == 200
    text = body["choices"][0]["message"]["content"]
    assert text.startswith("Error: ")
    assert complaint in text


async def test_a_peer_that_is_down_is_offered_and_told_about(
    start_agent: Any, ask: Any, http: aiohttp.ClientSession, model: ScriptedModel
) -> None:
    url = await start_agent(peers={"gone": "http://127.0.0.1:9"})
    model.say(tool_call("delegate_to_gone", task="x"), "{last}")
    _, body = await ask(url)
    assert "gone cannot be reached" in body["choices"][0]["message"]["content"]
    async with http.get(f"{url}/readyz") as answer:
        report = await answer.json()
        assert (answer.status, report["status"]) == (200, "degraded")
        assert report["peers"][0]["state"] == "down"


async def test_a_delegation_without_a_task_is_told_to_the_model(
    coordinator: str, ask: Any, model: ScriptedModel
) -> None:
    model.say(tool_call("delegate_to_analyst", tsak="x"), "{last}")
    _, body = await ask(coordinator)
    assert "`task` must be a text" in body["choices"][0]["message"]["content"]


async def test_a_new_peer_is_found_without_a_restart(
    start_agent: Any,
    ask: Any,
    model: ScriptedModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The coordinator of the second sample is applied before its peers exist."""
    services = tmp_path / "services.json"
    monkeypatch.setenv("KAOS_SERVICE_MAP", str(services))
    monkeypatch.setenv("KAOS_CLUSTER_DOMAIN", "cluster.local")
    peer = "http://analyst.default.svc.cluster.local"
    coordinator = await start_agent(instructions="You coordinate.", peers={"analyst": peer})
    delegate = tool_call("delegate_to_analyst", task="x")
    model.say(delegate, "{last}", delegate, "{last}")
    _, body = await ask(coordinator)
    assert "no Service answers" in body["choices"][0]["message"]["content"]

    analyst = await start_agent(name="analyst", instructions="You are an analyst.")
    model.say("here I am", when="You are an analyst")
    address = analyst.removeprefix("http://")
    services.write_text(json.dumps({"analyst.default.svc.cluster.local:80": address}))
    _, body = await ask(coordinator)
    assert body["choices"][0]["message"]["content"] == "here I am"


async def test_a_caller_that_hangs_up_stops_the_peer_too(
    coordinator: str, ask: Any, model: ScriptedModel
) -> None:
    model.say(tool_call("delegate_to_analyst", task="x"), "late")
    model.say(Turn(text="late", delay=30), when="You are an analyst")
    call = asyncio.create_task(ask(coordinator))
    await eventually(lambda: len(model.requests) == 2)
    call.cancel()
    await eventually(lambda: model.requests[1].outcome == "cancelled")


@pytest.fixture
async def nonsense() -> AsyncIterator[str]:
    """A peer that answers, but not as an agent does."""

    async def chat(_request: Request) -> Response:
        return JSONResponse({"choices": []})

    async def card(_request: Request) -> Response:
        return JSONResponse([1])

    routes = [
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route(peers.CARD_PATH, card),
    ]
    async with serving.running(Starlette(routes=routes)) as url:
        yield url


async def test_a_peer_that_talks_nonsense_is_an_error(
    start_agent: Any, ask: Any, model: ScriptedModel, nonsense: str
) -> None:
    url = await start_agent(peers={"odd": f"{nonsense}{peers.CARD_PATH}"})
    model.say(tool_call("delegate_to_odd", task="x"), "{last}")
    _, body = await ask(url)
    assert "did not answer with a chat completion" in body["choices"][0]["message"]["content"]


async def test_a_peer_that_was_stopped_early_is_said_so(
    start_agent: Any, ask: Any, model: ScriptedModel, tool_server: str
) -> None:
    analyst = await start_agent(
        name="analyst", instructions="I analyse.", mcp_servers={"t": tool_server}, max_steps=1
    )
    url = await start_agent(peers={"analyst": analyst})
    model.say(tool_call("delegate_to_analyst", task="x"), "{last}")
    model.say(tool_call("echo", text="y"), "so far", when="I analyse.")
    _, body = await ask(url)
    text = body["choices"][0]["message"]["content"]
    assert text == "so far\n[analyst was stopped before it was done]"


async def test_a_peer_gets_what_is_left_of_the_callers_time(
    start_agent: Any, ask: Any, http: aiohttp.ClientSession, model: ScriptedModel
) -> None:
    analyst = await start_agent(name="analyst", instructions="You are an analyst.")
    boss = await start_agent(peers={"analyst": analyst})
    model.say(tool_call("delegate_to_analyst", task="x"), "late")
    model.say(Turn(text="late", delay=30), when="You are an analyst")
    # Whose clock ends it first, and so what the boss can still say, is a matter of milliseconds.
    await ask(boss, headers={limits.TIMEOUT_HEADER: "0.4"})
    await eventually(lambda: model.requests[1].outcome == "cancelled")
    async with http.get(f"{analyst}/v1/runs") as answer:
        assert (await answer.json())["data"][0]["status"] in ("failed", "cancelled")


async def test_what_a_peer_said_before_it_failed_reaches_the_model(
    coordinator: str, ask: Any, model: ScriptedModel
) -> None:
    model.say(tool_call("delegate_to_analyst", task="x"), "{last}")
    model.say(Turn(text="It is fo ur", break_after=3), when="You are an analyst")
    _, body = await ask(coordinator)
    text = body["choices"][0]["message"]["content"]
    assert text.startswith("Error: analyst failed: the model's answer broke off")
    assert text.endswith("Before that it said: It is ")


async def test_peers_are_asked_at_once_and_one_that_fails_costs_the_others_nothing(
    start_agent: Any, ask: Any, model: ScriptedModel
) -> None:
    urls = {
        name: await start_agent(name=name, instructions=f"I am {name}.") for name in ("a", "b", "c")
    }
    boss = await start_agent(name="boss", peers=urls)
    calls = [tool_call(f"delegate_to_{name}", task="x").tool_calls[0] for name in urls]
    model.say(Turn(tool_calls=tuple(calls)), "done")
    model.say(Turn(text="I, a", delay=0.3), when="I am a.")
    model.say(Turn(error=Failure(status=500, message="oops")), when="I am b.")
    model.say(Turn(text="I, c", delay=0.3), when="I am c.")
    began = asyncio.get_running_loop().time()
    await ask(boss)
    assert asyncio.get_running_loop().time() - began < 0.55
    told = [message["content"] for message in model.requests[-1].messages[-3:]]
    assert (told[0], told[2]) == ("I, a", "I, c")
    assert told[1].startswith("Error: b failed")
