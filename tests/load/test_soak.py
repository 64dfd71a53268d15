"""An agent that is busy for minutes takes no more memory at the end than in the middle."""

import asyncio
import itertools
import random
import statistics
import time
from pathlib import Path

import aiohttp
import pytest

from tests.load.processes import agent, model
from tests.load.users import Broken, User, body

USERS = 8
SETTLING = 0.4  # of the time: until all that is bounded is full
GROWTH = 2.0  # MB between the medians of the second and the last part of the rest
TURN = {"turns": [{"text": "{last}", "piece_delay": 0.002}], "repeat": True}


async def anything(user: User, dice: random.Random, number: int) -> None:
    """One thing of all that users do; raises `Broken` when it is not answered as it should be."""
    text = f"question {number} of many, and all of them different"
    match dice.randrange(6):
        case 0 | 1:
            assert await user.stream(text) == text
        case 2:  # sessions, many more than are kept
            user.headers = {"x-session-id": f"s-{number}"}
            assert await user.whole(text) == text
        case 3:
            user.headers = {"idempotency-key": f"k-{number}"}
            assert await user.whole(text) == text
        case 4:  # somebody who goes away
            path = f"{user.url}/v1/chat/completions"
            async with user.http.post(path, json=body(text, stream=True)) as answer:
                await answer.content.readline()
        case _:
            for path in ("/v1/runs", "/metrics", "/readyz", "/no-such-page"):
                async with user.http.get(user.url + path) as answer:
                    assert answer.status in (200, 404)


@pytest.mark.timeout(3600)
async def test_memory_does_not_grow(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    seconds = request.config.getoption("--seconds")
    numbers, failures, memory = itertools.count(), list[str](), list[float]()
    end = time.monotonic() + seconds

    async def use(http: aiohttp.ClientSession, url: str, seed: int) -> None:
        dice = random.Random(seed)
        while time.monotonic() < end:
            try:
                await anything(User(http, url), dice, next(numbers))
            except (aiohttp.ClientError, Broken, AssertionError) as error:
                failures.append(repr(error))

    async with (
        model(tmp_path, TURN) as models,
        agent(models, MEMORY_MAX_SESSIONS="50") as served,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http,
        asyncio.TaskGroup() as group,
    ):
        for seed in range(USERS):
            group.create_task(use(http, served.url, seed))
        while time.monotonic() < end:
            await asyncio.sleep(seconds / 100)
            memory.append(served.memory())
            async with http.delete(f"{models.url}/requests") as answer:
                await answer.read()
    settled = memory[int(len(memory) * SETTLING) :]
    middle = statistics.median(settled[: len(settled) // 2])
    last = statistics.median(settled[len(settled) // 2 :])
    figures = f"{next(numbers)} requests, {memory[0]:.1f}, {middle:.1f}, {last:.1f} MB"
    print(figures)  # noqa: T201 - for who reads the log
    assert not failures, (len(failures), failures[:3])
    assert last - middle < GROWTH, figures
