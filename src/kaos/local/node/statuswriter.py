"""Writing the status of an object: one way for all kinds of the node.

Guarantees: the whole status is replaced, so no stale field stays behind; an object that came after
under the same name never gets the status of the one before; an object that is gone is no error.
"""

from collections.abc import Mapping
from typing import Any

from kaos.runtime import Client, Conflict, Invalid, NotFound, Object, ResourceType


async def write_status(
    client: Client, resource: ResourceType, obj: Object, status: Mapping[str, Any]
) -> None:
    """Replace an object's status.

    Raises:
        ApiError: The server refused it.
    """
    patch: list[dict[str, Any]] = [
        {"op": "test", "path": "/metadata/uid", "value": obj.uid},
        {"op": "add", "path": "/status", "value": dict(status)},
    ]
    try:
        await client.patch(
            resource, obj.name, obj.namespace, patch, type="json", subresource="status"
        )
    except NotFound:
        return
    except (Invalid, Conflict):
        if await _still_there(client, resource, obj):
            raise


async def _still_there(client: Client, resource: ResourceType, obj: Object) -> bool:
    try:
        return (await client.get(resource, obj.name, obj.namespace)).uid == obj.uid
    except NotFound:
        return False
