"""What a stored cluster says of itself is taken back before it starts again.

Guarantees: once `forget_readiness` is done, no pod, Deployment or resource of ours is called ready
that was so only in an earlier life of the cluster: the processes are gone, however it ended. Who
waits for readiness then waits for the present one. (`kaos up --ask` believed the stored one, asked
at once, and was told 503.) Restart counts, addresses and everything else stay.
"""

import asyncio
from typing import Any

from kaos.api import MODELS
from kaos.runtime import DEPLOYMENT, POD, Client, NotFound, Object, ResourceType

_REASON = "ClusterRestarted"
_MESSAGE = "the cluster has started again; not looked at yet"
_CLAIMS = ("Ready", "ContainersReady", "Available")


async def forget_readiness(client: Client) -> None:
    """Say of everything that is called ready that it is not known to be."""
    models = [ResourceType.of(model) for model in MODELS]
    for resource in (POD, DEPLOYMENT, *models):
        found = [obj for obj in await client.list(resource) if _claims(obj)]
        async with asyncio.TaskGroup() as group:
            for obj in found:
                group.create_task(_take_back(client, resource, obj))


async def _take_back(client: Client, resource: ResourceType, obj: Object) -> None:
    status = taken_back(obj.to_dict())
    try:
        await client.patch(
            resource, obj.name, obj.namespace, {"status": status}, subresource="status"
        )
    except NotFound:  # it was about to go
        return


def taken_back(body: dict[str, Any]) -> dict[str, Any]:
    """The part of an object's status that has to change, as a merge patch."""
    status = body["status"]
    conditions = [_unknown(found) for found in status["conditions"]]
    if body["kind"] == "Pod":
        containers = {
            part: [{**container, "ready": False} for container in status[part]]
            for part in ("containerStatuses", "initContainerStatuses")
            if part in status
        }
        return {"conditions": conditions, **containers}
    if body["kind"] == "Deployment":
        gone = {"readyReplicas": None, "availableReplicas": None}
        return {"conditions": conditions, "unavailableReplicas": status.get("replicas", 0), **gone}
    return {"conditions": conditions, "ready": False, "phase": "Pending", "message": _MESSAGE}


def _unknown(condition: dict[str, Any]) -> dict[str, Any]:
    if condition["status"] != "True" or condition["type"] not in _CLAIMS:
        return condition
    return {**condition, "status": "False", "reason": _REASON, "message": _MESSAGE}


def _claims(obj: Object) -> bool:
    return any(
        condition["status"] == "True" and condition["type"] in _CLAIMS
        for condition in obj.status.get("conditions") or ()
    )
