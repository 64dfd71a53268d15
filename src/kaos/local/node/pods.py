"""The pods of this node: each Pod object becomes a task that runs it (`podworker`).

Guarantees: one worker per pod uid, so that a pod that was deleted and made again under its name is
another pod; a worker that fails for a reason of ours is logged and started again; when the node
stops, every process is given a short grace and then killed, and the Pod objects stay as they are
for the next cluster process.
"""

import asyncio
import contextvars
import functools
from datetime import UTC, datetime
from typing import Any

import structlog
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus

from kaos.local.node.podrecord import PodWriter, previous_state, started_at
from kaos.local.node.podworker import DEFAULT_GRACE, PodTools, PodWorker
from kaos.local.node.status import pod_status
from kaos.runtime import POD, Cache, Object, Request, Result

log = structlog.get_logger("kaos.node")

_ENDED = ("Succeeded", "Failed")
_GONE_GRACE = 2.0  # for the processes of a pod whose object was removed by force
_RETRY_SECONDS = 2.0
_SETTLE_SECONDS = 5.0
_KILL_SECONDS = 5.0  # from SIGKILL to the end of a worker, at most


class Pods:
    """Reconciler of Pod objects, and owner of the tasks that run them."""

    def __init__(self, cache: Cache, tools: PodTools, *, shutdown_grace: float) -> None:
        self._cache = cache
        self._tools = tools
        self._shutdown_grace = shutdown_grace
        self._workers: dict[str, PodWorker] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._stopping = asyncio.Event()

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Host the workers until `stop`; when cancelled, all processes are killed at once."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            for request in {pod.key for pod in self._cache.list(POD)}:
                await self.reconcile(request)  # those that were reconciled before we ran
            await self.settled()
            task_status.started()
            await self._stopping.wait()
            self._group = None
            for worker in self._workers.values():
                worker.request_stop(self._shutdown_grace, abandon=True)
            if tasks := list(self._tasks.values()):
                await asyncio.wait(tasks, timeout=self._shutdown_grace + _KILL_SECONDS)
            for task in tasks:
                task.cancel()

    async def settled(self) -> None:
        """Wait until no pod's status is one that an earlier cluster process wrote.

        Bounded, for a server that refuses a write must not keep the others waiting.
        """
        waits = [asyncio.ensure_future(w.reported.wait()) for w in self._workers.values()]
        if not waits:
            return
        try:
            await asyncio.wait(waits, timeout=_SETTLE_SECONDS)
        finally:
            for wait in waits:
                wait.cancel()

    def stop(self) -> None:
        """Start no pod any more and end all processes; `run` returns when that is done."""
        self._stopping.set()

    async def reconcile(self, request: Request, /) -> Result | None:
        """Start, update or stop the worker of a pod."""
        pod = self._cache.get(POD, request.name, request.namespace)
        for worker in [w for w in self._workers.values() if w.key == request]:
            if pod is None or worker.uid != pod.uid:
                await self._lost(worker)
        if pod is None or pod.spec.get("nodeName", self._tools.node_name) != self._tools.node_name:
            return None
        worker_of = self._workers.get(pod.uid)
        if worker_of is not None and pod.uid in self._tasks:
            worker_of.update(pod)
            if pod.deleting:
                worker_of.request_stop(_grace(pod))
        elif pod.deleting:
            await self._remove_unstarted(pod)
        elif pod.status.get("phase") not in _ENDED and self._group is not None:
            self._start(pod)
        return None

    def _start(self, pod: Object) -> None:
        assert self._group is not None  # noqa: S101 - asked by the caller
        worker = PodWorker(pod, self._tools)
        self._workers[pod.uid] = worker
        # A context of its own: what the worker writes is not written by the reconcile that
        # happened to start it, and must not be taken for its echo.
        task = self._group.create_task(self._work(worker), context=contextvars.Context())
        self._tasks[pod.uid] = task
        task.add_done_callback(functools.partial(self._finished, pod.uid))

    def _finished(self, uid: str, _task: "asyncio.Task[None]") -> None:
        self._tasks.pop(uid, None)

    async def _work(self, worker: PodWorker) -> None:
        while True:
            try:
                await worker.run()
                if worker.stopped and not worker.abandoned:
                    await worker.remove()
                    self._workers.pop(worker.uid, None)
                return
            except Exception as error:
                # A pod that the node fails at must not take the other pods with it.
                log.exception("pod worker failed, starting it again", pod=str(worker.key))
                note = f"error of the node, which tries again: {_leaf(error)!r}"
                self._tools.events.event(worker.pod, type="Warning", reason="FailedSync", note=note)
            await asyncio.sleep(_RETRY_SECONDS)
            self._tools.ports.release(worker.host_ports.values())
            pod = self._cache.get(POD, worker.key.name, worker.key.namespace)
            again = PodWorker(pod if pod and pod.uid == worker.uid else worker.pod, self._tools)
            if worker.stopped or again.pod.deleting or pod is None:
                again.request_stop(_GONE_GRACE, abandon=worker.abandoned)
            worker = self._workers[worker.uid] = again

    async def _lost(self, worker: PodWorker) -> None:
        """The object of a worker is gone."""
        if worker.uid in self._tasks:
            worker.request_stop(_GONE_GRACE)
        else:
            await worker.remove()
            self._workers.pop(worker.uid, None)

    async def _remove_unstarted(self, pod: Object) -> None:
        """Remove a pod that is being deleted and of which nothing runs here."""
        if pod.status.get("phase") not in _ENDED:
            await PodWriter(self._tools.client, pod).write(self._ended_status(pod))
        worker = self._workers.pop(pod.uid, None) or PodWorker(pod, self._tools)
        await worker.remove()

    def _ended_status(self, pod: Object) -> dict[str, Any]:
        body = pod.to_dict()
        spec = body["spec"]
        return pod_status(
            body,
            [previous_state(body, c, init=True) for c in spec.get("initContainers") or []],
            [previous_state(body, c) for c in spec.get("containers") or []],
            started_at=started_at(body),
            now=datetime.now(UTC),
            ended=True,
        )


def _leaf(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _grace(pod: Object) -> float:
    seconds = pod.metadata.deletion_grace_period_seconds
    return DEFAULT_GRACE if seconds is None else float(seconds)
