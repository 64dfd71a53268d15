"""What an agent adds: latency, first token, chunks, a tool round, a delegation hop.

Run: `python benchmarks/agent/latency.py [REQUESTS]`. Real processes on loopback: a model that is a
byte server, an agent, an agent with a tool server and a peer, and for comparison the least that
a Starlette proxy can be. All are asked in turn, round by round, so that a busy machine slows all
of them. Added latency is over asking the model directly, with 16 requests in flight and a model
that takes 100 ms. Chunks are counted by the second of the process's own time, which others on the
machine cannot take; so is the cost of a request. Exit code 1 when a target is missed.
"""

import asyncio
import json
import os
import socket
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp

HERE = Path(__file__).parent
IN_FLIGHT = 16
ROUNDS = 5
CHUNKS = 50_000
TARGETS = {
    "added latency p50, ms": 2.0,
    "added latency p99, ms": 8.0,
    "added first token p50, ms": 2.0,
    "tool round, ms": 4.0,
    "delegation hop, ms": 4.0,
    "chunks/s": 30_000.0,
}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


PIDS: dict[str, int] = {}


def cpu_seconds(url: str) -> float:
    """The processor time that a process has had (Linux only)."""
    if url not in PIDS:
        return 0.0
    fields = Path(f"/proc/{PIDS[url]}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def process(*arguments: str, port: int, **env: str) -> AsyncIterator[str]:
    """Run a Python process until it accepts connections; ends it afterwards."""
    full = {"PATH": os.environ["PATH"], "LOG_LEVEL": "ERROR", **env}
    started = await asyncio.create_subprocess_exec(sys.executable, *arguments, env=full)
    try:
        for _ in range(1000):
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                break
            except OSError:
                await asyncio.sleep(0.02)
        PIDS[f"http://127.0.0.1:{port}"] = started.pid
        yield f"http://127.0.0.1:{port}"
    finally:
        started.terminate()
        await started.wait()


def agent(name: str, model: str, **env: str) -> tuple[tuple[str, ...], dict[str, str], int]:
    port = free_port()
    base = {"AGENT_NAME": name, "MODEL_API_URL": model, "MODEL_NAME": "bench"}
    return ("-m", "kaos.agent"), {**base, "KAOS_LISTEN": f"127.0.0.1:{port}", **env}, port


async def whole(http: aiohttp.ClientSession, url: str, text: str) -> float:
    body = {"messages": [{"role": "user", "content": text}]}
    started = time.perf_counter()
    async with http.post(f"{url}/v1/chat/completions", json=body) as answer:
        content = await answer.read()
        if answer.status != 200 or b"Hello there." not in content:
            raise RuntimeError(content[:300])
    return (time.perf_counter() - started) * 1000


async def in_flight(http: aiohttp.ClientSession, url: str, count: int) -> list[float]:
    times: list[float] = []

    async def work() -> None:
        times.extend([await whole(http, url, "slow") for _ in range(count // IN_FLIGHT)])

    await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))
    return times


async def first_token(http: aiohttp.ClientSession, url: str) -> float:
    body = {"messages": [{"role": "user", "content": "stream:0"}], "stream": True}
    started = time.perf_counter()
    async with http.post(f"{url}/v1/chat/completions", json=body) as answer:
        async for line in answer.content:
            if b"word" in line:
                took = (time.perf_counter() - started) * 1000
        return took


async def chunks(http: aiohttp.ClientSession, url: str) -> float:
    """Return how many chunks a second of the process's own time passes on."""
    body = {"messages": [{"role": "user", "content": f"stream:{CHUNKS}"}], "stream": True}
    count, before = 0, cpu_seconds(url)
    async with http.post(f"{url}/v1/chat/completions", json=body) as answer:
        async for data in answer.content.iter_any():
            count += data.count(b"\n")  # two of them end a chunk
    if count < 2 * CHUNKS:
        raise RuntimeError(f"{count // 2} chunks arrived")
    return CHUNKS / max(cpu_seconds(url) - before, 1e-2)


async def ready(http: aiohttp.ClientSession, url: str) -> None:
    for _ in range(500):
        async with http.get(f"{url}/readyz") as answer:
            report = await answer.json() if answer.status == 200 else {}
        if report.get("status") == "ready":
            return
        await asyncio.sleep(0.05)
    raise TimeoutError(json.dumps(report))


async def main(count: int) -> int:
    async with AsyncExitStack() as stack:
        start = stack.enter_async_context
        http = await start(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        port = free_port()
        model = await start(process(str(HERE / "_model.py"), str(port), port=port))
        port = free_port()
        proxy = await start(process(str(HERE / "_proxy.py"), str(port), model, port=port))
        command, env, port = agent("plain", model)
        plain = await start(process(*command, port=port, **env))
        command, env, port = agent("peer", model)
        peer = await start(process(*command, port=port, **env))
        port = free_port()
        source = "def echo(text: str) -> str:\n    return text\n"
        tools = await start(
            process(
                "-m",
                "kaos.toolserver",
                port=port,
                MCP_SERVER_NAME="echo",
                MCP_TOOLS_STRING=source,
                KAOS_LISTEN=f"127.0.0.1:{port}",
            )
        )
        command, env, port = agent("boss", model)
        env |= {"MCP_SERVERS": "echo", "MCP_SERVER_ECHO_URL": tools}
        env |= {"PEER_AGENTS": "peer", "PEER_AGENT_PEER_CARD_URL": peer}
        boss = await start(process(*command, port=port, **env))
        await ready(http, plain)
        await ready(http, boss)
        urls = {"direct": model, "proxy": proxy, "agent": plain}
        p50: dict[str, list[float]] = {name: [] for name in urls}
        p99: dict[str, list[float]] = {name: [] for name in urls}
        first: dict[str, list[float]] = {name: [] for name in urls}
        rate: dict[str, list[float]] = {name: [] for name in urls}
        cost: dict[str, list[float]] = {name: [] for name in urls}
        rounds: dict[str, list[float]] = {"hi": [], "tool": [], "delegate": [], "peer": []}
        for number in range(ROUNDS + 1):  # the first warms up
            for name, url in urls.items():
                before = cpu_seconds(url)
                cuts = statistics.quantiles(await in_flight(http, url, count), n=100)
                spent = cpu_seconds(url) - before
                tokens = [await first_token(http, url) for _ in range(50)]
                speed = await chunks(http, url)
                if number:
                    p50[name].append(cuts[49])
                    p99[name].append(cuts[98])
                    first[name].append(statistics.median(tokens))
                    rate[name].append(speed)
                    cost[name].append(spent / count * 1000)
            for text in ("hi", "tool", "delegate"):
                times = [await whole(http, boss, text) for _ in range(50)]
                rounds[text].append(statistics.median(times))
            rounds["peer"].append(
                statistics.median([await whole(http, peer, "hi") for _ in range(50)])
            )
    found = {kind: statistics.median(times) for kind, times in rounds.items()}
    direct = statistics.median(first["direct"])
    heads = ("p50 ms", "p99 ms", "first ms", "chunks/s", "CPU ms")
    print(" " * 10, *(f"{head:>9}" for head in heads))
    for name in urls:
        row = [statistics.median(kind[name]) for kind in (p50, p99, first, rate, cost)]
        print(f"{name:10}", *(f"{value:9.2f}" for value in row))
    middle = statistics.median
    # One at a time for tools and peers. A tool round is two answers of the model and the call.
    results = {
        "added latency p50, ms": middle(p50["agent"]) - middle(p50["direct"]),
        "added latency p99, ms": middle(p99["agent"]) - middle(p99["direct"]),
        "added first token p50, ms": middle(first["agent"]) - direct,
        "tool round, ms": found["tool"] - found["hi"],
        "delegation hop, ms": found["delegate"] - found["hi"] - direct,
        "chunks/s": middle(rate["agent"]),
    }
    missed = False
    for what, value in results.items():
        target = TARGETS[what]
        good = value >= target if what == "chunks/s" else value <= target
        missed |= not good
        sign = ">=" if what == "chunks/s" else "<="
        print(f"{what:28} {value:10.2f}  {sign} {target:g}  {'met' if good else 'MISSED'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 480)))
