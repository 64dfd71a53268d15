"""The ModelAPI's reconciler, and how the download of a hosted model is told to people.

The puller sidecar logs its progress and, when it fails, ends with one sentence; the kubelet keeps
that sentence in the pod's status and the log is read through the API server. So the controller
needs no network path to the pod, and works from outside of the cluster as well.
"""

import asyncio
import json
from typing import Any

from kaos.api import Mode, ModelAPI
from kaos.reconcilers.availability import Availability
from kaos.reconcilers.children.modelapi import PULLER, endpoint, modelapi_children
from kaos.reconcilers.children.names import selector
from kaos.reconcilers.conditions import Finding, Reason, Type
from kaos.reconcilers.workload import PODS_OF, Plan, WorkloadReconciler, workload_key
from kaos.runtime import HTTP_ROUTE, POD, Object, Result, RuntimeFailure

PROGRESS_SECONDS = 1.0
LOG_LINES = 20
LOG_SECONDS = 3.0
"""For one look at a log. The API server asks the node for it, which may be away."""


class ModelAPIReconciler(WorkloadReconciler[ModelAPI]):
    """ModelAPI → Deployment, Service, claim or ConfigMap, HTTPRoute."""

    MODEL = ModelAPI

    def plan(self, resource: ModelAPI) -> Plan:
        """Decide what shall exist for a ModelAPI."""
        routes = self.cache.synced(HTTP_ROUTE)
        return Plan(
            accepted=Finding(Type.ACCEPTED, True, Reason.SPEC_VALID, "the spec is valid"),
            children=modelapi_children(
                resource, self.settings, routes=routes, guests=self.guests(resource)
            ),
            endpoint=endpoint(resource, self.settings),
            extra={"models": resource.spec.models},
        )

    async def observe(
        self, resource: ModelAPI, seen: Availability
    ) -> tuple[Finding, dict[str, Any]]:
        """Tell a download apart from a rollout, and its failure apart from a crash."""
        if not seen.available and resource.spec.mode is Mode.HOSTED:
            model = resource.spec.models[0]
            if seen.problem and seen.problem.container == PULLER:
                words = seen.problem.words
                return Finding(Type.AVAILABLE, False, Reason.MODEL_PULL_FAILED, words), {}
            if progress := await self._progress(resource):
                completed, total = progress
                share = f"{completed * 100 // total} % of {total / 1e6:.0f} MB" if total else "…"
                message = f"pulling model {model}: {share}"
                pull = {"completed": completed, "total": total}
                return Finding(Type.AVAILABLE, False, Reason.MODEL_PULLING, message), {"pull": pull}
        return await super().observe(resource, seen)

    def next_look(self, resource: ModelAPI, seen: Availability) -> Result | None:
        """A download's progress is in a log, which cannot be watched: look again while it lasts."""
        if not seen.available and not seen.problem and self._pulling(resource):
            return Result(requeue_after=PROGRESS_SECONDS)
        return None

    def _pulling(self, resource: ModelAPI) -> list[Object]:
        """Its pods whose puller is at work."""
        key = workload_key(resource.namespace, selector(resource))
        pods = self.cache.by_index(POD, PODS_OF, key)
        return [pod for pod in pods if not pod.deleting and _running(pod.status, PULLER)]

    async def _progress(self, resource: ModelAPI) -> tuple[int, int] | None:
        """Bytes here and in all, by the puller's newest log line that speaks of them."""
        for pod in self._pulling(resource):
            log = self.client.logs(pod.name, pod.namespace, container=PULLER, tail_lines=LOG_LINES)
            try:
                async with asyncio.timeout(LOG_SECONDS):
                    lines = [line async for line in log]
            except (RuntimeFailure, TimeoutError):
                return None  # the container has just gone, or its node: their states will tell
            for line in reversed(lines):
                if (progress := parse_progress(line)) is not None:
                    return progress
        return None


def parse_progress(line: bytes) -> tuple[int, int] | None:
    """Read one line of the puller's log; None when it tells no progress."""
    try:
        record = json.loads(line)
        return int(record["completed"]), int(record["total"])
    except (ValueError, KeyError, TypeError):
        return None


def _running(status: dict[str, Any], container: str) -> bool:
    return any(
        entry.get("name") == container and "running" in entry.get("state", {})
        for entry in status.get("containerStatuses", ())
    )
