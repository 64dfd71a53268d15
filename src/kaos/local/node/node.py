"""The node: puts its parts together, and answers the API server as a kubelet's port does.

Guarantees: `run` first ends what an earlier cluster process left behind; it returns only when every
process of a pod has ended, also when it is cancelled: pods first, while the API server can still be
talked to, then the gateway and the relays, then the controllers.

Does not: own the API server or the state folder's lock.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import structlog

from kaos import __version__
from kaos.discovery import cluster_domain
from kaos.local.node import orphans
from kaos.local.node.claims import Claims
from kaos.local.node.containers import ContainerTools
from kaos.local.node.deployments import Deployments
from kaos.local.node.gateway import Gateway
from kaos.local.node.httproutes import HTTPRoutes
from kaos.local.node.images import ImageTable
from kaos.local.node.launch import NodeVariables
from kaos.local.node.logs import PodLogs
from kaos.local.node.pods import Pods
from kaos.local.node.podworker import PodTools
from kaos.local.node.ports import POD_PORTS, SERVICE_PORTS, PortPool, recorded
from kaos.local.node.register import keep_registered
from kaos.local.node.services import FIELD_MANAGER, ServiceMap, Services
from kaos.local.node.volumes import Volumes
from kaos.runtime import (
    DEPLOYMENT,
    ENDPOINT_SLICE,
    HTTP_ROUTE,
    PERSISTENT_VOLUME_CLAIM,
    POD,
    SERVICE,
    ClusterConfig,
    Controller,
    Manager,
    Object,
    Watches,
)

log = structlog.get_logger("kaos.node")

_CONNECT_SECONDS = 5.0
_STOP_CONTROLLERS = 2.0  # their reconciles are short, and nobody waits for them any more
DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"


def _environ() -> dict[str, str]:
    return dict(os.environ)


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """How a node behaves."""

    name: str = "local"
    version: str = f"v{__version__}+kaos"
    images: ImageTable | None = None
    """What it can run; default: KAOS and Ollama."""
    cluster_domain: str = field(default_factory=cluster_domain)
    environ: Mapping[str, str] = field(default_factory=_environ)
    restart_delay: float = 1.0
    """Seconds before the second restart of a container; doubles from there to five minutes."""
    shutdown_grace: float = 5.0
    """Seconds that processes have when the node stops, whatever their pod says."""


class Node:
    """Runs pods as processes of this machine.

    Args:
        config: The API server.
        folder: Where the node keeps its files; it must be nobody else's.
        gateway_port: The gateway's port; 0 for any.
        settings: Everything else.
    """

    def __init__(
        self,
        config: ClusterConfig,
        folder: Path,
        *,
        gateway_port: int = 8080,
        settings: NodeSettings | None = None,
    ) -> None:
        self._settings = settings = settings or NodeSettings()
        self._folder = folder = folder.absolute()
        self._gateway_port = gateway_port
        self._http: aiohttp.ClientSession | None = None
        manager = Manager(config, field_manager=FIELD_MANAGER, graceful_timeout=_STOP_CONTROLLERS)
        client, cache = manager.client, manager.cache
        self._manager = manager
        self._volumes = Volumes(folder)
        self._logs = PodLogs(folder / "logs")
        service_map = ServiceMap(folder / "services.json", settings.cluster_domain)
        self.service_map = service_map.path
        tools = PodTools(
            client=client,
            events=manager.events,
            node_name=settings.name,
            volumes=self._volumes,
            ports=PortPool(POD_PORTS),
            containers=self._container_tools(settings, service_map.path),
            logs=self._logs,
        )
        self._pods = Pods(cache, tools, shutdown_grace=settings.shutdown_grace)
        self._services = Services(client, cache, PortPool(SERVICE_PORTS), service_map)
        self.gateway = Gateway(self._services.backend)
        self._routes = HTTPRoutes(client, cache, self.gateway)
        self._deployments = Deployments(client, cache, manager.events, node_name=settings.name)
        self._claims = Claims(client, cache, self._volumes)
        manager.add(*self.controllers())

    def controllers(self) -> list[Controller]:
        """The node's controllers."""
        return [
            Controller("deployments", self._deployments, for_=DEPLOYMENT, owns=[POD], workers=4),
            Controller("pods", self._pods, for_=POD, workers=4),
            Controller(
                "services",
                self._services,
                for_=SERVICE,
                owns=[ENDPOINT_SLICE],
                watches=[Watches(POD, self._services.selecting)],
            ),
            Controller("claims", self._claims, for_=PERSISTENT_VOLUME_CLAIM),
            Controller(
                "httproutes",
                self._routes,
                for_=HTTP_ROUTE,
                watches=[Watches(SERVICE, self._routes.leading_to)],
            ),
        ]

    async def run(self, *, started: anyio.Event | None = None) -> None:
        """Run until cancelled; then end all processes and return.

        Args:
            started: Set when pods can run and the gateway listens.

        Raises:
            PortTaken: The gateway's port is in use.
        """
        stop = anyio.Event()
        try:
            async with anyio.create_task_group() as caller:
                caller.start_soon(self._run_shielded, stop, started, caller.cancel_scope)
                try:
                    await anyio.sleep_forever()
                finally:
                    stop.set()
        except BaseExceptionGroup as group:
            raise _single(group) from None

    async def _run_shielded(
        self, stop: anyio.Event, started: anyio.Event | None, caller: anyio.CancelScope
    ) -> None:
        """Out of reach of the caller's cancellation: `stop` is how we learn of it."""
        with anyio.CancelScope(shield=True):
            for orphan in await asyncio.to_thread(orphans.reap, self._folder):
                log.warning("ended an orphaned process", pid=orphan.pid, container=orphan.owner)
            async with contextlib.AsyncExitStack() as stack:
                self._http = await stack.enter_async_context(
                    aiohttp.ClientSession(
                        connector=aiohttp.TCPConnector(limit=0, force_close=True),
                        cookie_jar=aiohttp.DummyCookieJar(),
                    )
                )
                stack.push_async_callback(self._services.close)
                stack.push_async_callback(self.gateway.close)
                await self.gateway.start(self._gateway_port)
                await self._run_parts(stop, started)
        caller.cancel()

    async def _run_parts(self, stop: anyio.Event, started: anyio.Event | None) -> None:
        running = anyio.Event()
        async with anyio.create_task_group() as parts:

            async def manage() -> None:
                await self._manager.run(started=running)

            parts.start_soon(manage)
            parts.start_soon(
                keep_registered, self._manager.client, self._settings.name, self._settings.version
            )
            async with anyio.create_task_group() as pods:
                await _either(running, stop)
                if not stop.is_set():
                    await self._sweep()
                    await pods.start(self._pods.run)
                    if started is not None:
                        started.set()
                    await stop.wait()
                self._pods.stop()
            parts.cancel_scope.cancel()

    async def _sweep(self) -> None:
        """Remove folders and logs of pods that were deleted while no cluster process ran."""
        uids = {pod.uid for pod in self._manager.cache.list(POD)}
        await asyncio.to_thread(self._logs.keep_only, uids)
        for uid in self._volumes.known_pods():
            if uid not in uids:
                await asyncio.to_thread(self._volumes.remove_pod, uid)

    # What the API server asks a kubelet

    async def open_port(
        self, namespace: str, pod: str, port: int
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to a container port of a pod.

        Raises:
            LookupError: There is no such pod or port, or nothing listens there.
        """
        found = self._pod(namespace, pod)
        host_port = recorded(found.metadata.annotations).get(port)
        if host_port is None:
            raise LookupError(
                f"pod {namespace}/{pod} does not declare port {port} in its containers' `ports`"
            )
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                return await asyncio.open_connection("127.0.0.1", host_port)
        except (OSError, TimeoutError) as error:
            text = f"nothing listens on port {port} of pod {namespace}/{pod} ({error})"
            raise LookupError(text) from error

    async def read_logs(
        self,
        namespace: str,
        pod: str,
        container: str,
        *,
        follow: bool = False,
        tail_lines: int | None = None,
        since_seconds: int | None = None,
        timestamps: bool = False,
        previous: bool = False,
    ) -> AsyncIterator[bytes]:
        """Read a container's log; with `follow` until the container ends.

        Raises:
            LookupError: There is no such pod, container or log.
        """
        found = self._pod(namespace, pod).to_dict()
        name = _container(found, container)
        waiting = _waiting(found, name)
        # Between a crash and the next start, the attempt before the next is the latest one.
        previous = previous and waiting is None
        try:
            async for piece in self._logs.of(found, name).read(
                follow=follow,
                tail_lines=tail_lines,
                since_seconds=since_seconds,
                timestamps=timestamps,
                previous=previous,
            ):
                yield piece
        except LookupError as error:
            text = f"is waiting to start: {waiting}" if waiting else str(error)
            raise LookupError(f'container "{name}" in pod "{pod}": {text}') from error

    def _pod(self, namespace: str, name: str) -> Object:
        found = self._manager.cache.get(POD, name, namespace)
        if found is None:
            raise LookupError(f"there is no pod {namespace}/{name} on this node")
        return found

    def _session(self) -> aiohttp.ClientSession:
        assert self._http is not None, "probes run while the node runs"  # noqa: S101
        return self._http

    def _container_tools(self, settings: NodeSettings, service_map: Path) -> ContainerTools:
        images = settings.images
        return ContainerTools(
            images=images or ImageTable.default(version=__version__, environ=settings.environ),
            records=orphans.ProcessRecords(self._folder / "processes"),
            http=self._session,
            variables=NodeVariables(
                environ=settings.environ,
                node_folder=self._folder,
                service_map=service_map,
                cluster_domain=settings.cluster_domain,
            ),
            restart_delay=settings.restart_delay,
        )


def _container(pod: Mapping[str, Any], name: str) -> str:
    spec = pod.get("spec", {})
    groups = [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]
    names = [container["name"] for container in groups]
    main = [container["name"] for container in spec.get("containers") or []]
    name = name or (pod["metadata"].get("annotations") or {}).get(DEFAULT_CONTAINER, "")
    if not name and len(main) == 1:
        return str(main[0])
    shown = f"[{' '.join(names)}]"
    if not name:
        pod_name = pod["metadata"]["name"]
        raise LookupError(
            f"a container name must be specified for pod {pod_name}, choose one of: {shown}"
        )
    if name not in names:
        raise LookupError(f'container "{name}" is not one of {shown}')
    return name


def _waiting(pod: Mapping[str, Any], name: str) -> str | None:
    """What a container waits for; None when it has started, or its pod has not been taken up."""
    status = pod.get("status") or {}
    for group in ("containerStatuses", "initContainerStatuses"):
        for known in status.get(group) or []:
            if known["name"] == name and (found := known["state"].get("waiting")) is not None:
                return ": ".join(filter(None, (found.get("reason"), found.get("message"))))
    return None


def _single(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The only exception of nested groups, or the group when there are several."""
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup) and len(found.exceptions) == 1:
        found = found.exceptions[0]
    return found


async def _either(first: anyio.Event, second: anyio.Event) -> None:
    async with anyio.create_task_group() as group:

        async def wait(event: anyio.Event) -> None:
            await event.wait()
            group.cancel_scope.cancel()

        group.start_soon(wait, first)
        group.start_soon(wait, second)
