"""What every model server of ours does with a request: read it, and notice when nobody waits."""

import asyncio
import json
from collections.abc import Awaitable
from typing import Any, TypeVar

from starlette.requests import Request

from kaos.modelapi.errors import OpenAIError

T = TypeVar("T")


class ClientGoneError(Exception):
    """Nobody waits for the answer any more."""


async def json_object(request: Request) -> dict[str, Any]:
    """The body of a request.

    Raises:
        OpenAIError: It is not a JSON object.
    """
    try:
        body = json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise OpenAIError(f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise OpenAIError("the body must be a JSON object")
    return body


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """Do the work, unless the client goes away before it is done.

    A model works for seconds and costs money: a handler that only notices at the first byte
    of the answer pays for all that nobody reads. The request's body must have been read.

    Raises:
        ClientGoneError: The client went away; the work was cancelled.
    """

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task, watch = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait([task, watch], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGoneError
        return task.result()
    finally:
        task.cancel()
        watch.cancel()
        await asyncio.wait([task, watch])
