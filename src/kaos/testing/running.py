"""Running what lives as long as a test, and no longer.

Guarantees: what was started has ended when the block ends, and its failure is raised there, so that
a manager that died in the middle of a test is not a passed test.
Which failure taught `hosted`: pytest-asyncio ends a fixture in another task than it began, which
task groups and cancel scopes refuse ("exit cancel scope in a different task").
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

import anyio

from kaos.runtime import Manager

T = TypeVar("T")


@asynccontextmanager
async def hosted(context: AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
    """Enter and leave a context in one task of its own, as fixtures must.

    Args:
        context: What to enter, e.g. one with a task group inside.
    """
    entered: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    leave = asyncio.Event()

    async def host() -> None:
        async with context as value:
            entered.set_result(value)
            await leave.wait()

    task = asyncio.create_task(host())
    try:
        await asyncio.wait((task, entered), return_when=asyncio.FIRST_COMPLETED)
        if entered.done():
            yield entered.result()
    finally:
        leave.set()
        await task


@asynccontextmanager
async def running(manager: Manager, *, within: float = 10.0) -> AsyncIterator[Manager]:
    """Run a manager within the block; entered when its controllers work.

    Args:
        manager: What to run.
        within: Seconds until its kinds must be listed and its controllers started.

    Raises:
        TimeoutError: It did not start in time; the message names the kinds it waits for.
    """
    started = anyio.Event()
    task = asyncio.create_task(manager.run(started=started))
    waiting = asyncio.create_task(started.wait())
    try:
        await asyncio.wait((task, waiting), timeout=within, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
        if not started.is_set():
            raise TimeoutError(f"the manager did not start: {manager.not_ready() or 'no lease'}")
        yield manager
    finally:
        waiting.cancel()
        failed = task.done()
        task.cancel()
        await asyncio.wait((task, waiting))
        if failed:
            await task
