"""PersistentVolumeClaims: bound at once, and their folders removed with them.

Guarantees: a claim is Bound as soon as it is seen (a folder costs nothing until it is used); its
data is removed only after the claim is deleted and no pod uses it any more.
"""

import asyncio
from typing import Any

from kaos.local.node.statuswriter import write_status
from kaos.local.node.volumes import Volumes
from kaos.runtime import PERSISTENT_VOLUME_CLAIM, POD, Cache, Client, Request, Result

_LOOK_AGAIN = 2.0


class Claims:
    """Reconciler of PersistentVolumeClaims."""

    def __init__(self, client: Client, cache: Cache, volumes: Volumes) -> None:
        self._client = client
        self._cache = cache
        self._volumes = volumes

    async def reconcile(self, request: Request, /) -> Result | None:
        """Bind a claim, or remove what a deleted one leaves."""
        claim = self._cache.get(PERSISTENT_VOLUME_CLAIM, request.name, request.namespace)
        if claim is None:
            if self._used(request):
                return Result(requeue_after=_LOOK_AGAIN)
            folder = (request.namespace, request.name)
            await asyncio.to_thread(self._volumes.remove_claim, *folder)
            return None
        status = bound_status(claim.to_dict())
        if not claim.deleting and status != claim.status:
            await write_status(self._client, PERSISTENT_VOLUME_CLAIM, claim, status)
        return None

    def _used(self, claim: Request) -> bool:
        return any(
            (volume.get("persistentVolumeClaim") or {}).get("claimName") == claim.name
            for pod in self._cache.list(POD, claim.namespace)
            for volume in pod.spec.get("volumes") or []
        )


def bound_status(claim: dict[str, Any]) -> dict[str, Any]:
    """The status of a bound claim; its capacity is what it asked for."""
    spec = claim.get("spec") or {}
    requests = (spec.get("resources") or {}).get("requests") or {}
    return {
        "phase": "Bound",
        "accessModes": spec.get("accessModes") or ["ReadWriteOnce"],
        "capacity": {"storage": requests.get("storage", "1Gi")},
    }
