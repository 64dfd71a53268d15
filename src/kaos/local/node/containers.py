"""One container of a pod: start it, probe it, restart it, stop it.

Guarantees: the restart policy and back-off of the kubelet (the first restart is immediate); a
failed liveness or startup probe ends the process gracefully and then counts as an exit; nothing
is started any more once `stop` was called; every change of state is reported.

Does not: decide about the pod (`pods`), or keep anything over a restart of the cluster process but
what the pod's status says.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import aiohttp

from kaos.local.node import launch, probes
from kaos.local.node.backoff import Backoff
from kaos.local.node.environment import ConfigError, Sources, Translation, host_port_names
from kaos.local.node.images import Image, ImageNotRunnable, ImageTable
from kaos.local.node.launch import Launch, NodeVariables
from kaos.local.node.logs import LogFolder
from kaos.local.node.orphans import ProcessRecords
from kaos.local.node.process import Exit, Process, StartError, running
from kaos.local.node.status import ContainerState, Running, Terminated, Waiting, crash_loop
from kaos.local.node.volumes import VolumeError, mounts

Restart = Literal["Always", "OnFailure", "Never"]
Event = Callable[[Literal["Normal", "Warning"], str, str], None]

_CONFIG_RETRY, _CONFIG_RETRY_LONGEST = 0.25, 5.0
_START_ERROR_CODE = 128


@dataclass(frozen=True, slots=True)
class ContainerTools:
    """What a container needs of its node."""

    images: ImageTable
    records: ProcessRecords
    http: Callable[[], aiohttp.ClientSession]
    """For probes: keeps no cookies and no connections."""
    variables: NodeVariables
    restart_delay: float = 1.0


@dataclass(frozen=True, slots=True)
class PodSetting:
    """What a container needs of its pod."""

    pod: Mapping[str, Any]
    ports: Mapping[int, int]
    """Host port by container port."""
    folders: Mapping[str, Path]
    """Volumes by name."""
    load_sources: Callable[[], Awaitable[Sources]]
    grace: float
    event: Event
    changed: Callable[[], None]

    @property
    def name(self) -> str:
        """Namespace and name of the pod."""
        metadata = self.pod["metadata"]
        return f"{metadata['namespace']}/{metadata['name']}"


class Container:
    """Runs one container until it is done or stopped."""

    def __init__(
        self,
        spec: Mapping[str, Any],
        state: ContainerState,
        setting: PodSetting,
        tools: ContainerTools,
        *,
        logs: LogFolder,
        working_folder: Path,
        restart: Restart,
        attempt: int = 0,
    ) -> None:
        self.spec = spec
        self.state = state
        self._setting = setting
        self._tools = tools
        self._logs = logs
        self._working_folder = working_folder
        self._restart = restart
        self._attempt = attempt
        self._process: Process | None = None
        self._launch: Launch | None = None
        self._stopping = asyncio.Event()
        self.started = asyncio.Event()
        """Set once it has been running and has passed its startup probe."""
        self._backoff = Backoff(base=tools.restart_delay)

    @property
    def name(self) -> str:
        """The container's name."""
        return str(self.spec["name"])

    async def run(self) -> None:
        """Run to the end: until it is done and not to be restarted, or stopped."""
        while not self._stopping.is_set():
            begun = time.monotonic()
            ended = await self._once()
            if ended is None or not self._restarts(ended):
                return
            delay = self._backoff.after_run(time.monotonic() - begun)
            if delay:
                self._set(state=crash_loop(delay, self.name, self._setting.name), last=ended)
                note = f"Back-off restarting failed container {self.name}"
                self._setting.event("Warning", "BackOff", note)
                if await self._stopped_within(delay):
                    return
            self._attempt += 1
            self._set(last=ended, restarts=self._attempt)

    async def stop(self, grace: float) -> None:
        """Stop for good: the preStop hook, SIGTERM, and SIGKILL after `grace` seconds in all."""
        first = not self._stopping.is_set()
        self._stopping.set()
        process = self._process
        if process is None or process.exited:
            return
        begun = time.monotonic()
        if first and grace > 0:
            self._setting.event("Normal", "Killing", f"Stopping container {self.name}")
            await self._pre_stop(grace)
        await process.stop(max(0.0, grace - (time.monotonic() - begun)))

    # One attempt

    async def _once(self) -> Terminated | None:
        """Start once and wait for the end; None when it was stopped before it could start."""
        prepared = await self._prepare()
        if prepared is None:
            return None
        image, self._launch, translation = prepared
        log = self._logs.start(self._attempt)
        started = datetime.now(UTC)
        try:
            async with running(
                self._launch.argv,
                env=self._launch.env,
                cwd=self._launch.cwd,
                output=log.write,
            ) as process:
                self._process = process
                owner = f"{self._setting.name}/{self.name}"
                await asyncio.to_thread(self._tools.records.add, process.pid, owner)
                self._begin(process, started, image)
                ended = await self._supervise(process, image, translation)
        except StartError as error:
            self._setting.event("Warning", "Failed", f"Error: {error}")
            return self._ended(Exit(_START_ERROR_CODE), started, "StartError", str(error))
        finally:
            log.close()
            self._forget()
        return self._ended(ended, started)

    def _begin(self, process: Process, started: datetime, image: Image) -> None:
        has_startup = "startupProbe" in self.spec
        self._set(
            state=Running(started),
            started=not has_startup,
            ready=not has_startup and "readinessProbe" not in self.spec,
            image_id=image.image_id,
            container_id=f"process://{process.pid}",
        )
        self._setting.event("Normal", "Started", f"Started container {self.name}")

    def _forget(self) -> None:
        if self._process is not None:
            self._tools.records.remove(self._process.pid)
        self._process = None

    def _ended(
        self, ended: Exit, started: datetime, reason: str = "", message: str = ""
    ) -> Terminated:
        if self.spec.get("terminationMessagePolicy") == "FallbackToLogsOnError" and ended.code:
            message = message or self._logs.last(self._attempt)
        state = Terminated(
            exit_code=ended.code,
            signal=ended.signal,
            reason=reason or ("Error" if ended.code else "Completed"),
            message=message,
            started_at=started,
            finished_at=datetime.now(UTC),
            container_id=self.state.container_id,
        )
        self._set(state=state, ready=False, started=False)
        return state

    def _restarts(self, ended: Terminated) -> bool:
        if self._stopping.is_set() or self._restart == "Never":
            return False
        return self._restart == "Always" or ended.exit_code != 0

    # Preparation

    async def _prepare(self) -> tuple[Image, Launch, Translation] | None:
        """Resolve image and configuration; waits until that is possible, None when stopped."""
        reported, retry = "", _CONFIG_RETRY
        while True:
            delay: float | None = retry
            try:
                return await self._resolve()
            except ImageNotRunnable as error:
                # Nothing that could happen while the node runs makes it runnable.
                reason, message, delay = "ImageNotRunnable", str(error), None
            except (ConfigError, VolumeError) as error:
                reason, message = "CreateContainerConfigError", str(error)
            if message != reported:
                self._set(state=Waiting(reason, message))
                event = "Failed" if delay else "ImageNotRunnable"
                self._setting.event("Warning", event, f"Error: {message}")
                reported = message
            if await self._stopped_within(delay):
                return None
            retry = min(retry * 2, _CONFIG_RETRY_LONGEST)

    async def _resolve(self) -> tuple[Image, Launch, Translation]:
        image = self._tools.images[self.spec.get("image", "")]
        setting = self._setting
        translation = Translation(setting.ports, mounts(self.spec, setting.folders))
        planned = launch.plan_launch(
            self.spec,
            setting.pod,
            image,
            await setting.load_sources(),
            translation,
            variables=self._tools.variables,
            working_folder=self._working_folder,
        )
        return image, planned, translation

    async def _stopped_within(self, seconds: float | None) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
        return self._stopping.is_set()

    # Probes

    async def _supervise(self, process: Process, image: Image, translation: Translation) -> Exit:
        prober = self._prober(image, translation)
        async with asyncio.TaskGroup() as tasks:
            if self._stopping.is_set():  # `stop` came while the program was being started
                tasks.create_task(process.stop(self._setting.grace))
            probing = tasks.create_task(self._probe(process, prober))
            ended = await process.wait()
            probing.cancel()
        return ended

    async def _probe(self, process: Process, prober: probes.Prober) -> None:
        if startup := probes.Probe.of(self.spec, "startup"):
            if not await self._passes_startup(startup, process, prober):
                return
            self._set(started=True, ready="readinessProbe" not in self.spec)
        async with asyncio.TaskGroup() as tasks:
            if readiness := probes.Probe.of(self.spec, "readiness"):
                tasks.create_task(
                    probes.watch(readiness, prober.once, self._readiness, self._failed(readiness))
                )
            if liveness := probes.Probe.of(self.spec, "liveness"):
                tasks.create_task(
                    probes.watch(
                        liveness,
                        prober.once,
                        lambda ok, _message: self._kill_unless(ok, liveness, process),
                        self._failed(liveness),
                    )
                )

    async def _passes_startup(
        self, startup: probes.Probe, process: Process, prober: probes.Prober
    ) -> bool:
        passed = False

        async def decided(ok: bool, _message: str) -> bool:
            nonlocal passed
            passed = ok
            await self._kill_unless(ok, startup, process)
            return False

        await probes.watch(startup, prober.once, decided, self._failed(startup))
        return passed

    async def _readiness(self, ok: bool, _message: str) -> bool:
        self._set(ready=ok and not self._stopping.is_set())
        return True

    async def _kill_unless(self, ok: bool, probe: probes.Probe, process: Process) -> bool:
        if ok:
            return True
        note = f"Container {self.name} failed {probe.kind} probe, will be restarted"
        self._setting.event("Normal", "Killing", note)
        grace = probe.action.get("terminationGracePeriodSeconds")
        await process.stop(self._setting.grace if grace is None else float(grace))
        return False

    def _failed(self, probe: probes.Probe) -> Callable[[str], None]:
        kind = probe.kind.capitalize()
        return lambda message: self._setting.event(
            "Warning", "Unhealthy", f"{kind} probe failed: {message}"
        )

    def _prober(self, image: Image, translation: Translation) -> probes.Prober:
        launched = self._launch
        assert launched is not None  # noqa: S101 - set by the caller

        async def execute(command: Any, timeout: float) -> tuple[int, str]:
            try:
                argv = launch.exec_argv(list(command), image, translation)
            except ImageNotRunnable as error:
                raise probes.ProbeError(str(error)) from error
            return await probes.run_exec(argv, launched.env, str(launched.cwd), timeout)

        return probes.Prober(
            self._tools.http(), self._setting.ports, host_port_names(self.spec), execute
        )

    async def _pre_stop(self, grace: float) -> None:
        hook = (self.spec.get("lifecycle") or {}).get("preStop")
        if not hook or self._launch is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                if sleep := hook.get("sleep"):
                    await asyncio.sleep(float(sleep.get("seconds", 0)))
                    return
                try:
                    image = self._tools.images[self.spec["image"]]
                    translation = Translation(
                        self._setting.ports, mounts(self.spec, self._setting.folders)
                    )
                    once = self._prober(image, translation).once
                    await once(probes.Probe("preStop", hook, timeout=grace))
                except (probes.ProbeError, ImageNotRunnable) as error:
                    self._setting.event("Warning", "FailedPreStopHook", str(error))

    def _set(self, **changes: Any) -> None:
        before, self.state = self.state, self.state.with_(**changes)
        if self.state.started:
            self.started.set()
        if self.state != before:
            self._setting.changed()
