"""Wait until resources are ready, say what is waited for, and know when waiting is pointless.

Guaranteed: returns only when all are ready (or suspended) at the same time; ends with a `CliError`
that names what is not, in the words of its condition, when time is up or when one has failed in a
way that time does not heal.

A failure must last before it counts: a process that crashed once may start the second time, and a
condition may be about the object as it was a moment ago. It lasts until the object is ready or its
spec changes: in between its container starts anew, again and again, and for that moment nothing is
wrong with it.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from kaos.cli.errors import CliError
from kaos.cli.resources import Key, Row

# Reasons that only an edit heals; other failures (a crash) may pass.
FINAL = frozenset(
    {
        "ImageNotRunnable",
        "InvalidSpec",
        "ModelNotServed",
        "ModelPullFailed",
        "NameConflict",
        "CreateContainerConfigError",
    }
)
SETTLE = 1.5
CRASH_PATIENCE = 25.0
_TICK = 0.5


class Rows(Protocol):
    """Where the state of resources comes from."""

    def rows(self, keys: Sequence[Key]) -> list[Row]:
        """How those resources do, now."""
        ...

    async def changed(self, timeout: float) -> None:
        """Wait for a change, ``timeout`` seconds at most."""
        ...


async def wait_ready(
    source: Rows,
    keys: Sequence[Key],
    *,
    timeout: float,
    show: Callable[[list[Row]], None],
    now: Callable[[], float] = time.monotonic,
) -> None:
    """Wait until all of ``keys`` are ready, or suspended: those have nothing to become.

    Args:
        source: Where their state comes from.
        keys: Whom to wait for.
        timeout: Seconds after which to give up.
        show: Called with the rows whenever something changed.
        now: The clock.

    Raises:
        CliError: one failed for good, or time is up.
    """
    deadline = now() + timeout
    failing: dict[tuple[Key, int, float], float] = {}  # since when, by object, spec and patience
    last: dict[tuple[Key, int], str] = {}
    while True:
        rows = source.rows(keys)
        show(rows)
        if all(row.settled for row in rows):
            return
        settled = {row.key for row in rows if row.settled}
        failing = {of: since for of, since in failing.items() if of[0] not in settled}
        last = {of: message for of, message in last.items() if of[0] not in settled}
        failed = [row for row in rows if row.failed]
        for row in failed:
            failing.setdefault((row.key, row.generation, patience(row)), now())
            last[row.key, row.generation] = row.message
        lost = [
            row
            for row in failed
            if now() - failing[row.key, row.generation, patience(row)] >= patience(row)
        ]
        if lost:
            raise CliError("\n".join(f"{row.key} failed: {row.message}" for row in lost))
        if now() >= deadline:
            waiting = (
                f"{row.key} is not ready: {row.message}{_last(row, last)}"
                for row in rows
                if not row.settled
            )
            raise CliError("\n".join([*waiting, f"gave up after {timeout:.0f} s (--timeout)"]))
        await source.changed(min(_TICK, max(deadline - now(), 0.0)))


def _last(row: Row, last: Mapping[tuple[Key, int], str]) -> str:
    """What was wrong with it before it was given another try."""
    message = last.get((row.key, row.generation), row.message)
    return f" (last: {message})" if message != row.message else ""


def patience(row: Row) -> float:
    """How long a failure must last before it counts."""
    return SETTLE if row.reason in FINAL else CRASH_PATIENCE
