"""Finalizers: added before there is something to clean up, removed once it is cleaned up.

Guarantees: a change of the list is conditional on the version it was computed from, so two
controllers that edit it at once lose nothing; a removal is tried again until it is done or the
object is gone. A crash between clean-up and removal runs the clean-up again: it must be idempotent.
Which failures taught it: objects that can never be deleted because a finalizer was added by a
controller without a clean-up, or put back by a blind merge (zalando operators, kopf#640).
"""

from kaos.runtime.client import Client
from kaos.runtime.codec import Object
from kaos.runtime.errors import Conflict, Invalid, NotFound
from kaos.runtime.resources import ResourceType

_TRIES = 8


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
