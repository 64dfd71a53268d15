"""500 streams at once through one agent, and the end of an agent that is busy."""

import asyncio
import time
from pathlib import Path

import aiohttp
import pytest

from kaos.testing.waiting import eventually
from tests.load.processes import Process, agent, model
from tests.load.users import Broken, User, body

MEMORY = 0.12  # MB that a stream may take
GRACE = 25.0


def slow(pieces: float) -> dict[str, object]:
    """A model that repeats what it is told, with a pause between the words."""
    return {"turns": [{"text": "{last}", "piece_delay": pieces}], "repeat": True}


def words(number: int) -> str:
    """What one user says, and nobody else."""
    return " ".join(f"{number}-{word}" for word in range(20))


async def running(http: aiohttp.ClientSession, url: str) -> float:
    """How many runs the agent says are under way."""
    async with http.get(f"{url}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("kaos_agent_runs "))


@pytest.mark.timeout(600)
async def test_500_streams_at_once_are_all_whole_and_cost_little_memory(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    count = request.config.getoption("--streams")
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=300)
    async with (
        model(tmp_path, slow(1.0)) as models,
        agent(models) as served,
        aiohttp.ClientSession(connector=connector, timeout=timeout) as http,
    ):
        user = User(http, served.url)
        await user.stream("warm")
        before, most = served.memory(), 0.0
        together = 0.0
        async with asyncio.TaskGroup() as group:
            streams = [group.create_task(user.stream(words(n))) for n in range(count)]
            while not all(stream.done() for stream in streams):
                together = max(together, await running(http, served.url))
                most = max(most, served.memory())
                await asyncio.sleep(0.5)
        assert [stream.result() for stream in streams] == [words(n) for n in range(count)]
        assert together >= count, f"only {together:.0f} were under way at once"
        assert await running(http, served.url) == 0
        print(f"{count} streams: {before:.0f} MB before, {most:.0f} MB at most")  # noqa: T201
        assert most - before < count * MEMORY


@pytest.mark.timeout(300)
async def test_sigterm_under_load_breaks_no_stream(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    count = request.config.getoption("--streams") // 5
    begun = asyncio.Event()
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        model(tmp_path, slow(0.2)) as models,
        agent(models) as served,
        aiohttp.ClientSession(connector=connector) as http,
    ):
        user = User(http, served.url, begun.set)
        streams = [asyncio.create_task(user.stream(words(n))) for n in range(count)]
        await begun.wait()
        await eventually(lambda: _all_running(http, served.url, count), within=60)
        served.terminate()
        told = time.monotonic()
        await eventually(lambda: _refuses(served), within=5)
        results = await asyncio.gather(*streams, return_exceptions=True)
        assert results == [words(n) for n in range(count)]
        assert await served.ended(GRACE) == 0
        assert time.monotonic() - told < GRACE


@pytest.mark.timeout(300)
async def test_sigterm_and_its_drain_fail_no_request(tmp_path: Path) -> None:
    """As on a cluster: requests still come for a while, on connections that are kept open too."""
    failures: list[str] = []
    answered = 0
    turn = {"turns": [{"text": "{last}", "delay": 0.05}], "repeat": True}
    async with (
        model(tmp_path, turn) as models,
        agent(models, KAOS_DRAIN="4") as served,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http,
    ):
        stop = asyncio.Event()

        async def ask(user: User) -> None:
            nonlocal answered
            while not stop.is_set():
                try:
                    assert await user.whole("hi") == "hi"
                    answered += 1
                except (aiohttp.ClientError, Broken) as error:
                    failures.append(repr(error))

        users = [asyncio.create_task(ask(User(http, served.url))) for _ in range(20)]
        await eventually(lambda: answered > 50, within=60)
        served.terminate()
        before = answered
        await eventually(lambda: answered > before + 50, within=60)
        stop.set()
        await asyncio.gather(*users)
        assert failures == []
        assert await served.ended(GRACE) == 0


async def _all_running(http: aiohttp.ClientSession, url: str, count: int) -> bool:
    return await running(http, url) >= count


async def _refuses(served: Process) -> bool:
    """Whether a new connection is refused at once, and not left hanging."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as fresh:
        try:
            async with fresh.post(f"{served.url}/v1/chat/completions", json=body("x")):
                return False
        except aiohttp.ClientConnectorError:
            return True
