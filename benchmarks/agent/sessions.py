"""What sessions cost an agent: memory of 1,000 idle ones, and time per request in each store.

Run: `python benchmarks/agent/sessions.py [SESSIONS]`. A real agent process answers one request in
each session, of a conversation that fills the default budget; its resident memory before and
after is compared. Then the stores that need no server are timed: a load and an append of a
session at its limit of messages. Exit code 1 when the target is missed. Linux only (/proc).
"""

import asyncio
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
from _processes import agent, free_port, process, resident_mb, until
from _report import Row, report

from kaos.agent.memory.local import LocalStore
from kaos.agent.memory.sqlite import SqliteStore
from kaos.agent.memory.store import Key, Limits, Store, Turn

HERE = Path(__file__).parent
TARGET_MB = 20.0
TURNS = 10  # of 1 KB each: what a person says and reads in a quarter of an hour
WARM_UP = 300


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


async def idle_sessions(count: int) -> float:
    """Return the megabytes that so many sessions add."""
    async with AsyncExitStack() as stack:
        start = stack.enter_async_context
        http = await start(aiohttp.ClientSession())
        port = free_port()
        model = await start(process(str(HERE / "_model.py"), str(port), port=port))
        command, env, port = agent("bench", model, MEMORY_MAX_SESSIONS=str(count))
        url = await start(process(*command, port=port, **env))
        await until(http, f"{url}/readyz")
        # What requests cost that leave nothing behind is not what sessions cost.
        for _ in range(WARM_UP):
            await answered(http, url, "warm", TURNS)
        before = resident_mb(url)
        for number in range(count):
            await answered(http, url, f"session-{number}", TURNS)
        return resident_mb(url) - before


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


async def run(count: int) -> list[Row]:
    """Measure, and return what is beside a target."""
    added = await idle_sessions(count)
    found = [Row(f"{count:,} idle sessions of {TURNS} turns", added, TARGET_MB, unit="MB")]
    with tempfile.TemporaryDirectory() as folder:
        stores: dict[str, Store] = {
            "in process": LocalStore(Limits()),
            "SQLite": SqliteStore(Path(folder) / "sessions.db", "bench", Limits()),
        }
        for name, store in stores.items():
            load, append = await timed(store)
            found.append(Row(f"a session of 500 messages, {name}: load", load))
            found.append(Row(f"a session of 500 messages, {name}: append", append))
    return found


if __name__ == "__main__":
    sys.exit(report(asyncio.run(run(int(sys.argv[1]) if len(sys.argv) > 1 else 1000))))
