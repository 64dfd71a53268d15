"""A controller: changes of some kinds in, reconciles of one kind out.

Guarantees: one object is never reconciled twice at the same time; a change that comes during its
reconcile causes another one; an exception is logged, counted and tried again after a delay that
doubles, and so is a CancelledError that is not our own cancellation (it ended workers one by one);
a change that the reconcile of an object made itself does not cause another reconcile of that object
(it has seen the answer). Work begins only when every kind that is not optional has been listed, so
a reconciler never takes "not loaded yet" for "not there". Somebody's edit or deletion of an object
goes before creations and events of children, and those before what a list showed at the start: with
5,000 objects applied at once, an edit of one waited for all of them.
Does not: pass the object. A reconciler reads the newest state from the cache, not the state of some
event that may be old by the time its turn comes.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence

import anyio
import structlog
from structlog.contextvars import bind_contextvars

from kaos.runtime.apply import ApplySet
from kaos.runtime.backoff import Backoff
from kaos.runtime.cache import Cache
from kaos.runtime.client import Client, Origin, origin
from kaos.runtime.codec import Object
from kaos.runtime.declare import Owns, Predicate, Reconcile, Reconciler, Result, Watches
from kaos.runtime.errors import (
    ApiError,
    Conflict,
    NotLeader,
    RuntimeFailure,
    TerminalError,
)
from kaos.runtime.finalizers import CleanUp
from kaos.runtime.informer import Handler, Informer
from kaos.runtime.metrics import RESULTS, Metrics
from kaos.runtime.predicates import anything, spec_changed
from kaos.runtime.queue import HIGH, LOW, NORMAL, QueueMetrics, QueueShutDown, Work, WorkQueue
from kaos.runtime.resources import Request, Resource, ResourceType, split_api_version
from kaos.runtime.selection import Selection
from kaos.runtime.store import Change
from kaos.runtime.tracing import span, traced

PAUSE_ANNOTATION = "kaos.tools/paused"
_TURN = 0.002
_COMPLAIN_AFTER = 10.0
_COMPLAIN_AT_LEAST_EVERY = 300.0
_log = structlog.get_logger("kaos.runtime")


class Controller:
    """Runs a reconciler for the objects of one kind.

    Args:
        name: A unique name, for logs, metrics and the default finalizer.
        reconciler: What to run: a `Reconciler`, or a function like its `reconcile`.
        for_: The kind it reconciles.
        owns: Kinds of its children; `Result(children=)` may hold what is to be of these.
        watches: Other kinds that matter.
        workers: How many objects are reconciled at the same time.
        reconcile_timeout: Seconds after which a reconcile is cancelled and counts as failed.
        predicate: Which changes of its own kind count; default: `predicates.spec_changed`.
        finalizer: The finalizer's name, when the reconciler has a `finalize` method.
        pause_annotation: Objects that carry it with the value "true" are left alone.
        select: What of its own kind the cache keeps; see `Selection`.
        backoff: How long failed reconciles wait.
    """

    def __init__(
        self,
        name: str,
        reconciler: Reconciler | Reconcile,
        *,
        for_: Resource,
        owns: Sequence[Resource | Owns] = (),
        watches: Sequence[Watches] = (),
        workers: int = 1,
        reconcile_timeout: float | None = None,
        predicate: Predicate | None = None,
        finalizer: str = "",
        pause_annotation: str = PAUSE_ANNOTATION,
        select: Selection | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        if workers < 1:
            raise ValueError(f"controller {name!r}: at least one worker is needed")
        self.name = name
        self.resource = ResourceType.of(for_)
        self.finalizer = finalizer or f"{self.resource.group or 'kaos.tools'}/{name}"
        self._reconciler: Reconcile = (
            reconciler.reconcile if isinstance(reconciler, Reconciler) else reconciler
        )
        self._finalize: Callable[[Object], Awaitable[None]] | None
        self._finalize = getattr(reconciler, "finalize", None)
        self._clean_up: CleanUp | None = None
        self._owns = [o if isinstance(o, Owns) else Owns(o) for o in owns]
        self._watches = list(watches)
        self._workers = workers
        self._timeout = reconcile_timeout
        self._predicate = predicate or spec_changed
        self._pause = pause_annotation
        self._select = select
        self._backoff = backoff
        self._log = _log.bind(controller=name)
        self._required: list[Informer] = []
        self._optional: list[Informer] = []
        self._turn_ends = 0.0
        self._turn_over = False
        self.started = anyio.Event()

    def attach(self, client: Client, cache: Cache, metrics: Metrics) -> None:
        """Take part in a manager: called once, by `Manager.add`."""
        self._client, self._cache, self._metrics = client, cache, metrics
        self._queue: WorkQueue[Request] = WorkQueue(
            QueueMetrics(metrics, self.name), backoff=self._backoff
        )
        metrics.controller(self.name, self._workers)
        self._results = {r: metrics.reconcile_total.labels(self.name, r) for r in RESULTS}
        self._took = metrics.reconcile_time.labels(self.name)
        active = metrics.active_workers.labels(self.name)
        active.set_function(lambda: self._queue.working)
        self._informer = cache.informer(self.resource, self._select)
        self._required.append(self._informer)
        if self._finalize is not None:
            self._clean_up = CleanUp(client, self.resource, self.finalizer, self._finalize)
        self._informer.add_handler(self._on_own)
        self._children = ApplySet(client, cache, kinds=[owned.resource for owned in self._owns])
        for owned in self._owns:
            self._follow(owned, self._handler(self._owners, owned.predicate))
        for watch in self._watches:
            self._follow(watch, self._handler(watch.to_requests, watch.predicate))

    def unsynced(self) -> list[Informer]:
        """The kinds this controller needs and does not have yet."""
        return [informer for informer in self._required if not informer.synced]

    @property
    def idle(self) -> bool:
        """Whether nothing waits to be reconciled now, and nothing is being reconciled."""
        return not self._queue and not self._queue.working

    def enqueue(self, request: Request, *, cause: str = "asked for") -> None:
        """Reconcile an object for a reason of the caller's own."""
        self._queue.add(request, cause=cause)

    async def run(self) -> None:
        """Reconcile until `stop`; when cancelled, reconciles under way are cancelled too."""
        await self._wait_synced()
        self._log.info("controller.started", workers=self._workers)
        async with anyio.create_task_group() as group:
            for _ in range(self._workers):
                group.start_soon(self._work)
            self.started.set()

    def stop(self) -> None:
        """Begin no reconcile any more; `run` returns when those under way have ended."""
        self._queue.shut_down()

    async def drained(self) -> None:
        """Wait until no reconcile is under way."""
        await self._queue.drained()

    async def _wait_synced(self) -> None:
        patience = _COMPLAIN_AFTER
        while missing := self.unsynced():
            with anyio.move_on_after(patience) as scope:
                await missing[0].wait_synced()
            if scope.cancelled_caught:
                waits = {str(i.resource): str(i.last_error or "") for i in self.unsynced()}
                self._log.warning("controller.waits", kinds=waits)
                patience = min(patience * 2, _COMPLAIN_AT_LEAST_EVERY)
        # An optional kind that can be neither listed nor ruled out (RBAC, say) must not stop us:
        # whoever reads it asks `Cache.synced` first.
        with anyio.move_on_after(_COMPLAIN_AFTER) as scope:
            for informer in self._optional:
                await informer.wait_decided()
        if scope.cancelled_caught:
            left = {
                str(i.resource): str(i.last_error or "") for i in self._optional if not i.served
            }
            self._log.warning("controller.goes_without", kinds=left)

    def _follow(self, followed: Owns | Watches, handler: Handler) -> None:
        informer = self._cache.informer(followed.resource, followed.select)
        informer.add_handler(handler)
        if followed.optional:
            self._optional.append(informer)
            informer.on_served(self._on_served(informer))
        else:
            self._required.append(informer)

    def _on_own(self, change: Change, who: Origin | None) -> None:
        key = change.latest.key
        # A standby leaves it to the leader: it would clean up much later, under a successor's feet.
        # And a kind that is not served any more leaves the cache, but its objects live on.
        sees = self.started.is_set() and self._informer.synced
        clean_up = self._clean_up if sees else None
        lost = clean_up is not None and clean_up.loses(change)
        if lost or (who != (self.name, key) and self._predicate(change.old, change.new)):
            self._queue.add(key, priority=_urgency(change), cause=_cause(change))

    def _owners(self, child: Object) -> Iterable[Request]:
        owner, resource = child.metadata.controller, self.resource
        if owner is None or owner.kind != resource.kind:
            return
        if split_api_version(owner.api_version)[0] == resource.group:
            yield Request(child.namespace if resource.namespaced else "", owner.name)

    def _handler(
        self, find: Callable[[Object], Iterable[Request]], predicate: Predicate | None
    ) -> Handler:
        counts = predicate or anything

        def handler(change: Change, who: Origin | None) -> None:
            if counts(change.old, change.new):
                self._add(change, who, find)

        return handler

    def _add(
        self, change: Change, who: Origin | None, find: Callable[[Object], Iterable[Request]]
    ) -> None:
        # The old object counts too: it may have pointed at somebody the new one does not.
        found = {r: None for obj in (change.old, change.new) if obj is not None for r in find(obj)}
        priority = LOW if change.initial else NORMAL
        for request in found:
            if who != (self.name, request):
                self._queue.add(request, priority=priority, cause=_cause(change))

    def _on_served(self, informer: Informer) -> Callable[[bool], None]:
        def callback(served: bool) -> None:
            state = "is served now" if served else "is not served any more"
            for obj in self._informer.store:
                self._queue.add(obj.key, priority=LOW, cause=f"{informer.resource} {state}")

        return callback

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        queue = self._queue
        context = _LogContext(self.name, self.resource.kind)
        while True:
            try:
                work = await queue.get()
            except QueueShutDown:
                return
            try:
                now = await self._process(work, context)
            finally:
                queue.done(work.item)
            if queue and now > self._turn_ends:
                # A reconcile without I/O never suspends; the watches need the loop as well, and
                # sooner than after one turn of each worker.
                if not self._turn_over:
                    self._turn_over = True
                    loop.call_soon(self._next_turn)
                await asyncio.sleep(0)

    def _next_turn(self) -> None:
        self._turn_over = False
        self._turn_ends = asyncio.get_running_loop().time() + _TURN

    async def _process(self, work: Work[Request], context: "_LogContext") -> float:
        """One reconcile; returns the time of its end."""
        request = work.item
        known = self._informer.store.get(request)
        context.bind(request, known.uid if known is not None else "", work.causes)
        origin.set((self.name, request))
        clock = asyncio.get_running_loop().time
        started = clock()
        try:
            attempt = self._reconcile if self._timeout is None and not traced() else self._attempt
            result, label = await attempt(request), "success"
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            label = "error"
            stray = RuntimeError("what it waited for was cancelled, but not the reconcile itself")
            stray.__cause__ = error
            self._failed(work, stray)
        except Exception as error:  # noqa: BLE001 - a reconciler may raise anything, and must not end us
            label = "error"
            self._failed(work, error)
        else:
            self._queue.forget(request)
            if result is not None and result.requeue_after is not None:
                label = "requeue_after"
                cause = f"after {result.requeue_after:g} s, as asked"
                # The edit that made it urgent has been served: the next time it is routine.
                priority = min(work.priority, NORMAL)
                self._queue.add_after(request, result.requeue_after, priority=priority, cause=cause)
        now = clock()
        self._took.observe(now - started)
        self._results[label].value += 1
        return now

    async def _attempt(self, request: Request) -> Result | None:
        """A reconcile with a deadline, a span, or both."""
        attributes = {"k8s.namespace.name": request.namespace, "k8s.object.name": request.name}
        with span(f"reconcile {self.name}", lambda: attributes):
            if self._timeout is None:
                return await self._reconcile(request)
            result: Result | None = None
            with anyio.move_on_after(self._timeout) as scope:
                result = await self._reconcile(request)
            if scope.cancelled_caught:
                self._metrics.reconcile_timeouts.labels(self.name).inc()
                raise RuntimeFailure(f"cancelled after {self._timeout:g} s")
            return result

    async def _reconcile(self, request: Request) -> Result | None:
        if self._clean_up is not None:
            await self._clean_up.of_lost(request)
        obj = self._informer.store.get(request)
        if obj is not None and obj.metadata.annotations_.get(self._pause) == "true":
            self._log.debug("reconcile.paused", request=str(request))
            return None
        if self._clean_up is not None and obj is not None and not await self._clean_up.prepare(obj):
            return None
        result = await self._reconciler(request)
        if result is not None and result.children is not None:
            owner = self._informer.store.get(request)
            if owner is not None and not owner.deleting:
                await self._children.apply(owner, result.children)
        return result

    def _failed(self, work: Work[Request], error: Exception) -> None:
        self._metrics.reconcile_errors.labels(self.name).inc()
        if _is_only(error, TerminalError):
            self._metrics.terminal_errors.labels(self.name).inc()
            self._queue.forget(work.item)
            self._log.error("reconcile.failed", error=str(error), retry=False)
            return
        if isinstance(error, ApiError) and error.namespace_ends:
            # Nothing can be created there any more, and the object itself is about to go.
            self._queue.forget(work.item)
            self._log.debug("reconcile.namespace_ends")
            return
        cause = f"retry after {type(error).__name__}"
        delay = self._queue.add_rate_limited(work.item, priority=work.priority, cause=cause)
        failed = self._log.bind(error=str(error), retry_in=delay)
        if _is_only(error, (Conflict, NotLeader)):
            failed.info("reconcile.conflict")  # somebody was faster; the next try sees it
        elif _is_only(error, (ApiError, RuntimeFailure)):
            failed.warning("reconcile.failed")
        else:
            self._metrics.reconcile_panics.labels(self.name).inc()
            failed.error("reconcile.failed", exc_info=error)


class _LogContext:
    """What every log line of a worker's reconciles carries, at a fifth of bind_contextvars' price.

    The variables are structlog's own. They live in the worker's task, and are set anew for each
    reconcile.
    """

    def __init__(self, controller: str, kind: str) -> None:
        names = ("namespace", "name", "uid", "reconcile_id", "why")
        bind_contextvars(controller=controller, kind=kind)
        bound = bind_contextvars(**dict.fromkeys(names))
        self._namespace, self._name, self._uid, self._id, self._why = (bound[n].var for n in names)

    def bind(self, request: Request, uid: str, why: tuple[str, ...]) -> None:
        self._namespace.set(request.namespace)
        self._name.set(request.name)
        self._uid.set(uid)
        self._id.set(f"{random.getrandbits(32):08x}")
        self._why.set(why)


def _is_only(error: Exception, kind: type[Exception] | tuple[type[Exception], ...]) -> bool:
    """Whether an error, or every error of a group, is of this kind."""
    if isinstance(error, ExceptionGroup):
        return error.split(kind)[1] is None
    return isinstance(error, kind)


def _urgency(change: Change) -> int:
    """How soon a change of a controller's own kind is due: edits and deletions go first."""
    if change.initial:
        # Who asked for an end waits for it since before we began to lead.
        return HIGH if change.latest.metadata.deletion_timestamp else LOW
    if change.old is None or change.new is None:
        return NORMAL
    was, now = change.old.metadata, change.new.metadata
    asked_to_go = was.deletion_timestamp != now.deletion_timestamp
    return HIGH if was.generation != now.generation or asked_to_go else NORMAL


def _cause(change: Change) -> str:
    obj = change.latest
    what = "deleted" if change.new is None else "created" if change.old is None else "changed"
    if change.initial:
        what = "listed"
    return f"{obj.kind} {obj.metadata.namespace}/{obj.metadata.name} {what}"
