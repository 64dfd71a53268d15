"""Finalizers: added before there is something to clean up, removed once it is cleaned up.

Guarantees: a change of the list is conditional on the version it was computed from, so two
controllers that edit it at once lose nothing; a removal is tried again until it is done or the
object is gone. A crash between clean-up and removal runs the clean-up again: it must be idempotent.
An API server may let an object go although a finalizer was added just before (kubernetes#77988,
open): who sees that deletion cleans up all the same, once the server says that the object is gone.
Does not: hear of such a deletion while nobody leads, or while the kind is not served.
Which failures taught it: objects that can never be deleted because a finalizer was added by a
controller without a clean-up, or put back by a blind merge (zalando operators, kopf#640); data that
was cleaned up though its object lived on (a watch with a selector tells of a relabelled object as
of a deleted one).
"""

from collections.abc import Awaitable, Callable

from kaos.runtime.client import Client
from kaos.runtime.codec import Object
from kaos.runtime.errors import Conflict, Invalid, NotFound
from kaos.runtime.resources import Request, ResourceType
from kaos.runtime.store import Change

_TRIES = 8


class CleanUp:
    """What a controller with a `finalize` method does before it reconciles an object.

    Args:
        client: To set and remove the finalizer with.
        resource: The kind.
        finalizer: The finalizer's name.
        finalize: The clean-up.
    """

    def __init__(
        self,
        client: Client,
        resource: ResourceType,
        finalizer: str,
        finalize: Callable[[Object], Awaitable[None]],
    ) -> None:
        self._client = client
        self._resource = resource
        self._finalizer = finalizer
        self._finalize = finalize
        self._lost: dict[Request, Object] = {}

    def loses(self, change: Change) -> bool:
        """Whether an object went without its clean-up; it is remembered then."""
        last = change.latest
        lost = not (change.new or last.deleting) and self._finalizer in last.metadata.finalizers
        if lost:
            self._lost[last.key] = last
        return lost

    async def of_lost(self, request: Request) -> None:
        """Clean up after what went without, if it did: it may have left the selection alone."""
        lost = self._lost.get(request)
        if lost is None:
            return
        there = await self._find(lost)
        if there is None:
            await self._finalize(lost)
        elif there.deleting:
            await self.prepare(there)
        if self._lost.get(request) is lost:
            del self._lost[request]

    async def _find(self, lost: Object) -> Object | None:
        """The very object, as the server has it now; None when it is gone."""
        try:
            there = await self._client.get(self._resource, lost.name, lost.namespace)
        except NotFound as error:
            if "name" not in error.details:
                raise  # the kind is not served, which says nothing of its objects: ask again later
            return None
        return there if there.uid == lost.uid else None

    async def prepare(self, obj: Object) -> bool:
        """Clean up if the object goes, else see that it can be; whether to reconcile it."""
        there = self._finalizer in obj.metadata.finalizers
        if obj.deleting:
            if there:
                await self._finalize(obj)
                await remove_finalizer(self._client, self._resource, obj, self._finalizer)
            return False
        try:
            await add_finalizer(self._client, self._resource, obj, self._finalizer)
        except NotFound:
            return False  # gone, or going: its last event is on the way
        return True


async def add_finalizer(client: Client, resource: ResourceType, obj: Object, name: str) -> Object:
    """The object with the finalizer; raises NotFound when it is gone or being deleted."""
    for _ in range(_TRIES):
        if name in obj.metadata.finalizers:
            return obj
        if obj.deleting:
            raise NotFound(404, message=f"{obj.kind} {obj.key} is being deleted")
        changed = await _set(client, resource, obj, [*obj.metadata.finalizers, name])
        if changed is not None:
            return changed
        obj = await client.get(resource, obj.name, obj.namespace)
    raise Conflict(409, message=f"finalizers of {obj.kind} {obj.key} change all the time")


async def remove_finalizer(client: Client, resource: ResourceType, obj: Object, name: str) -> None:
    """Remove the finalizer; nothing to do when it, or the object, is gone already."""
    uid = obj.uid
    for _ in range(_TRIES):
        if name not in obj.metadata.finalizers or obj.uid != uid:
            return
        try:
            left = [f for f in obj.metadata.finalizers if f != name]
            if await _set(client, resource, obj, left) is not None:
                return
            obj = await client.get(resource, obj.name, obj.namespace)
        except NotFound:
            return
    raise Conflict(409, message=f"finalizers of {obj.kind} {obj.key} change all the time")


async def _set(
    client: Client, resource: ResourceType, obj: Object, finalizers: list[str]
) -> Object | None:
    """Write the list if the object has not changed since; None when it has."""
    version = obj.metadata.resource_version
    try:
        return await client.patch(
            resource,
            obj.name,
            obj.namespace,
            [
                {"op": "test", "path": "/metadata/resourceVersion", "value": version},
                {"op": "add", "path": "/metadata/finalizers", "value": finalizers},
            ],
            type="json",
        )
    except Conflict:
        return None
    except Invalid:
        # A failed test answers 422, and so does an object that was never valid.
        now = await client.get(resource, obj.name, obj.namespace)
        if now.metadata.resource_version == version:
            raise
        return None
