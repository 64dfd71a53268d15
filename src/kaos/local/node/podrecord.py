"""What the API server holds of a pod, written by the node and read back after a restart.

Guarantees: a status is written only when it differs from what was written last, as one replacement
of the whole status (no stale field stays behind); writing to a pod that is gone is no error; a
container's restarts go on counting over a restart of the cluster process.
"""

import contextlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from kaos.local.node import ports
from kaos.local.node.status import ContainerState, Terminated, parse_timestamp
from kaos.local.node.statuswriter import write_status
from kaos.runtime import POD, Client, Conflict, NotFound, Object

_UNKNOWN_EXIT = 255


class PodWriter:
    """Writes one pod's binding, status and removal."""

    def __init__(self, client: Client, pod: Object) -> None:
        self._client = client
        self._pod = pod
        self._written: dict[str, Any] | None = None

    async def bind(self, node: str, host_ports: str) -> None:
        """Record where the pod runs and which host ports stand for its ports."""
        known = self._pod.metadata.annotations.get(ports.ANNOTATION)
        bound = self._pod.spec.get("nodeName") == node
        if bound and known == host_ports:
            return
        patch: dict[str, Any] = {"metadata": {"annotations": {ports.ANNOTATION: host_ports}}}
        if not bound:
            patch["spec"] = {"nodeName": node}
        await self._patch(patch)

    async def write(self, status: Mapping[str, Any]) -> None:
        """Write the status if it changed."""
        if status == self._written:
            return
        await write_status(self._client, POD, self._pod, status)
        self._written = dict(status)

    async def remove(self) -> None:
        """Remove the Pod object, whose containers have ended (its phase says so)."""
        # Gone already, or another pod of that name is there by now.
        with contextlib.suppress(NotFound, Conflict):
            await self._client.delete(POD, self._pod.name, self._pod.namespace, uid=self._pod.uid)

    async def _patch(self, patch: Mapping[str, Any]) -> None:
        with contextlib.suppress(NotFound):
            await self._client.patch(POD, self._pod.name, self._pod.namespace, patch)


def started_at(pod: Mapping[str, Any]) -> datetime:
    """When a node first took the pod over: now, if none did."""
    known = (pod.get("status") or {}).get("startTime")
    return parse_timestamp(known) if known else datetime.now(UTC)


def previous_state(
    pod: Mapping[str, Any], spec: Mapping[str, Any], *, init: bool = False
) -> ContainerState:
    """How a container begins: new, or as one more restart of what the pod's status tells of."""
    state = ContainerState(name=spec["name"], image=spec.get("image", ""))
    group = "initContainerStatuses" if init else "containerStatuses"
    for known in (pod.get("status") or {}).get(group) or []:
        if known.get("name") == spec["name"] and known.get("containerID"):
            return state.with_(restarts=known.get("restartCount", 0) + 1, last=_last(known))
    return state


def _last(known: Mapping[str, Any]) -> Terminated:
    now = datetime.now(UTC)
    state = known.get("state") or {}
    ended = state.get("terminated") or (known.get("lastState") or {}).get("terminated")
    if "running" in state or not ended:
        began = (state.get("running") or {}).get("startedAt")
        return Terminated(
            exit_code=_UNKNOWN_EXIT,
            reason="Unknown",
            message="the cluster process that ran this container ended",
            started_at=parse_timestamp(began) if began else now,
            finished_at=now,
            container_id=known.get("containerID", ""),
        )
    return Terminated(
        exit_code=ended.get("exitCode", _UNKNOWN_EXIT),
        reason=ended.get("reason", "Unknown"),
        message=ended.get("message", ""),
        signal=ended.get("signal", 0),
        started_at=parse_timestamp(ended["startedAt"]) if ended.get("startedAt") else now,
        finished_at=parse_timestamp(ended["finishedAt"]) if ended.get("finishedAt") else now,
        container_id=ended.get("containerID", ""),
    )
