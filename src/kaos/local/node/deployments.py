"""Deployments: makes and removes pods as `rollout` plans, and writes the status.

Guarantees: pods are created with the Deployment as their controller, so that deleting it removes
them; what was just created is counted at once (the cache holds our own writes), so a burst of
reconciles never makes too many; a pod that cannot be created shows in the condition
ReplicaFailure.

Does not: adopt pods that somebody else made, or keep ReplicaSets.
"""

import contextlib
import secrets
from datetime import UTC, datetime
from typing import Any

from kaos.local.node.rollout import (
    ALPHABET,
    HASH_LABEL,
    Bounds,
    PodFacts,
    plan,
    pod_facts,
    template_hash,
)
from kaos.local.node.rollout_status import rollout_status
from kaos.local.node.statuswriter import write_status
from kaos.runtime import (
    DEPLOYMENT,
    POD,
    AlreadyExists,
    ApiError,
    Cache,
    Client,
    EventRecorder,
    NotFound,
    Object,
    Request,
    Result,
    owner_reference,
)

_SUFFIX_LENGTH = 5
_NAME_LENGTH = 63 - _SUFFIX_LENGTH


class Deployments:
    """Reconciler of Deployments."""

    def __init__(
        self, client: Client, cache: Cache, events: EventRecorder, *, node_name: str
    ) -> None:
        self._client = client
        self._cache = cache
        self._events = events
        self._node_name = node_name

    async def reconcile(self, request: Request, /) -> Result | None:
        """Do the next step of a Deployment."""
        deployment = self._cache.get(DEPLOYMENT, request.name, request.namespace)
        if deployment is None or deployment.deleting:
            return None
        body = deployment.to_dict()
        spec = body["spec"]
        template, bounds = template_hash(spec["template"]), Bounds.of(spec)
        step = plan(bounds, template, self._facts(deployment, spec))
        failure = ""
        for name in step.delete:
            await self._delete(deployment, name)
        for _ in range(step.create):
            failure = await self._create(deployment, spec, template)
            if failure:
                break
        outcome = rollout_status(
            body,
            bounds,
            template,
            self._facts(deployment, spec),
            now=datetime.now(UTC),
            failure=failure,
        )
        if outcome.status != body.get("status"):
            await write_status(self._client, DEPLOYMENT, deployment, outcome.status)
        if failure:
            return Result(requeue_after=5)
        return Result(requeue_after=outcome.requeue_after) if outcome.requeue_after else None

    def _facts(self, deployment: Object, spec: dict[str, Any]) -> list[PodFacts]:
        seconds, now = spec.get("minReadySeconds") or 0, datetime.now(UTC)
        return [
            pod_facts(pod.to_dict(), min_ready_seconds=seconds, now=now)
            for pod in self._cache.owned_by(POD, deployment)
        ]

    async def _create(self, deployment: Object, spec: dict[str, Any], template: str) -> str:
        """Create a pod; returns what went wrong, or ""."""
        source = spec["template"]
        metadata = source.get("metadata") or {}
        base = f"{deployment.name}-{template}-"[:_NAME_LENGTH]
        suffix = "".join(secrets.choice(ALPHABET) for _ in range(_SUFFIX_LENGTH))
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": base + suffix,
                "namespace": deployment.namespace,
                "labels": {**(metadata.get("labels") or {}), HASH_LABEL: template},
                "annotations": metadata.get("annotations") or {},
                "ownerReferences": [owner_reference(deployment)],
            },
            # There is one node: no scheduler has to choose.
            "spec": {**source["spec"], "nodeName": self._node_name},
        }
        try:
            pod = await self._client.create(body)
        except AlreadyExists:
            return await self._create(deployment, spec, template)  # one in 14 million
        except NotFound:
            return ""  # the namespace is gone, and the Deployment with it
        except ApiError as error:
            note = f"Error creating: {error}"
            self._events.event(deployment, type="Warning", reason="FailedCreate", note=note)
            return str(error)
        note = f"Created pod: {pod.name}"
        self._events.event(deployment, type="Normal", reason="SuccessfulCreate", note=note)
        return ""

    async def _delete(self, deployment: Object, name: str) -> None:
        with contextlib.suppress(NotFound):
            await self._client.delete(POD, name, deployment.namespace)
            note = f"Deleted pod: {name}"
            self._events.event(deployment, type="Normal", reason="SuccessfulDelete", note=note)
