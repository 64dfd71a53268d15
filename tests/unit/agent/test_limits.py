"""How much at once and for how long, and which parameters reach the model."""

import asyncio
from typing import Any

import aiohttp
import pytest

from kaos.testing.model import ScriptedModel, Turn
from kaos.testing.waiting import eventually

HELLO = {"messages": [{"role": "user", "content": "x"}]}


@pytest.mark.parametrize("streamed", [False, True])
async def test_beyond_the_limit_it_is_429_at_once(
    start_agent: Any,
    http: aiohttp.ClientSession,
    ask: Any,
    model: ScriptedModel,
    streamed: bool,
) -> None:
    model.say(Turn(text="a", delay=0.5), "later")
    url = await start_agent(max_concurrent=1)
    first = asyncio.create_task(ask(url))
    await eventually(lambda: bool(model.requests))
    body = {**HELLO, "stream": streamed}
    async with http.post(f"{url}/v1/chat/completions", json=body) as answer:
        assert answer.status == 429
        assert answer.headers["retry-after"] == "1"
        assert answer.headers["x-should-retry"] == "true"
        error = (await answer.json())["error"]
        assert (error["type"], error["code"]) == ("rate_limit_error", "overloaded")
    async with http.get(f"{url}/metrics") as answer:
        assert "kaos_agent_runs 1.0" in await answer.text()
    assert (await first)[0] == 200
    assert (await ask(url))[0] == 200, "the place is free again"
    assert len(model.requests) == 2


async def test_a_place_is_free_again_after_a_failure_and_a_hang_up(
    start_agent: Any, ask: Any, model: ScriptedModel
) -> None:
    model.say(Turn(text="late", delay=30), Turn(text="a b", break_after=1), "ok")
    url = await start_agent(max_concurrent=1)
    call = asyncio.create_task(ask(url))
    await eventually(lambda: bool(model.requests))
    call.cancel()
    await eventually(lambda: model.requests[0].outcome == "cancelled")
    statuses = [(await ask(url, stream=False))[0] for _ in range(2)]
    assert statuses == [200, 200]


@pytest.mark.parametrize("given", ["0.2", "2e-1"])
async def test_a_callers_time_limit_is_kept(
    start_agent: Any, ask: Any, model: ScriptedModel, given: str
) -> None:
    model.say(Turn(text="late", delay=30))
    status, body = await ask(await start_agent(), headers={"x-request-timeout": given})
    assert (status, body["error"]["code"]) == (504, "deadline_exceeded")
    await eventually(lambda: model.requests[0].outcome == "cancelled")


async def test_a_callers_time_limit_does_not_lengthen_the_agents(
    start_agent: Any, ask: Any, model: ScriptedModel
) -> None:
    model.say(Turn(text="late", delay=30), repeat=True)
    url = await start_agent(request_timeout=0.2)
    for given in ("600", "inf"):
        status, _ = await ask(url, headers={"x-request-timeout": given})
        assert status == 504


@pytest.mark.parametrize("given", ["", "0", "-1", "nan", "soon"])
async def test_a_time_limit_that_is_none_is_refused(
    start_agent: Any, ask: Any, model: ScriptedModel, given: str
) -> None:
    status, body = await ask(await start_agent(), headers={"x-request-timeout": given})
    assert (status, body["error"]["param"]) == (400, "x-request-timeout")


async def test_every_parameter_of_the_api_reaches_the_model_as_it_came(
    start_agent: Any, ask: Any, model: ScriptedModel
) -> None:
    model.say("{}")
    schema = {"name": "a", "strict": True, "schema": {"type": "object", "properties": {}}}
    given: dict[str, Any] = {
        "response_format": {"type": "json_schema", "json_schema": schema},
        "temperature": 0,
        "top_p": 0.5,
        "seed": 0,
        "stop": ["a", "b"],
        "max_tokens": 5,
        "max_completion_tokens": 6,
        "frequency_penalty": -2.0,
        "presence_penalty": 2.0,
        "logit_bias": {"1": -100},
        "logprobs": False,
        "top_logprobs": 0,
        "reasoning_effort": "low",
        "verbosity": "low",
        "service_tier": "auto",
        "prompt_cache_key": "k",
        "prompt_cache_options": {"ttl": "1h"},
        "moderation": {"model": "omni"},
        "modalities": ["text"],
        "prediction": {"type": "content", "content": "x"},
        "safety_identifier": "s",
        "user": "u",
        "web_search_options": {},
    }
    ours = {"n": 1, "store": True, "metadata": {"a": "b"}, "top_k": 3}
    assert (await ask(await start_agent(), **given, **ours))[0] == 200
    sent = model.requests[0].body
    assert {name: sent[name] for name in given} == given
    assert not set(ours) & set(sent)


@pytest.mark.parametrize("n", [0, 2, 2.5, "1"])
async def test_more_than_one_answer_is_refused(
    start_agent: Any, ask: Any, model: ScriptedModel, n: Any
) -> None:
    status, body = await ask(await start_agent(), n=n)
    assert (status, body["error"]["param"]) == (400, "n")
    assert model.requests == []
