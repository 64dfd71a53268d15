"""Probes that tell the truth, and the card."""

import asyncio
from typing import Any

import aiohttp
import pytest
from starlette.requests import Request

from kaos.agent import health
from kaos.agent.card import CardEndpoint
from kaos.agent.settings import Settings
from kaos.telemetry import serving
from kaos.testing.model import ScriptedModel
from kaos.testing.waiting import eventually


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "PROBE_EVERY", 0.05)


async def report(http: aiohttp.ClientSession, url: str) -> tuple[int, Any]:
    async with http.get(f"{url}/readyz") as answer:
        return answer.status, await answer.json()


async def test_an_agent_is_ready_when_its_model_answers(
    start_agent: Any, http: aiohttp.ClientSession, tool_server: str
) -> None:
    url = await start_agent(mcp_servers={"tools": tool_server})
    status, body = await report(http, url)
    assert (status, body["status"]) == (200, "ready")
    assert body["tools"] == [{"server": "tools", "state": "ready", "tools": 2, "error": ""}]


async def test_without_its_model_it_is_alive_and_not_ready(
    start_agent: Any, http: aiohttp.ClientSession
) -> None:
    url = await start_agent(ready=False, model_api_url="http://127.0.0.1:9")
    status, body = await report(http, url)
    assert (status, body["status"]) == (503, "unavailable")
    assert body["model"]["error"]
    async with http.get(f"{url}/healthz") as answer:
        assert answer.status == 200


async def test_readiness_follows_the_model(
    start_agent: Any, http: aiohttp.ClientSession, model: ScriptedModel
) -> None:
    async with model.serve() as model_url:
        listen = model_url.removeprefix("http://")
        url = await start_agent(model_api_url=model_url)
    await asyncio.sleep(0.1)
    assert (await report(http, url))[0] == 503
    async with serving.running(model.app, listen=listen):
        assert (await report(http, url))[0] == 200


async def test_without_a_tool_server_it_is_degraded_and_ready(
    start_agent: Any, http: aiohttp.ClientSession
) -> None:
    url = await start_agent(ready=False, mcp_servers={"gone": "http://127.0.0.1:9"})

    async def degraded() -> bool:
        status, body = await report(http, url)
        return status == 200 and body["status"] == "degraded"

    await eventually(degraded)
    _, body = await report(http, url)
    assert body["tools"][0]["state"] == "down"
    assert "cannot be reached" in body["tools"][0]["error"]


async def test_a_new_agent_waits_for_its_tools_but_not_for_ever(
    start_agent: Any, http: aiohttp.ClientSession
) -> None:
    url = await start_agent(
        ready=False, mcp_servers={"gone": "http://127.0.0.1:9"}, dependency_wait=0.5
    )

    async def tried() -> bool:
        _, body = await report(http, url)
        return bool(body["tools"][0]["state"] == "down")

    await eventually(tried)
    assert (await report(http, url))[0] == 503

    async def ready() -> bool:
        return (await report(http, url))[0] == 200

    await eventually(ready)


async def test_the_card_says_who_and_where_and_only_what_works(
    start_agent: Any, http: aiohttp.ClientSession, tool_server: str
) -> None:
    url = await start_agent(
        description="Helps", mcp_servers={"tools": tool_server}, peers={"p": "http://127.0.0.1:9"}
    )
    async with http.get(f"{url}/.well-known/agent-card.json") as answer:
        card = await answer.json()
        etag = answer.headers["etag"]
    assert (card["name"], card["description"]) == ("assistant", "Helps")
    a2a, interface = card["supportedInterfaces"]
    assert a2a["url"].endswith("/a2a")
    assert interface["url"] == f"{url}/v1"
    assert "JSONRPC" not in interface["protocolBinding"]
    assert [skill["id"] for skill in card["skills"]] == ["chat", "tools/echo", "tools/fail"]
    async with http.get(
        f"{url}/.well-known/agent-card.json", headers={"if-none-match": etag}
    ) as answer:
        assert answer.status == 304


@pytest.mark.parametrize(
    ("headers", "base"),
    [
        ({"x-forwarded-prefix": "/team/agent/a"}, "http://h:1/team/agent/a"),
        ({"x-forwarded-prefix": "/a/", "x-forwarded-proto": "https"}, "https://h:1/a"),
        ({"x-envoy-original-path": "/a/.well-known/agent-card.json?x=/y"}, "http://h:1/a"),
        ({"x-envoy-original-path": "/.well-known/agent-card.json"}, "http://h:1"),
        ({"x-envoy-original-path": "/elsewhere"}, "http://h:1"),
        # What anybody could send.
        ({"x-forwarded-proto": "javascript"}, "http://h:1"),
        ({"x-forwarded-prefix": "//evil.example"}, "http://h:1"),
        ({"x-forwarded-prefix": "/a/../b"}, "http://h:1"),
        ({"x-forwarded-prefix": "@evil.example"}, "http://h:1"),
        ({"x-forwarded-prefix": "/a?b"}, "http://h:1"),
        ({"x-forwarded-prefix": "/" + "a" * 501}, "http://h:1"),
    ],
)
def test_behind_a_gateway_the_card_is_where_the_reader_found_it(
    headers: dict[str, str], base: str
) -> None:
    """The gateway takes the agent's prefix off: the card named addresses that are nowhere."""
    scope = {
        "type": "http",
        "path": "/.well-known/agent-card.json",
        "headers": [(k.encode(), v.encode()) for k, v in ({"host": "h:1"} | headers).items()],
    }
    endpoint = CardEndpoint(Settings(name="a", model_api_url="http://m", model_name="m"), list)
    assert endpoint._base(Request(scope)) == base


async def test_the_cards_address_can_be_set(start_agent: Any, http: aiohttp.ClientSession) -> None:
    url = await start_agent(public_url="https://agents.example/assistant/")
    async with http.get(f"{url}/.well-known/agent-card.json") as answer:
        *_, interface = (await answer.json())["supportedInterfaces"]
    assert interface["url"] == "https://agents.example/assistant/v1"


async def test_metrics_are_there(
    start_agent: Any, ask: Any, http: aiohttp.ClientSession, model: ScriptedModel
) -> None:
    url = await start_agent()
    model.say("x")
    await ask(url)
    async with http.get(f"{url}/metrics") as answer:
        assert "kaos_http_request_duration_seconds_count" in await answer.text()
