"""What the three reconcilers have in common: read, judge, apply children, tell the truth.

Guarantees: one pass reads from the cache, applies the children that are wanted (and prunes those
that no longer are), and writes the status once, and only when it says something new. Ready is
recomputed from what is seen now at every pass, so it cannot go stale by an early return: every
way out of `reconcile` writes the status. An event is recorded when Ready changes, never otherwise.

Does not: poll. What it depends on is watched (see `kaos.reconcilers.controllers`); the one
exception is the progress of a model's download, which is in a log, and logs cannot be watched.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar, Generic, TypeVar

import structlog

from kaos.api import InvalidSpecError, Workload
from kaos.reconcilers.availability import Availability, PodView, availability
from kaos.reconcilers.children.names import child_name, selector
from kaos.reconcilers.children.patch import PatchError
from kaos.reconcilers.children.scaling import scaled
from kaos.reconcilers.conditions import Finding, Phase, Reason, Type, phase, summary
from kaos.reconcilers.routes import routed
from kaos.reconcilers.settings import Settings
from kaos.runtime import (
    CONFIG_MAP,
    DEPLOYMENT,
    HTTP_ROUTE,
    PERSISTENT_VOLUME_CLAIM,
    POD,
    SERVICE,
    ApiError,
    ApplySet,
    Conflict,
    Invalid,
    Manager,
    NameConflict,
    NotFound,
    Object,
    Request,
    Result,
    condition,
    controller_of,
    find_condition,
    merge_conditions,
)

R = TypeVar("R", bound=Workload)
CHILD_KINDS = (DEPLOYMENT, SERVICE, CONFIG_MAP, PERSISTENT_VOLUME_CLAIM, HTTP_ROUTE)
PODS_OF = "kaos.tools/workload"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a reconciler decided about its resource.

    Attributes:
        findings: the Accepted and DependenciesReady conditions.
        children: the objects that shall exist; None leaves what exists as it is.
        endpoint: the URL by which other pods reach the resource.
        extra: further fields of the status.
        exposed: whether a route is wanted at all.
        route_conflict: who has the short path that this resource would have had.
    """

    findings: Sequence[Finding]
    children: list[dict[str, Any]] | None
    endpoint: str = ""
    extra: dict[str, Any] = field(default_factory=dict)
    exposed: bool = True
    route_conflict: str = ""


class WorkloadReconciler(Generic[R]):
    """The base of a reconciler whose resource is a Deployment with a Service in front."""

    MODEL: ClassVar[type[Workload]]

    def __init__(self, manager: Manager, settings: Settings) -> None:
        self.client = manager.client
        self.cache = manager.cache
        self.events = manager.events
        self.settings = settings
        self.children = ApplySet(manager.client, manager.cache, kinds=CHILD_KINDS)

    def plan(self, resource: R) -> Plan:
        """Decide what shall exist. Reads the cache, writes nothing."""
        raise NotImplementedError

    async def observe(
        self,
        resource: R,  # noqa: ARG002 - for those that look further than the pods
        seen: Availability,
    ) -> tuple[Finding, dict[str, Any]]:
        """The Available condition, and further fields of the status."""
        finding = Finding(Type.AVAILABLE, seen.available, seen.reason, seen.message)
        return finding, {}

    def next_look(self, resource: R, seen: Availability) -> Result | None:  # noqa: ARG002
        """When to look again though nothing that is watched has changed."""
        return None

    async def reconcile(self, request: Request, /) -> Result | None:
        """Bring the children of one resource to what its spec asks for, and report."""
        obj = self.cache.get(self.MODEL, request.name, request.namespace)
        if obj is None or obj.metadata.deletion_timestamp:
            return None  # its children go with it, by their owner references
        try:
            resource: R = self.MODEL.parse(obj.to_dict())  # type: ignore[assignment]
            plan = self.plan(resource)
        except (InvalidSpecError, PatchError) as error:
            refused = Finding(Type.ACCEPTED, False, Reason.INVALID_SPEC, str(error))
            await self._report(obj, [refused], Phase.FAILED, {})
            return None
        findings, failed = await self._apply(obj, resource, plan)
        seen = self._availability(resource)
        available, extra = await self.observe(resource, seen)
        if failed is not None and not is_refusal(failed):
            available = Finding(Type.AVAILABLE, False, Reason.APPLY_FAILED, failed.message)
        elif resource.spec.suspend:
            available = Finding(Type.AVAILABLE, False, Reason.SUSPENDED, "spec.suspend is true")
        findings += [available, self._routed(resource, plan)]
        extra = {
            "endpoint": plan.endpoint,
            "selector": ",".join(f"{k}={v}" for k, v in selector(resource).items()),
            "replicas": seen.replicas,
            "readyReplicas": seen.ready_replicas,
            **plan.extra,
            **extra,
        }
        word = phase(findings, problem=seen.problem is not None)
        if resource.spec.suspend and word is not Phase.FAILED:
            word = Phase.SUSPENDED
        await self._report(obj, findings, word, extra)
        if failed is not None and not is_refusal(failed):
            raise failed  # told; now try again, ever later
        return self.next_look(resource, seen)

    async def _apply(
        self, obj: Object, resource: R, plan: Plan
    ) -> tuple[list[Finding], ApiError | None]:
        """Make the children as planned; the findings, and what the API server said no to."""
        findings = list(plan.findings)
        if plan.children is None:
            return findings, None
        live = self.deployment(resource)
        children = [
            scaled(child, resource, live) if child["kind"] == DEPLOYMENT.kind else child
            for child in plan.children
        ]
        try:
            await self.children.apply(obj, children)
        except NameConflict as error:
            findings[0] = Finding(Type.ACCEPTED, False, Reason.NAME_CONFLICT, str(error))
        except Conflict:
            raise  # somebody was faster: nothing is wrong, the next try sees it
        except ApiError as error:
            if is_refusal(error):
                findings[0] = Finding(Type.ACCEPTED, False, Reason.REFUSED, error.message)
            return findings, error
        return findings, None

    def deployment(self, resource: R) -> Object | None:
        """The resource's Deployment, once it has had its first rollout."""
        found = self.cache.get(DEPLOYMENT, child_name(resource), resource.namespace)
        controller = found and controller_of(found)
        return found if controller and controller.uid == resource.metadata.uid else None

    def _availability(self, resource: R) -> Availability:
        found = self.deployment(resource)
        if found is None:
            return Availability(
                False, Reason.WAITING_FOR_DEPENDENCIES, "no pod has been started yet"
            )
        labels = selector(resource)
        pods = [
            PodView(pod.name, pod.metadata.deletion_timestamp is not None, pod.status)
            for pod in self.cache.by_index(POD, PODS_OF, workload_key(resource.namespace, labels))
        ]
        wanted = found.spec.get("replicas", 1)
        return availability(found.metadata.generation, wanted, found.status, pods)

    def _routed(self, resource: R, plan: Plan) -> Finding:
        route = None
        if self.cache.synced(HTTP_ROUTE):
            route = self.cache.get(HTTP_ROUTE, child_name(resource), resource.namespace)
        return routed(
            resource,
            route.status if route else None,
            installed=self.cache.synced(HTTP_ROUTE),
            exposed=plan.exposed,
            conflict=plan.route_conflict,
        )

    async def _report(
        self, obj: Object, findings: list[Finding], phase_: Phase, extra: dict[str, Any]
    ) -> None:
        """Write the status if it says something new, and record an event if Ready changed."""
        old = obj.status
        ready = summary(findings)
        generation = obj.metadata.generation
        fresh = [
            condition(f.type, f.ok, f.reason, f.message, generation=generation)
            for f in (ready, *findings)
        ]
        status = {
            "observedGeneration": generation,
            "conditions": merge_conditions(old.get("conditions", []), fresh, now=datetime.now(UTC)),
            "phase": str(phase_),
            "ready": ready.ok,
            "message": ready.message,
            **extra,
        }
        if status == old:
            return
        body = {
            "apiVersion": obj.api_version,
            "kind": obj.kind,
            "metadata": {"name": obj.name, "namespace": obj.namespace},
            "status": status,
        }
        try:
            await self.client.apply(body, subresource="status")
        except NotFound:
            return  # deleted meanwhile; nobody is left to be told
        if said(old) != (ready.ok, str(ready.reason)):
            self.events.event(
                obj,
                type="Normal" if ready.ok or phase_ is not Phase.FAILED else "Warning",
                reason=ready.reason,
                note=ready.message,
                action="Reconcile",
            )


def is_refusal(error: ApiError) -> bool:
    """Whether only a change of the spec can help: a child that the API server finds wrong."""
    # A field that does not exist is answered with 500 by server-side apply.
    return isinstance(error, Invalid) or "field not declared in schema" in error.message


def said(status: dict[str, Any]) -> tuple[bool, str]:
    """What Ready said in a status: whether it was True, and its reason."""
    ready = find_condition(status.get("conditions", ()), Type.READY)
    return (False, "") if ready is None else (ready["status"] == "True", ready["reason"])


def workload_key(namespace: str, labels: dict[str, str]) -> str:
    """The key under which a workload's pods are indexed."""
    return "/".join((namespace, *(labels[key] for key in sorted(labels))))
