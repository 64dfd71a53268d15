"""What the three reconcilers have in common: read, judge, apply children, tell the truth.

Guarantees: one pass reads from the cache, applies the children that are wanted (and prunes those
that no longer are), and writes the status once, and only when it says something new. Ready is
recomputed from what is seen now at every pass, so it cannot go stale by an early return: every
way out of `reconcile` writes the status.

Does not: poll. What it depends on is watched (see `kaos.reconcilers.controllers`); the one
exception is the progress of a model's download, which is in a log, and logs cannot be watched.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

from kaos.api import InvalidSpecError, Metadata, Workload
from kaos.reconcilers.availability import Availability, PodView, availability
from kaos.reconcilers.children.names import Ref, child_name, selector
from kaos.reconcilers.children.patch import PatchError
from kaos.reconcilers.children.scaling import (
    HEIR,
    handed_over,
    scaled,
    scaling_children,
    target_runs,
)
from kaos.reconcilers.children.workload import Manifest
from kaos.reconcilers.conditions import Finding, Phase, Reason, Type, phase
from kaos.reconcilers.dependencies import Dependency, finding
from kaos.reconcilers.grants import Grants
from kaos.reconcilers.pod_metrics import has_pod_metrics
from kaos.reconcilers.references import ANNOTATION, References
from kaos.reconcilers.report import REPORTED, report
from kaos.reconcilers.routes import routed
from kaos.reconcilers.settings import Settings
from kaos.runtime import (
    CONFIG_MAP,
    DEPLOYMENT,
    HORIZONTAL_POD_AUTOSCALER,
    HTTP_ROUTE,
    NETWORK_POLICY,
    PERSISTENT_VOLUME_CLAIM,
    POD,
    POD_DISRUPTION_BUDGET,
    SERVICE,
    SERVICE_ACCOUNT,
    ApiError,
    ApplySet,
    Conflict,
    Invalid,
    Manager,
    NameConflict,
    Object,
    Request,
    ResourceType,
    Result,
    RuntimeFailure,
    controller_of,
    find_condition,
)

R = TypeVar("R", bound=Workload)
CHILD_KINDS = (
    DEPLOYMENT,
    SERVICE,
    CONFIG_MAP,
    SERVICE_ACCOUNT,
    PERSISTENT_VOLUME_CLAIM,
    NETWORK_POLICY,
    HORIZONTAL_POD_AUTOSCALER,
    POD_DISRUPTION_BUDGET,
    HTTP_ROUTE,
)
PODS_OF = "kaos.tools/workload"
LINE = 500
UNTYPED = "failed to create typed patch"
"""What server-side apply says with a 500 of an object that is not as its type wants it."""
NOT_YET = "no corresponding type"
"""What it says instead of a kind that was defined a moment ago."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a reconciler decided about its resource.

    Attributes:
        accepted: the Accepted condition.
        needs: what it needs of other resources.
        children: the objects that shall exist; None leaves what exists as it is.
        endpoint: the URL by which other pods reach the resource.
        extra: further fields of the status.
        unrouted: why no route is wanted; empty when one is.
        route_conflict: who has the short path that this resource would have had.
        available: the Available condition of what runs no pods here.
    """

    accepted: Finding
    children: list[Manifest] | None
    needs: Sequence[Dependency] = ()
    endpoint: str = ""
    extra: dict[str, Any] = field(default_factory=dict)
    unrouted: str = ""
    route_conflict: str = ""
    available: Finding | None = None


@dataclass(slots=True)
class Outcome:
    """What became of a plan.

    Attributes:
        accepted: the Accepted condition, as the children's fate left it.
        lacks: Secrets and ConfigMaps that the pods need and that are not there.
        failed: what the API server said no to.
        again: whether something changed under our hands, so that another look is due at once.
    """

    accepted: Finding
    lacks: list[tuple[Reason, str]] = field(default_factory=list)
    failed: ApiError | None = None
    again: bool = False


class WorkloadReconciler(Generic[R]):
    """The base of a reconciler whose resource is a Deployment with a Service in front."""

    MODEL: ClassVar[type[Workload]]

    def __init__(self, manager: Manager, settings: Settings) -> None:
        self.client = manager.client
        self.cache = manager.cache
        self.events = manager.events
        self.settings = settings
        self.children = ApplySet(manager.client, manager.cache, kinds=CHILD_KINDS)
        self.grants = Grants(manager.cache)
        self.references = References(manager.cache, secrets=settings.watch_secrets)
        self._taken: dict[str, Request] = {}  # by a child: who would have had its name

    def guests(self, resource: R) -> list[str]:
        """Other namespaces whose agents may use the resource."""
        return self.grants.guests(resource.KIND, Ref(resource.namespace, resource.name))

    def claimants(self, obj: Object) -> Iterator[Request]:
        """Who wanted the name of an object that is somebody else's, and may have it now."""
        if claimant := self._taken.pop(f"{obj.kind} {obj.key}", None):
            yield claimant

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
            return await self._reconcile(obj)
        except RuntimeFailure:
            raise  # told where it can be, and the next try may do
        except Exception as error:
            words = f"the controller failed: {type(error).__name__}: {error}".split()
            failed = Finding(Type.ACCEPTED, False, Reason.RECONCILE_FAILED, " ".join(words)[:LINE])
            with suppress(RuntimeFailure):  # what it is about is raised below
                await self._report(obj, [failed], Phase.FAILED, _kept(obj))
            raise

    async def _reconcile(self, obj: Object) -> Result | None:
        try:
            resource: R = self.MODEL.parse(obj.to_dict())  # type: ignore[assignment]
            plan = self.plan(resource)
        except (InvalidSpecError, PatchError) as error:
            await self._refuse(obj, Finding(Type.ACCEPTED, False, Reason.INVALID_SPEC, str(error)))
            return None
        outcome = await self._apply(obj, resource, plan)
        failed = outcome.failed
        seen = self._availability(resource)
        available, extra = await self.observe(resource, seen)
        if failed is not None and not is_refusal(failed):
            available = Finding(Type.AVAILABLE, False, Reason.APPLY_FAILED, failed.message)
        elif plan.available is not None:
            available = plan.available
        elif resource.spec.suspend:
            available = Finding(Type.AVAILABLE, False, Reason.SUSPENDED, "spec.suspend is true")
        findings = [
            outcome.accepted,
            finding(plan.needs, outcome.lacks),
            available,
            self._routed(resource, plan),
        ]
        extra = {
            "endpoint": plan.endpoint,
            "selector": ",".join(f"{k}={v}" for k, v in selector(resource).items()),
            "replicas": seen.replicas,
            "readyReplicas": seen.ready_replicas,
            **plan.extra,
            **extra,
        }
        word = phase(findings, problem=seen.problem is not None)
        if available.reason == Reason.SUSPENDED and word is not Phase.FAILED:
            word = Phase.SUSPENDED
        await self._report(obj, findings, word, extra)
        if failed is not None and not is_refusal(failed):
            raise failed  # told; now try again, ever later
        return Result(requeue_after=0) if outcome.again else self.next_look(resource, seen)

    async def _refuse(self, obj: Object, refused: Finding) -> None:
        """Tell that nothing is made of the spec, and how what was made of an earlier one fares."""
        findings, extra = [refused], _kept(obj)
        before = find_condition(obj.status.get("conditions", ()), Type.AVAILABLE)
        if before is None or before["reason"] != Reason.REMOTE:  # of that, nothing is seen here
            seen = self._availability(self.MODEL.model_construct(metadata=_identity(obj)))
            findings.append(Finding(Type.AVAILABLE, seen.available, seen.reason, seen.message))
            extra |= {"replicas": seen.replicas, "readyReplicas": seen.ready_replicas}
        await self._report(obj, findings, Phase.FAILED, extra)

    async def _apply(self, obj: Object, resource: R, plan: Plan) -> Outcome:
        """Make the children as planned."""
        outcome = Outcome(plan.accepted)
        if plan.children is None:
            return outcome
        own = {c["metadata"]["name"] for c in plan.children if c["kind"] == CONFIG_MAP.kind}
        live = self.deployment(resource)
        pod: Manifest = {}
        digest, children = "", []
        scaling: list[Manifest] = []
        if plan.available is None:
            by_runs = target_runs(resource) is not None and has_pod_metrics(self.cache)
            scaling = scaling_children(resource, pod_metrics=by_runs)
        for child in [*plan.children, *scaling]:
            if child["kind"] == DEPLOYMENT.kind:
                pod = child["spec"]["template"]["spec"]
                digest = self.references.digest(pod, obj.namespace, own)
                child = scaled(annotated(child, digest), resource, live)  # noqa: PLW2901
            children.append(child)
        try:
            if heirloom := handed_over(resource, live):
                await self.client.apply(heirloom, field_manager=HEIR, force=False)
            await self.children.apply(obj, children)
        except NameConflict as error:
            self._taken[error.child] = obj.key
            outcome.accepted = Finding(Type.ACCEPTED, False, Reason.NAME_CONFLICT, str(error))
        except Conflict:
            raise  # somebody was faster: nothing is wrong, the next try sees it
        except ApiError as error:
            outcome.failed = error
            if is_refusal(error):
                outcome.accepted = Finding(Type.ACCEPTED, False, Reason.REFUSED, error.message)
        if outcome.failed or not outcome.accepted.ok:
            return outcome  # these pods are not made: no Deployment tells whom a Secret concerns
        outcome.lacks = self.references.lacks(pod, obj.namespace, own)
        # While the Deployment was on its way, nobody could know by it whom a Secret concerns.
        outcome.again = digest != self.references.digest(pod, obj.namespace, own)
        return outcome

    async def _report(
        self, obj: Object, findings: Sequence[Finding], word: Phase, extra: dict[str, Any]
    ) -> None:
        await report(self.client, self.events, obj, findings, word, extra)

    def deployment(self, resource: Workload) -> Object | None:
        """The resource's Deployment, once it has had its first rollout."""
        return self._child(DEPLOYMENT, resource)

    def _child(self, kind: ResourceType, resource: Workload) -> Object | None:
        """The child of a kind, if it is there and the resource's own."""
        found = self.cache.get(kind, child_name(resource), resource.namespace)
        controller = found and controller_of(found)
        return found if controller and controller.uid == resource.metadata.uid else None

    def _availability(self, resource: Workload) -> Availability:
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
            route = self._child(HTTP_ROUTE, resource)
        return routed(
            resource,
            route.status if route else None,
            installed=self.cache.synced(HTTP_ROUTE),
            generation=route.metadata.generation if route else 0,
            unrouted=plan.unrouted,
            conflict=plan.route_conflict,
        )


def _kept(obj: Object) -> dict[str, Any]:
    """What a status says besides what each report says anew."""
    return {name: value for name, value in obj.status.items() if name not in REPORTED}


def _identity(obj: Object) -> Metadata:
    """All of a resource that its children's names and labels follow from."""
    return Metadata(name=obj.name, namespace=obj.namespace, uid=obj.uid)


def annotated(deployment: Manifest, digest: str) -> Manifest:
    """The Deployment with the state of what its pods refer to, so that a change of it rolls."""
    if not digest:
        return deployment
    spec = deployment["spec"]
    metadata = spec["template"]["metadata"]
    annotations = {**metadata.get("annotations", {}), ANNOTATION: digest}
    template = {**spec["template"], "metadata": {**metadata, "annotations": annotations}}
    return {**deployment, "spec": {**spec, "template": template}}


def is_refusal(error: ApiError) -> bool:
    """Whether only a change of the spec can help: a child that the API server finds wrong."""
    untyped = UNTYPED in error.message and NOT_YET not in error.message
    return untyped or isinstance(error, Invalid)


def workload_key(namespace: str, labels: dict[str, str]) -> str:
    """The key under which a workload's pods are indexed."""
    return "/".join((namespace, *(labels[key] for key in sorted(labels))))
