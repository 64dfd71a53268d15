"""One pod, from its binding to its removal: the task that runs its containers.

Guarantees: init containers in order, each to its success, before the others (those that stay, with
restartPolicy Always, are waited for until they have started); the pod's status is written by this
task alone and follows every change; files of Secrets and ConfigMaps follow those in some seconds
(by looking again, as the kubelet does); on deletion the containers end within the grace period and
only then the Pod object, its ports, folders and logs go.

Does not: move a pod, or evict one.
"""

import asyncio
import contextlib
import functools
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import structlog

from kaos.local.node import ports, sources
from kaos.local.node.containers import Container, ContainerTools, PodSetting, Restart
from kaos.local.node.environment import declared_ports
from kaos.local.node.images import ImageNotRunnable
from kaos.local.node.logs import PodLogs
from kaos.local.node.podrecord import PodWriter, previous_state, started_at
from kaos.local.node.status import ContainerState, Waiting, pod_status
from kaos.local.node.volumes import VolumeError, Volumes, holds_sources
from kaos.runtime import (
    PERSISTENT_VOLUME_CLAIM,
    Client,
    EventRecorder,
    NotFound,
    Object,
    RuntimeFailure,
)

log = structlog.get_logger("kaos.node")

_DRAIN_SECONDS = 0.1
_REPORT_RETRY = 1.0
_VOLUME_RETRY, _VOLUME_RETRY_LONGEST = 0.5, 10.0
_VOLUME_REFRESH = 10.0
DEFAULT_GRACE = 30.0


@dataclass(frozen=True, slots=True)
class PodTools:
    """What a pod needs of its node."""

    client: Client
    events: EventRecorder
    node_name: str
    volumes: Volumes
    ports: ports.PortPool
    containers: ContainerTools
    logs: PodLogs


class PodWorker:
    """Runs one pod."""

    def __init__(self, pod: Object, tools: PodTools) -> None:
        self.uid = pod.uid
        self.key = pod.key
        self.host_ports: dict[int, int] = {}
        self.pod = pod
        self._pod = pod.to_dict()
        self._tools = tools
        self._writer = PodWriter(tools.client, pod)
        self._started_at = started_at(self._pod)
        self._abandoned = False
        self._done = False
        self._init: list[Container] = []
        self._main: list[Container] = []
        self._waiting = Waiting()
        self._stops: asyncio.Queue[float] = asyncio.Queue()
        self._stopping = asyncio.Event()
        self._changed = asyncio.Event()
        self.reported = asyncio.Event()
        """Set once the status says what this worker knows, not what an earlier node knew."""

    def update(self, pod: Object) -> None:
        """Take note of the pod as the API has it now."""
        self.pod, self._pod = pod, pod.to_dict()
        self._changed.set()

    def request_stop(self, grace: float, *, abandon: bool = False) -> None:
        """Begin to end the pod; a second call with a shorter time shortens it. Never waits.

        Args:
            grace: Seconds that its processes have.
            abandon: The node stops, not the pod: its object and status stay as they are, so that
                the next cluster process goes on with it.
        """
        self._abandoned = self._abandoned or abandon
        self._stopping.set()
        self._stops.put_nowait(grace)

    async def run(self) -> None:
        """Run the pod until its containers are done for good or it was stopped."""
        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(self._report_changes()),
                tasks.create_task(self._obey_stops()),
                tasks.create_task(self._keep_volumes()),
            ]
            self._changed.set()
            await self._live()
            self._done = True
            for task in background:
                task.cancel()
        await self._report()

    @property
    def stopped(self) -> bool:
        """Whether it was asked to end, rather than being done by itself."""
        return self._stopping.is_set()

    @property
    def abandoned(self) -> bool:
        """Whether the node stops, and the pod stays for the next one."""
        return self._abandoned

    async def remove(self) -> None:
        """Remove what the pod had on this machine, and its object if it still exists."""
        self._tools.ports.release(self.host_ports.values())
        await asyncio.to_thread(self._tools.volumes.remove_pod, self.uid)
        await asyncio.to_thread(self._tools.logs.remove, self._pod)
        await self._writer.remove()

    # The life of a pod

    async def _live(self) -> None:
        setting = await self._admit()
        if setting is None:
            return
        async with asyncio.TaskGroup() as tasks:
            self._make_containers(setting)
            for container in self._init:
                if self._stopping.is_set():
                    break
                if container.state.sidecar:
                    tasks.create_task(container.run())
                    await _first(container.started.wait(), self._stopping.wait())
                else:
                    await container.run()
                    if not container.state.succeeded:
                        break  # restartPolicy Never: the pod has failed
            else:
                if not self._stopping.is_set():
                    async with asyncio.TaskGroup() as mains:  # one that cannot be run ends all
                        for container in self._main:
                            mains.create_task(container.run())
            if not self._stopping.is_set():
                await self._stop_all(setting.grace)  # sidecars end with what they serve

    async def _admit(self) -> PodSetting | None:
        """Bind the pod, give it ports and volumes; None when it is stopped before that is done."""
        spec = self._pod["spec"]
        containers = [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]
        known = ports.recorded(self._pod["metadata"].get("annotations") or {})
        for port in [*declared_ports(containers), *self._image_ports(containers)]:
            if port not in self.host_ports:
                self.host_ports[port] = self._tools.ports.take(known.get(port))
        await self._writer.bind(self._tools.node_name, ports.record(self.host_ports))
        folders = await self._set_up_volumes()
        if folders is None:
            return None
        grace = spec.get("terminationGracePeriodSeconds")
        return PodSetting(
            pod=self._pod,
            ports=self.host_ports,
            folders=folders,
            load_sources=functools.partial(sources.load, self._tools.client, self._pod),
            grace=DEFAULT_GRACE if grace is None else float(grace),
            event=self._event,
            changed=self._changed.set,
        )

    def _image_ports(self, containers: Sequence[Mapping[str, Any]]) -> list[int]:
        found: list[int] = []
        for container in containers:
            try:
                found += self._tools.containers.images[container.get("image", "")].ports
            except ImageNotRunnable:
                continue  # said by the container itself
        return found

    async def _set_up_volumes(self) -> dict[str, Path] | None:
        delay, reported = _VOLUME_RETRY, ""
        while not self._stopping.is_set():
            try:
                return await self._write_volumes()
            except VolumeError as error:
                if str(error) != reported:
                    reported = str(error)
                    self._event("Warning", "FailedMount", reported)
                    self._waiting = Waiting("ContainerCreating", reported)
                    self._changed.set()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay)
            delay = min(delay * 2, _VOLUME_RETRY_LONGEST)
        return None

    async def _write_volumes(self) -> dict[str, Path]:
        loaded = await sources.load(self._tools.client, self._pod)
        claims = await self._claims()
        return self._tools.volumes.set_up(self._pod, loaded, claims.__contains__)

    async def _keep_volumes(self) -> None:
        """Bring news of Secrets and ConfigMaps into the files of a running pod, until cancelled."""
        if not any(holds_sources(volume) for volume in self._pod["spec"].get("volumes") or []):
            return
        while True:
            await asyncio.sleep(_VOLUME_REFRESH)
            # One that is gone leaves its files as they are, as with the kubelet; look again later.
            with contextlib.suppress(VolumeError, RuntimeFailure):
                await self._write_volumes()

    async def _claims(self) -> set[str]:
        found = set()
        for volume in self._pod["spec"].get("volumes") or []:
            if name := (volume.get("persistentVolumeClaim") or {}).get("claimName"):
                try:
                    await self._tools.client.get(
                        PERSISTENT_VOLUME_CLAIM, name, self._pod["metadata"]["namespace"]
                    )
                except NotFound:
                    continue
                found.add(name)
        return found

    def _make_containers(self, setting: PodSetting) -> None:
        spec = self._pod["spec"]
        policy: Restart = spec.get("restartPolicy") or "Always"
        for container in spec.get("initContainers") or []:
            sidecar = container.get("restartPolicy") == "Always"
            restart: Restart = "OnFailure" if policy == "Always" else policy
            self._init.append(
                self._container(container, setting, "Always" if sidecar else restart, sidecar)
            )
        for container in spec.get("containers") or []:
            made = self._container(container, setting, policy)
            if self._init:
                made.state = made.state.with_(state=Waiting("PodInitializing"))
            self._main.append(made)

    def _container(
        self, spec: Mapping[str, Any], setting: PodSetting, restart: Restart, sidecar: bool = False
    ) -> Container:
        state = previous_state(self._pod, spec, init=sidecar or spec in self._init_specs())
        return Container(
            spec,
            state.with_(sidecar=sidecar),
            setting,
            self._tools.containers,
            logs=self._tools.logs.of(self._pod, spec["name"]),
            working_folder=self._tools.volumes.working_folder(self.uid, spec["name"]),
            restart=restart,
            attempt=state.restarts,
        )

    def _init_specs(self) -> list[Mapping[str, Any]]:
        return self._pod["spec"].get("initContainers") or []

    # Ending

    async def _obey_stops(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            while True:
                tasks.create_task(self._stop_after_drain(await self._stops.get()))

    async def _stop_after_drain(self, grace: float) -> None:
        """Stop, but let the Services notice first, so that no new request meets a closed port."""
        if not self._abandoned and grace > _DRAIN_SECONDS:
            await asyncio.sleep(_DRAIN_SECONDS)
            grace -= _DRAIN_SECONDS
        await self._stop_all(grace)

    async def _stop_all(self, grace: float) -> None:
        sidecars = [c for c in self._init if c.state.sidecar]
        others = [c for c in self._init if not c.state.sidecar]
        clock = asyncio.get_running_loop().time
        deadline = clock() + grace
        await asyncio.gather(*(c.stop(grace) for c in [*self._main, *others]))
        for container in reversed(sidecars):
            await container.stop(max(0.0, deadline - clock()))

    # Reporting

    async def _report_changes(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._report()
            except RuntimeFailure as error:
                log.warning("pod status not written", pod=str(self.key), error=str(error))
                await asyncio.sleep(_REPORT_RETRY)
                self._changed.set()

    async def _report(self) -> None:
        if not self._abandoned:
            await self._writer.write(self._status())
            self.reported.set()

    def _status(self) -> dict[str, Any]:
        return pod_status(
            self._pod,
            [c.state for c in self._init] or self._unmade("initContainers"),
            [c.state for c in self._main] or self._unmade("containers"),
            started_at=self._started_at,
            now=datetime.now(UTC),
            ended=self._done and self.stopped,
        )

    def _unmade(self, group: str) -> list[ContainerState]:
        return [
            previous_state(self._pod, spec, init=group == "initContainers").with_(
                state=self._waiting
            )
            for spec in self._pod["spec"].get(group) or []
        ]

    def _event(self, kind: Literal["Normal", "Warning"], reason: str, note: str) -> None:
        self._tools.events.event(self.pod, type=kind, reason=reason, note=note)


async def _first(*waits: Coroutine[Any, Any, Any]) -> None:
    """Wait for the first of several; the others are cancelled."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
