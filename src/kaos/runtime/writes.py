"""Writes that read first: create or update, and trying again after a conflict.

Guarantees: nothing is written when nothing would change; an update is conditional on the version it
was computed from, and computed anew from the newest one after a conflict.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Literal, TypeVar

from kaos.runtime.client import Client, Target
from kaos.runtime.codec import Object
from kaos.runtime.errors import AlreadyExists, Conflict, NotFound

T = TypeVar("T")
_TRIES = 5


async def retry_on_conflict(attempt: Callable[[], Awaitable[T]], *, tries: int = _TRIES) -> T:
    """Run an attempt that reads, then writes, again while somebody else writes in between."""
    for _ in range(tries - 1):
        try:
            return await attempt()
        except (AlreadyExists, Conflict):
            continue
    return await attempt()


async def create_or_update(
    client: Client,
    resource: Target,
    name: str,
    namespace: str,
    change: Callable[[dict[str, Any]], None],
) -> tuple[Object, Literal["created", "updated", "unchanged"]]:
    """Bring an object into the shape that `change` gives it.

    Args:
        client: To read and write with.
        resource: Its kind.
        name: Its name.
        namespace: Its namespace, "" when cluster-scoped.
        change: Changes the body it gets: the object as it is, or a bare one when there is none.
    """
    kind = await client.resolve(resource)

    async def attempt() -> tuple[Object, Literal["created", "updated", "unchanged"]]:
        try:
            live = await client.get(kind, name, namespace)
        except NotFound:
            metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
            body: dict[str, Any] = {"apiVersion": kind.api_version, "kind": kind.kind}
            body["metadata"] = metadata
            change(body)
            return await client.create(body), "created"
        body = live.to_dict()
        change(body)
        if body == live.to_dict():
            return live, "unchanged"
        return await client.update(body), "updated"

    return await retry_on_conflict(attempt)
