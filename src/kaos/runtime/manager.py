"""The manager: one client, one cache and any number of controllers, started and stopped in order.

Start: probes and metrics, then caches (on standby replicas too), then events, then, once the lease
is held, the controllers. Stop, in the reverse: controllers end the reconciles under way (cancelled
after the grace period), events are sent, watches end, probes end, and the lease is released last.

Guarantees: that order also when the caller is cancelled, when a part fails, or when the lease is
lost (then without grace, or no more of it: another replica may be at work). One kind that cannot be
listed stops only the controllers that need it, and /readyz names it.
Does not: install signal handlers; cancel `run` (asyncio.Runner and anyio do so for SIGINT) or use
`run_until_signal`.
"""

import signal
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import anyio
import anyio.abc
import structlog

from kaos.runtime import collector
from kaos.runtime.cache import Cache
from kaos.runtime.client import Client
from kaos.runtime.config import ClusterConfig
from kaos.runtime.controller import Controller
from kaos.runtime.errors import LeadershipLost, RuntimeFailure
from kaos.runtime.events import EventRecorder, instance_name
from kaos.runtime.health import HttpServer, application, serve_http
from kaos.runtime.informer import Informer
from kaos.runtime.leader import Elector, LeaderElection
from kaos.runtime.metrics import Metrics
from kaos.runtime.pool import HttpTransport
from kaos.runtime.resources import Resource
from kaos.runtime.selection import Selection
from kaos.runtime.transport import Transport

_FILLED_WITHIN = 120.0
_LAST_EVENTS = 2.0
_HTTP_ENDS_IN = 1.5
_log = structlog.get_logger("kaos.runtime")


class Beside(Protocol):
    """What runs beside the controllers, on standby replicas too: `webhooks.Webhooks`, say."""

    @property
    def name(self) -> str:
        """What its check under /readyz is called."""
        ...

    def not_ready(self) -> str:
        """Why it does not work yet; "" when it does."""
        ...

    async def run(self, client: Client, metrics: Metrics, stop: anyio.Event) -> None:
        """Run until `stop` is set. The client may write without the lease."""
        ...


class Manager:
    """Client, cache, event recorder and controllers, started and stopped in order.

    Args:
        config: The API server.
        field_manager: The name our writes are known by.
        namespaces: Watch only these; default: all.
        leader_election: Run the controllers only while this lease is held.
        http: Serve probes and metrics here; default: not at all.
        graceful_timeout: Seconds that reconciles under way get to end; 0 cancels them at once.
        transport: Another transport, e.g. of a test.
        tune_collector: Whether this process is ours alone, so that its garbage collector may be
            set for a large cache; see `collector`.
    """

    def __init__(
        self,
        config: ClusterConfig,
        *,
        field_manager: str = "kaos-runtime",
        namespaces: Sequence[str] = (),
        leader_election: LeaderElection | None = None,
        http: HttpServer | None = None,
        graceful_timeout: float = 30.0,
        transport: Transport | None = None,
        tune_collector: bool = False,
    ) -> None:
        self.metrics = Metrics()
        self._transport = transport or HttpTransport(config, self.metrics)
        self.client = Client(self._transport, field_manager=field_manager)
        self.cache = Cache(self.client, namespaces=namespaces, metrics=self.metrics)
        instance = instance_name(field_manager)
        self.events = EventRecorder(self.client, controller=field_manager, instance=instance)
        self._controllers: dict[str, Controller] = {}
        self._required: list[Informer] = []
        self._beside: list[Beside] = []
        self._unguarded = Client(self._transport, field_manager=field_manager)
        self._elector: Elector | None = None
        self._lease_name = ""
        if leader_election is not None:
            self._elector = Elector(self._unguarded, leader_election)
            self._lease_name = leader_election.name
            self.metrics.leader.labels(self._lease_name).set(0)
            self.client.guard(self._elector.check)
        self._http = http
        self._grace = graceful_timeout
        self._tune_collector = tune_collector
        self._running = False

    def add(self, *controllers: Controller) -> None:
        """Add controllers; before `run`."""
        if self._running:
            raise RuntimeError("controllers are added before the manager runs")
        for controller in controllers:
            if controller.name in self._controllers:
                raise ValueError(f"there is a controller named {controller.name!r} already")
            self._controllers[controller.name] = controller
            controller.attach(self.client, self.cache, self.metrics)

    def beside(self, *services: Beside) -> None:
        """Run these too: before the caches start, until they have ended, with or without the lease.

        Args:
            services: Webhooks, or what else is to be there on every replica.
        """
        if self._running:
            raise RuntimeError("services are added before the manager runs")
        self._beside += services

    def watch(
        self, resource: Resource, *, optional: bool = False, select: Selection | None = None
    ) -> None:
        """Keep a kind in the cache, with or without a controller.

        Args:
            resource: The kind.
            optional: Whether its CRD may be missing; else /readyz fails until it is listed.
            select: What of it is kept, for all controllers; default: all. Before `add`.
        """
        informer = self.cache.informer(resource, select)
        if not optional:
            self._required.append(informer)

    async def run(self, *, started: anyio.Event | None = None) -> None:
        """Run until cancelled.

        Args:
            started: Set when the controllers' kinds are synced and the workers run.

        Raises:
            LeadershipLost: When the lease could not be renewed; nothing of ours runs any more.
        """
        if self._running:
            raise RuntimeError("the manager runs already")
        self._running = True
        stop = anyio.Event()
        failed: list[Exception] = []
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._supervise, stop, started, failed, group.cancel_scope)
                try:
                    await anyio.sleep_forever()
                finally:
                    stop.set()
        finally:
            self._running = False
        if failed:
            raise failed[0]

    async def _supervise(
        self,
        stop: anyio.Event,
        started: anyio.Event | None,
        failed: list[Exception],
        caller: anyio.CancelScope,
    ) -> None:
        """All parts, out of reach of the caller's cancellation: `stop` is how they learn of it."""
        with anyio.CancelScope(shield=True):
            try:
                async with anyio.create_task_group() as group:
                    lease, caches, events, work = (_Part(stop, failed) for _ in range(4))
                    # The HTTP server closes its connections itself when it is asked to end.
                    probes = _Part(stop, failed, patience=_HTTP_ENDS_IN)
                    for part in (lease, probes, caches, events, work):
                        await group.start(part.run)
                    if self._http is not None:
                        app = application(self._healthz(), self.readiness(), self.metrics.registry)
                        probes.start(serve_http, app, self._http, probes.ending)
                    for service in self._beside:
                        probes.start(service.run, self._unguarded, self.metrics, probes.ending)
                    caches.start(self.cache.run)
                    if self._tune_collector:
                        caches.start(self._fill)
                    events.start(self.events.run)
                    grace = anyio.CancelScope()
                    work.start(self._lead, stop, work, lease, grace, started)
                    await stop.wait()
                    await self._stop(work, grace)
                    for part in (events, caches, probes, lease):
                        await part.end()
                    await self._release(failed)
            finally:
                await self._transport.close()
        caller.cancel()

    async def _lead(
        self,
        stop: anyio.Event,
        work: "_Part",
        lease: "_Part",
        grace: anyio.CancelScope,
        started: anyio.Event | None,
    ) -> None:
        if self._elector is not None:
            await self._elector.acquire()
            self.metrics.leader.labels(self._lease_name).set(1)
            lease.start(self._renew, self._elector, grace)
            # A watch may lag behind what the leader before us has seen and done.
            self.cache.refresh()
        for controller in self._controllers.values():
            work.start(self._control, controller, stop)
        for controller in self._controllers.values():
            await controller.started.wait()
        for informer in self._required:
            await informer.wait_synced()
        if started is not None:
            started.set()

    async def _control(self, controller: Controller, stop: anyio.Event) -> None:
        await controller.run()
        if not stop.is_set():
            raise RuntimeFailure(f"controller {controller.name!r} ended before it was asked to")

    async def _renew(self, elector: Elector, grace: anyio.CancelScope) -> None:
        try:
            await elector.renew()
        finally:
            grace.cancel()

    async def _fill(self) -> None:
        with collector.filling(), anyio.move_on_after(_FILLED_WITHIN):
            for informer in self.cache.informers():
                await informer.wait_decided()

    async def _stop(self, work: "_Part", grace: anyio.CancelScope) -> None:
        """End the controllers; `grace` is cancelled when the lease is lost, also meanwhile."""
        _log.info("manager.stopping", grace=0.0 if grace.cancel_called else self._grace)
        for controller in self._controllers.values():
            controller.stop()
        grace.deadline = anyio.current_time() + self._grace
        with grace:
            for controller in self._controllers.values():
                await controller.drained()
        await work.end()
        with anyio.move_on_after(_LAST_EVENTS):
            await self.events.flush()

    async def _release(self, failed: list[Exception]) -> None:
        if self._elector is None:
            return
        self.metrics.leader.labels(self._lease_name).set(0)
        if not any(isinstance(error, LeadershipLost) for error in failed):
            await self._elector.release()

    def _healthz(self) -> dict[str, Callable[[], str]]:
        return {"ping": lambda: ""}

    def readiness(self) -> dict[str, Callable[[], str]]:
        """The checks behind /readyz; each answers "" when all is well, else what is wrong."""
        checks = {"kinds": self.not_ready} | {s.name: s.not_ready for s in self._beside}
        if self._elector is not None:
            elector = self._elector
            checks["lease"] = lambda: "" if elector.healthy() else "the lease cannot be reached"
        return checks

    def not_ready(self) -> str:
        """The kinds that are needed and not listed yet, and why; "" when there are none."""
        waits = [informer for informer in self._required if not informer.synced]
        for controller in self._controllers.values():
            waits += controller.unsynced()
        return "; ".join(sorted({_why(informer) for informer in waits}))


class _Part:
    """Tasks that end together. When one fails, everything is asked to stop, in order."""

    def __init__(
        self, stop: anyio.Event, failed: list[Exception], *, patience: float = 0.0
    ) -> None:
        self.ending = anyio.Event()
        self._patience = patience
        self._stop = stop
        self._failed = failed
        self._running = 0
        self._idle = anyio.Event()
        self._ended = anyio.Event()
        self._group: anyio.abc.TaskGroup | None = None

    async def run(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Host the tasks until `end`."""
        async with anyio.create_task_group() as self._group:
            task_status.started()
            await self.ending.wait()
            if self._running:
                with anyio.move_on_after(self._patience):
                    await self._idle.wait()
            self._group.cancel_scope.cancel()
        self._ended.set()

    def start(self, function: Callable[..., Awaitable[None]], *args: object) -> None:
        """Run this beside the others."""
        assert self._group is not None  # noqa: S101 - parts run before anything is started
        self._running += 1
        self._group.start_soon(self._guard, function, args)

    async def end(self) -> None:
        """End the tasks and wait for them."""
        self.ending.set()
        await self._ended.wait()

    async def _guard(
        self, function: Callable[..., Awaitable[None]], args: tuple[object, ...]
    ) -> None:
        try:
            await function(*args)
        except Exception as error:  # noqa: BLE001 - kept, and raised by `run` after an orderly stop
            _log.error("manager.failed", error=str(error))
            self._failed.append(error)
            self._stop.set()
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()


def _why(informer: Informer) -> str:
    reason = informer.last_error or "not listed yet"
    return f"{informer.resource}: {reason}"


async def run_until_signal(manager: Manager, *, started: anyio.Event | None = None) -> None:
    """Run the manager until SIGTERM or SIGINT, then stop it in order."""
    async with anyio.create_task_group() as group:

        async def run() -> None:
            await manager.run(started=started)
            group.cancel_scope.cancel()

        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            group.start_soon(run)
            async for received in signals:
                _log.info("manager.signal", signal=received.name)
                break
        group.cancel_scope.cancel()
