"""What everybody writes around a client without a controller library: a queue and workers.

Keys wait once however often they change, and are worked on by one worker at a time.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from _progress import Progress

Key = tuple[str, str]


class Loop:
    def __init__(
        self, progress: Progress, write: Callable[[Key, Any, int], Awaitable[None]] | None
    ) -> None:
        self.cache: dict[Key, Any] = {}
        self._progress = progress
        self._write = write
        self._queue: asyncio.Queue[Key] = asyncio.Queue()
        self._waiting: set[Key] = set()
        self._working: set[Key] = set()

    def changed(self, key: Key, obj: Any) -> None:
        self.cache[key] = obj
        if key not in self._waiting:
            self._waiting.add(key)
            if key not in self._working:
                self._queue.put_nowait(key)

    async def work(self, round_of: Callable[[Any], int]) -> None:
        while True:
            key = await self._queue.get()
            self._waiting.discard(key)
            self._working.add(key)
            obj = self.cache[key]
            number = round_of(obj)
            if self._write is not None:
                await self._write(key, obj, number)
            self._progress.reconciled(key, number)
            self._working.discard(key)
            if key in self._waiting:
                self._queue.put_nowait(key)
            elif self._write is None:
                await asyncio.sleep(0)
