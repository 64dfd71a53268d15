"""Service DNS as it can be: late, at first without an answer, with an address that is dead."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

import pytest
from aiohttp import abc

from kaos.agent import peers
from kaos.testing.model import ScriptedModel, tool_call
from kaos.testing.waiting import eventually

NAME = "analyst.default.svc.cluster.local"
DEAD = "127.0.0.9"  # of this machine, and nobody listens there
Answer = Callable[[], Awaitable[list[str]]]


class Dns(abc.AbstractResolver):
    """Answers in the order of a script, the last answer again and again."""

    script: ClassVar[list[Answer]]
    asked = 0

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[abc.ResolveResult]:
        assert host == NAME
        answer = Dns.script[min(Dns.asked, len(Dns.script) - 1)]
        Dns.asked += 1
        return [
            abc.ResolveResult(
                hostname=host, host=address, port=port, family=family, proto=0, flags=0
            )
            for address in await answer()
        ]

    async def close(self) -> None:
        pass


def at(*addresses: str) -> Answer:
    async def answer() -> list[str]:
        return list(addresses)

    return answer


async def nxdomain() -> list[str]:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


async def late() -> list[str]:
    await asyncio.sleep(0.3)
    return ["127.0.0.1"]


@pytest.fixture
def dns(monkeypatch: pytest.MonkeyPatch) -> type[Dns]:
    monkeypatch.setattr("aiohttp.connector.DefaultResolver", Dns)
    monkeypatch.setattr(peers, "REFRESH_WHILE_UNKNOWN", 60)
    Dns.asked = 0
    return Dns


@pytest.fixture
async def coordinator(dns: type[Dns], start_agent: Any, model: ScriptedModel) -> str:
    """An agent whose peer is known by name; its card was asked for in vain."""
    analyst = await start_agent(name="analyst", instructions="You are an analyst.")
    model.say(tool_call("delegate_to_analyst", task="2+2"), "{last}", repeat=True)
    model.say("It is 4", when="You are an analyst", repeat=True)
    dns.script = [nxdomain]
    port = analyst.rsplit(":", 1)[1]
    url = await start_agent(name="coordinator", peers={"analyst": f"http://{NAME}:{port}"})
    await eventually(lambda: dns.asked > 0)
    dns.asked = 0
    return str(url)


@pytest.mark.parametrize(
    "script",
    [
        [late],
        [nxdomain, nxdomain, at("127.0.0.1")],
        [at(DEAD, "127.0.0.1")],
        [at(DEAD), at(DEAD), at("127.0.0.1")],
    ],
    ids=["late", "NXDOMAIN first", "a dead address besides", "a dead address first"],
)
async def test_a_peer_is_reached(
    coordinator: str, dns: type[Dns], ask: Any, script: list[Answer]
) -> None:
    dns.script = script
    _, body = await ask(coordinator)
    assert body["choices"][0]["message"]["content"] == "It is 4"
    assert dns.asked == len(script)


@pytest.mark.parametrize("script", [[nxdomain], [at(DEAD)]], ids=["NXDOMAIN", "dead"])
async def test_a_peer_that_stays_away_is_told_to_the_model(
    coordinator: str, dns: type[Dns], ask: Any, script: list[Answer]
) -> None:
    dns.script = script
    status, body = await ask(coordinator)
    assert status == 200
    assert "analyst cannot be reached" in body["choices"][0]["message"]["content"]


async def test_an_address_is_asked_for_again_at_the_next_call(
    coordinator: str, dns: type[Dns], ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client's cache held a Service's old address for ten seconds."""
    monkeypatch.setattr(peers, "PATIENCE", ())
    dns.script = [at(DEAD), at("127.0.0.1")]
    assert "cannot be reached" in str(await ask(coordinator))
    assert "It is 4" in str(await ask(coordinator))
