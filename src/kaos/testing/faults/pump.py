"""A watch on its way through the proxy: chunk by chunk, each of them late if a fault says so."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
from aiohttp import web

from kaos.testing.faults.rules import Fault

_LATE_CHUNKS = 1000


async def pump(
    upstream: aiohttp.ClientResponse,
    response: web.StreamResponse,
    delay: float,
    signal: "asyncio.Future[Fault]",
) -> None:
    """Pass chunks on, each `delay` seconds late, until the end or a fault."""
    async for chunk in _late(upstream, delay) if delay else upstream.content.iter_any():
        if signal.done():
            return
        await response.write(chunk)


async def _late(upstream: aiohttp.ClientResponse, delay: float) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    # Bounded: what does not fit waits in the connection, and a server cuts who does not read.
    waiting: asyncio.Queue[tuple[float, bytes | BaseException | None]] = asyncio.Queue(_LATE_CHUNKS)

    async def fill() -> None:
        end: BaseException | None = None
        try:
            async for chunk in upstream.content.iter_any():
                await waiting.put((loop.time() + delay, chunk))
        except (aiohttp.ClientError, OSError) as error:
            end = error
        await waiting.put((loop.time() + delay, end))

    task = asyncio.ensure_future(fill())
    try:
        while True:
            due, item = await waiting.get()
            await asyncio.sleep(due - loop.time())
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        task.cancel()
        await asyncio.wait({task})
