"""Waiting for resources, in virtual time."""

import asyncio
import dataclasses
from collections.abc import Sequence

import pytest

from kaos.cli.errors import CliError
from kaos.cli.resources import Key, Row
from kaos.cli.wait import CRASH_PATIENCE, SETTLE, wait_ready

pytestmark = pytest.mark.looptime

MODEL = Key("ModelAPI", "default", "ollama")
AGENT = Key("Agent", "default", "assistant")
PULL_FAILED = Row(MODEL, "Failed", "no such model", "ModelPullFailed")
CRASH = Row(MODEL, "Failed", "container ollama: exit code 1", "CrashLoopBackOff")


class Story:
    """Rows that change at given times."""

    def __init__(self, *chapters: tuple[float, list[Row]]) -> None:
        self._chapters = chapters
        self.shown: list[list[Row]] = []

    def rows(self, keys: Sequence[Key]) -> list[Row]:
        now = asyncio.get_running_loop().time()
        current = [rows for since, rows in self._chapters if since <= now][-1]
        return [row for row in current if row.key in keys]

    async def changed(self, timeout: float) -> None:
        await asyncio.sleep(timeout)

    async def wait(self, *keys: Key, timeout: float = 300) -> float:
        clock = asyncio.get_running_loop().time
        await wait_ready(self, keys, timeout=timeout, show=self.shown.append, now=clock)
        return clock()


def ready(key: Key) -> Row:
    return Row(key, "Ready")


async def test_it_returns_when_all_are_ready_at_the_same_time() -> None:
    waits = Row(AGENT, "Waiting", 'ModelAPI "ollama" does not exist')
    story = Story(
        (0, [ready(MODEL), waits]),
        (3, [Row(MODEL, "Pending"), ready(AGENT)]),
        (7, [ready(MODEL), ready(AGENT)]),
    )
    assert await story.wait(MODEL, AGENT) == pytest.approx(7, abs=0.6)
    assert story.shown[0] == [ready(MODEL), waits]


async def test_who_is_suspended_is_not_awaited() -> None:
    sleeper = Row(MODEL, "Suspended", "spec.suspend is true", "Suspended")
    assert await Story((0, [sleeper, ready(AGENT)])).wait(MODEL, AGENT) == 0


async def test_nothing_to_wait_for_is_ready() -> None:
    assert await Story((0, [])).wait() == 0


async def test_a_failure_that_only_an_edit_heals_ends_the_wait() -> None:
    story = Story((0, [Row(MODEL, "Pending")]), (5, [PULL_FAILED]))
    with pytest.raises(CliError, match=r"^ModelAPI/ollama failed: no such model$"):
        await story.wait(MODEL)
    assert asyncio.get_running_loop().time() == pytest.approx(5 + SETTLE, abs=1)


async def test_a_failure_of_a_moment_does_not_count() -> None:
    story = Story((0, [PULL_FAILED]), (SETTLE - 0.1, [ready(MODEL)]))
    await story.wait(MODEL)


async def test_a_crash_gets_the_time_to_start_again() -> None:
    story = Story((0, [CRASH]), (CRASH_PATIENCE - 1, [ready(MODEL)]))
    await story.wait(MODEL)
    story = Story((0, [CRASH]))
    with pytest.raises(CliError, match="exit code 1"):
        await story.wait(MODEL)


async def test_patience_starts_anew_after_a_recovery() -> None:
    waits = Row(AGENT, "Waiting")
    chapters = [(20.0 * n, [CRASH if n % 2 == 0 else ready(MODEL), waits]) for n in range(8)]
    await Story(*chapters, (160.0, [ready(MODEL), ready(AGENT)])).wait(MODEL, AGENT)


async def test_patience_starts_anew_with_an_edit() -> None:
    chapters = [(20.0 * n, [dataclasses.replace(CRASH, generation=n)]) for n in range(4)]
    await Story(*chapters, (80.0, [ready(MODEL)])).wait(MODEL)


async def test_a_crash_that_comes_back_with_each_restart_ends_the_wait() -> None:
    """Each restart began the patience anew: `kaos up` hung until its timeout, without a reason."""
    starts = Row(MODEL, "Pending", "0 of 1 pods serve")
    story = Story(*((3.0 * n, [starts if n % 2 else CRASH]) for n in range(100)))
    with pytest.raises(CliError, match=r"^ModelAPI/ollama failed: container ollama: exit code 1$"):
        await story.wait(MODEL)
    assert asyncio.get_running_loop().time() == pytest.approx(CRASH_PATIENCE, abs=3.5)


async def test_time_up_while_it_starts_again_names_what_was_wrong() -> None:
    story = Story((0, [CRASH]), (3, [Row(MODEL, "Pending", "0 of 1 pods serve")]))
    with pytest.raises(CliError) as caught:
        await story.wait(MODEL, timeout=20)
    assert str(caught.value).splitlines()[0] == (
        "ModelAPI/ollama is not ready: 0 of 1 pods serve (last: container ollama: exit code 1)"
    )


async def test_time_up_names_who_is_not_ready_and_why() -> None:
    story = Story((0, [ready(MODEL), Row(AGENT, "Waiting", 'ModelAPI "x" does not exist')]))
    with pytest.raises(CliError) as caught:
        await story.wait(MODEL, AGENT, timeout=20)
    assert str(caught.value).splitlines() == [
        'Agent/assistant is not ready: ModelAPI "x" does not exist',
        "gave up after 20 s (--timeout)",
    ]
    assert asyncio.get_running_loop().time() == pytest.approx(20, abs=0.1)
