"""What an agent adds: latency, first token, chunks, a tool round, a delegation hop.

Run: `python benchmarks/agent/latency.py [REQUESTS]`. Real processes on loopback: a model that is a
byte server, an agent, an agent with a tool server and a peer, and for comparison the least that
a Starlette proxy can be and LiteLLM's proxy. All are asked in turn, round by round, so that a busy
machine slows all of them. Exit code 1 when a target is missed.

Added latency is the time of a request less that of the model, with 16 requests in flight and a
model that takes 50 to 150 ms, chosen by the client for each request: with one time for all, 16
answers return in the same moment, the next 16 requests leave in the same moment, and what is
measured is how long 16 of them take to be served one after the other. That is told too ("16 at
once"), because callers do that now and then; no server of one process can be fast in it.

Chunks are counted by the second of the process's own time, which others on the machine cannot
take; so is the cost of a request. The times of the model, and of the tool server asked directly,
are taken off from a tool round and a delegation hop.
"""

import asyncio
import random
import statistics
import sys
import time
from collections import defaultdict
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path

import aiohttp
from _litellm import KEY, litellm
from _processes import agent, cpu_seconds, free_port, process, until
from _report import Row, report

HERE = Path(__file__).parent
IN_FLIGHT = 16
AT_ONCE = 160
ALONE = 100
ROUNDS = 3
MCP = "2026-07-28"
CALL = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tools/call",
    "params": {
        "name": "echo",
        "arguments": {"text": "x"},
        "_meta": {
            "io.modelcontextprotocol/protocolVersion": MCP,
            "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {},
        },
    },
}
CALL_HEADERS = {
    "accept": "application/json, text/event-stream",
    "mcp-protocol-version": MCP,
    "mcp-method": "tools/call",
    "mcp-name": "echo",
}


@dataclass
class Peer:
    """Somebody who answers chat completions, and what was measured of it."""

    name: str
    url: str
    process: str = ""
    chunks: int = 50_000
    times: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def middle(self, what: str) -> float:
        return statistics.median(self.times[what])

    def late(self, what: str) -> float:
        return statistics.quantiles(self.times[what], n=100)[98]


async def whole(http: aiohttp.ClientSession, url: str, text: str) -> float:
    body = {"model": "bench", "messages": [{"role": "user", "content": text}]}
    started = time.perf_counter()
    async with http.post(f"{url}/v1/chat/completions", json=body) as answer:
        content = await answer.read()
        if answer.status != 200 or b"Hello there." not in content:
            raise RuntimeError(content[:300])
    return (time.perf_counter() - started) * 1000


async def in_flight(
    http: aiohttp.ClientSession, url: str, count: int, *, at_once: bool
) -> list[float]:
    """Return what each of so many requests took beyond the model's own time."""
    times: list[float] = []

    async def work(worker: int) -> None:
        chosen = random.Random(worker)
        for _ in range(count // IN_FLIGHT):
            wait = 100.0 if at_once else round(chosen.uniform(50, 150), 1)
            times.append(await whole(http, url, f"wait:{wait}") - wait)

    await asyncio.gather(*(work(number) for number in range(IN_FLIGHT)))
    return times


async def first_token(http: aiohttp.ClientSession, url: str) -> float:
    body = {
        "model": "bench",
        "messages": [{"role": "user", "content": "stream:0"}],
        "stream": True,
    }
    started = time.perf_counter()
    async with http.post(f"{url}/v1/chat/completions", json=body) as answer:
        async for line in answer.content:
            if b"word" in line:
                took = (time.perf_counter() - started) * 1000
        return took


async def chunks(http: aiohttp.ClientSession, peer: Peer) -> float:
    """Return how many chunks a second of the process's own time passes on."""
    body = {
        "model": "bench",
        "messages": [{"role": "user", "content": f"stream:{peer.chunks}"}],
        "stream": True,
    }
    count, before = 0, cpu_seconds(peer.process)
    async with http.post(f"{peer.url}/v1/chat/completions", json=body) as answer:
        async for data in answer.content.iter_any():
            count += data.count(b"\n")  # two of them end a chunk
    if count < 2 * peer.chunks:
        raise RuntimeError(f"{count // 2} chunks arrived")
    return peer.chunks / (cpu_seconds(peer.process) - before)


async def tool_call(http: aiohttp.ClientSession, tools: str) -> float:
    """Ask the tool server directly, as the agent does."""
    started = time.perf_counter()
    async with http.post(f"{tools}/mcp", json=CALL, headers=CALL_HEADERS) as answer:
        content = await answer.read()
        if answer.status != 200 or b'"text":"x"' not in content:
            raise RuntimeError(content[:300])
    return (time.perf_counter() - started) * 1000


async def measure(http: aiohttp.ClientSession, peer: Peer, count: int) -> None:
    before = cpu_seconds(peer.process)
    peer.times["alone"] += [await whole(http, peer.url, "hi") for _ in repeat(None, ALONE)]
    peer.times["cpu"].append((cpu_seconds(peer.process) - before) / ALONE * 1000)
    if peer.url != peer.process:
        return  # the server alone
    peer.times["16"] += await in_flight(http, peer.url, count, at_once=False)
    peer.times["at once"] += await in_flight(http, peer.url, AT_ONCE, at_once=True)
    peer.times["first"] += [await first_token(http, peer.url) for _ in repeat(None, ALONE // 2)]
    peer.times["chunks"].append(await chunks(http, peer))


async def measure_calls(
    http: aiohttp.ClientSession, boss: Peer, peer: str, tools: str, model: str
) -> None:
    for _ in range(ALONE):
        for text in ("hi", "tool", "delegate"):
            boss.times[text].append(await whole(http, boss.url, text))
        boss.times["server"].append(await tool_call(http, tools))
        boss.times["model"].append(await whole(http, model, "hi"))
        boss.times["peer"].append(await whole(http, peer, "hi"))


def table(peers: list[Peer]) -> None:
    heads = (
        "alone, p50",
        "CPU",
        "in flight, p50",
        "p99",
        "at once, p50",
        "first token",
        "chunks/s",
    )
    print(f"| ms | {' | '.join(heads)} |")
    print(f"|---|{'---:|' * len(heads)}")
    for peer in peers:
        cells = [f"{peer.middle('alone'):.2f}", f"{peer.middle('cpu'):.2f}"]
        if "16" in peer.times:
            cells += [f"{value:.2f}" for value in (peer.middle("16"), peer.late("16"))]
            cells += [f"{peer.middle(kind):.2f}" for kind in ("at once", "first")]
            cells.append(f"{peer.middle('chunks'):,.0f}")
        print(f"| {peer.name} | {' | '.join(cells)} |")


def rows(direct: Peer, plain: Peer, boss: Peer) -> list[Row]:
    """Return what is beside a target. Tools and peers are asked one at a time."""
    hi, model = boss.middle("hi"), boss.middle("model")
    round_ = boss.middle("tool") - hi - model - boss.middle("server")
    hop = boss.middle("delegate") - hi - 2 * model
    return [
        Row("added latency, 16 in flight, p50", plain.middle("16") - direct.middle("16"), 2),
        Row("added latency, 16 in flight, p99", plain.late("16") - direct.late("16"), 8),
        Row("added to the first token, p50", plain.middle("first") - direct.middle("first"), 2),
        Row("chunks by one core", plain.middle("chunks"), 30_000, "chunks/s", at_least=True),
        Row("MCP tool round over the server's own time, p50", round_, 4),
        Row("delegation hop, p50", hop, 4),
    ]


async def run(count: int) -> list[Row]:
    """Measure, print who was measured, and return what is beside a target."""
    async with AsyncExitStack() as stack:
        start = stack.enter_async_context
        headers = {"authorization": f"Bearer {KEY}"}  # LiteLLM insists; nobody else looks
        connector = aiohttp.TCPConnector(limit=0)
        http = await start(aiohttp.ClientSession(connector=connector, headers=headers))
        port = free_port()
        model = await start(process(str(HERE / "_model.py"), str(port), port=port))
        port = free_port()
        proxy = await start(process(str(HERE / "_proxy.py"), str(port), model, port=port))
        command, env, port = agent("plain", model)
        plain = await start(process(*command, port=port, **env))
        command, env, port = agent("peer", model)
        peer = await start(process(*command, port=port, **env))
        port = free_port()
        env = {
            "MCP_SERVER_NAME": "echo",
            "MCP_TOOLS_STRING": "def echo(text: str) -> str:\n    return text\n",
            "KAOS_LISTEN": f"127.0.0.1:{port}",
        }
        tools = await start(process("-m", "kaos.toolserver", port=port, **env))
        command, env, port = agent("boss", model)
        env |= {"MCP_SERVERS": "echo", "MCP_SERVER_ECHO_URL": tools}
        env |= {"PEER_AGENTS": "peer", "PEER_AGENT_PEER_CARD_URL": peer}
        boss = Peer("boss", await start(process(*command, port=port, **env)))
        for url in (plain, peer, boss.url):
            await until(http, f"{url}/readyz")
        peers = [
            Peer("the model itself", model, model),
            Peer("the server alone (Starlette on hypercorn)", f"{proxy}/static", proxy),
            Peer("a bare Starlette proxy", proxy, proxy),
            Peer("an agent", plain, plain),
        ]
        try:
            url = await start(litellm(model))
            await until(http, f"{url}/health/liveliness")
            peers.append(Peer("LiteLLM's proxy", url, url, chunks=2_000))
        except Exception as error:  # noqa: BLE001 - the others are worth measuring without it
            print(f"LiteLLM is left out: {error}", file=sys.stderr)
        for number in range(ROUNDS + 1):
            for each in peers:
                await measure(http, each, count)
            await measure_calls(http, boss, peer, tools, model)
            if number == 0:  # it was to warm up
                for each in (*peers, boss):
                    each.times.clear()
        table(peers)
        return rows(peers[0], peers[3], boss)


if __name__ == "__main__":
    found = asyncio.run(run(int(sys.argv[1]) if len(sys.argv) > 1 else 480))
    print()
    sys.exit(report(found))
