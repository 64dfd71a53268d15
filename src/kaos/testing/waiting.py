"""Waiting for something that another task or process is about to do."""

import asyncio
from collections.abc import Awaitable, Callable

_PAUSE = 0.01


async def eventually(
    condition: Callable[[], bool | Awaitable[bool]], *, within: float = 5.0
) -> None:
    """Wait until `condition` holds.

    Args:
        condition: Asked again and again; may be a coroutine function.
        within: Seconds.

    Raises:
        TimeoutError: It did not come true in time.
    """
    async with asyncio.timeout(within):
        while True:
            holds = condition()
            if holds if isinstance(holds, bool) else await holds:
                return
            await asyncio.sleep(_PAUSE)
