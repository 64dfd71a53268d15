"""What sessions cost an agent: memory of 1,000 idle ones, and time per request in each store.

Run: `python benchmarks/agent/sessions.py [SESSIONS]`. A real agent process answers one request in
each session, of a conversation that fills the default budget; its resident memory before and
after is compared. Then the stores that need no server are timed: a load and an append of a
session at its limit of messages. Exit code 1 when the target is missed. Linux only (/proc).
"""

import asyncio
import os
import signal
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path

import aiohttp

from kaos.agent.memory.local import LocalStore
from kaos.agent.memory.sqlite import SqliteStore
from kaos.agent.memory.store import Key, Limits, Store, Turn
from kaos.testing.model import ScriptedModel

TARGET_MB = 20.0
TURNS = 10  # of 1 KB each: what a person says and reads in a quarter of an hour
WARM_UP = 300


def resident_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return float("nan")


async def answered(http: aiohttp.ClientSession, url: str, session: str, turns: int) -> None:
    said = [
        {"role": role, "content": f"{number} " + "word " * 100}
        for number in range(turns)
        for role in ("user", "assistant")
    ]
    body = {"messages": [*said, {"role": "user", "content": "And now?"}]}
    headers = {"x-session-id": session}
    async with http.post(f"{url}/v1/chat/completions", json=body, headers=headers) as answer:
        if answer.status != 200:
            raise RuntimeError(await answer.text())


async def idle_sessions(count: int, model_url: str) -> float:
    """Return the megabytes that so many sessions add."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = "{}:{}".format(*probe.getsockname()[:2])
    env = {
        "PATH": os.environ["PATH"],
        "AGENT_NAME": "bench",
        "MODEL_API_URL": model_url,
        "MODEL_NAME": "scripted",
        "KAOS_LISTEN": address,
        "LOG_LEVEL": "ERROR",
        "MEMORY_MAX_SESSIONS": str(count),
    }
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "kaos.agent", env=env)
    url = f"http://{address}"
    try:
        async with aiohttp.ClientSession() as http:
            for _ in range(600):
                try:
                    async with http.get(f"{url}/readyz") as answer:
                        if answer.status == 200:
                            break
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.05)
            # What requests cost that leave nothing behind is not what sessions cost.
            for _ in range(WARM_UP):
                await answered(http, url, "warm", TURNS)
            before = resident_mb(process.pid)
            for number in range(count):
                await answered(http, url, f"session-{number}", TURNS)
            return resident_mb(process.pid) - before
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()


async def timed(store: Store) -> tuple[float, float]:
    """Return the median milliseconds of a load and of an append."""
    key = Key("", "session")
    messages = [{"role": "user", "content": "word " * 100}] * 2
    loads, appends = [], []
    for number in range(600):
        started = time.perf_counter()
        await store.append(key, Turn.of(f"{number}", messages))
        middle = time.perf_counter()
        stored = await store.load(key)
        assert stored is not None
        stored.messages()
        loads.append(time.perf_counter() - middle)
        appends.append(middle - started)
    await store.close()
    return statistics.median(loads[300:]) * 1000, statistics.median(appends[300:]) * 1000


async def main(count: int) -> int:
    model = ScriptedModel()
    model.say("Hello", repeat=True)
    async with model.serve() as model_url:
        added = await idle_sessions(count, model_url)
    print(f"{count} idle sessions of {TURNS} turns: +{added:.1f} MB  (target <= {TARGET_MB:g} MB)")
    with tempfile.TemporaryDirectory() as folder:
        stores: dict[str, Store] = {
            "local": LocalStore(Limits()),
            "sqlite": SqliteStore(Path(folder) / "sessions.db", "bench", Limits()),
        }
        for name, store in stores.items():
            load, append = await timed(store)
            print(f"{name:8} load {load:6.2f} ms, append {append:6.2f} ms  (500 messages of 500 B)")
    return 0 if added <= TARGET_MB else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)))
