"""Many agents at once: time until all are Ready, beside the API server's own limit.

Run: `python benchmarks/reconcilers/scale.py [AGENTS]` (default 5000, with 50 ModelAPIs and 200
MCPServers). Three processes: an API server (the embedded one), the controllers as they are
shipped, and this one, which applies everything, plays the Deployment controller, and measures:

- how long until all are Ready, and how many writes that took, all of them: the user's, the
  controllers', those of the played Deployment controller, and events;
- the rate of these writes beside that of a raw writer on the same server in the same run, with
  nobody else there: it writes the same objects, statuses and events into another namespace. That
  the controllers read besides, and that three processes share the machine, counts against them;
- how long an edit in the middle of it takes until it is in the Deployment: the worst of some;
- the controllers' peak memory;
- what a restart of the controllers writes when nothing has changed.

Linux only (/proc). Exit code 1 when a target is missed.
"""

import asyncio
import contextlib
import multiprocessing
import multiprocessing.connection
import sys
import time
from collections.abc import AsyncIterator, Coroutine, Iterable
from pathlib import Path
from typing import Any

import anyio

from kaos import api
from kaos.local import gateway_api
from kaos.local.apiserver import APIServer
from kaos.reconcilers import FIELD_MANAGER, Settings, controllers
from kaos.runtime import (
    DEPLOYMENT,
    HTTP_ROUTE,
    NETWORK_POLICY,
    SERVICE,
    Client,
    ClusterConfig,
    Controller,
    Manager,
    Object,
    Request,
    Result,
)
from kaos.telemetry import logs

TOKEN = "bench"
MODEL_APIS, SERVERS = 50, 200
WRITERS = 16
RAW_WRITERS = 64  # as many as it takes until more of them write no more
QUIET_SECONDS = 10
EDIT_EVERY = 2.0
DEADLINE = 480.0
RAW_AGENTS = 2500
READY = b'"ready":true'
TARGETS = {"ratio": 0.5, "edit": 1.0, "memory": 400.0}
Pipe = multiprocessing.connection.Connection


def serve(pipe: Pipe) -> None:
    """The API server's process."""
    logs.configure("WARNING", "json")

    async def run() -> None:
        async with APIServer(token=TOKEN).serve() as url:
            pipe.send(url)
            await asyncio.to_thread(pipe.recv)

    asyncio.run(run())


async def told(url: str, *, public: bool) -> list[str]:
    """The tools of servers that nobody runs."""
    del url, public
    return ["echo"]


def control(pipe: Pipe, url: str) -> None:
    """The controllers' process."""
    logs.configure("WARNING", "json")

    async def run() -> None:
        manager = Manager(ClusterConfig.direct(url, TOKEN), field_manager=FIELD_MANAGER)
        manager.add(*controllers(manager, Settings(), ask=told))
        async with running(manager):
            pipe.send("started")
            await asyncio.to_thread(pipe.recv)

    asyncio.run(run())


@contextlib.asynccontextmanager
async def running(manager: Manager) -> AsyncIterator[None]:
    started = anyio.Event()

    async def run() -> None:
        await manager.run(started=started)

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await started.wait()
        yield
        group.cancel_scope.cancel()


class Rollouts:
    """Says at once what the Deployment controller would say when all pods serve."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    async def reconcile(self, request: Request, /) -> Result | None:
        found = self._manager.cache.get(DEPLOYMENT, request.name, request.namespace)
        if found is None or found.status.get("observedGeneration") == found.metadata.generation:
            return None
        number = found.spec.get("replicas", 1)
        counts = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")
        status = {"observedGeneration": found.metadata.generation, **dict.fromkeys(counts, number)}
        await self._manager.client.patch(
            DEPLOYMENT, request.name, request.namespace, {"status": status}, subresource="status"
        )
        return None


def body(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": "kaos.tools/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}


def bodies(agents: int) -> list[dict[str, Any]]:
    upstream = {"models": ["m"], "apiBase": "http://up:8000/v1"}
    tools = {"type": "python-runtime", "config": {"mcp": "test-mcp-echo-server"}}
    found = [
        body("ModelAPI", f"api-{n}", {"mode": "Proxy", "proxyConfig": upstream})
        for n in range(MODEL_APIS)
    ]
    found += [body("MCPServer", f"tools-{n}", tools) for n in range(SERVERS)]
    for n in range(agents):
        spec = {"modelAPI": f"api-{n % MODEL_APIS}", "mcpServers": [f"tools-{n % SERVERS}"]}
        found.append(body("Agent", f"agent-{n}", spec))
    return found


async def in_parallel(work: Iterable[Coroutine[Any, Any, Any]], writers: int) -> None:
    """Run all of it, so many at a time."""
    queue = iter(work)

    async def worker() -> None:
        for one in queue:
            await one

    async with asyncio.TaskGroup() as group:
        for _ in range(writers):
            group.create_task(worker())


async def revision(client: Client) -> int:
    """How many writes the server has had: every write is one revision."""
    name = f"probe-{time.monotonic_ns()}"
    metadata = {"name": name, "namespace": "default"}
    probe = await client.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
    return probe.version


async def raw_rate(client: Client, agents: int) -> float:
    """Writes per second of somebody who only writes: the same objects, in another namespace."""
    metadata = {"name": "raw"}
    await client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    written: dict[str, list[Object]] = {}
    for kind in (api.Agent, DEPLOYMENT, SERVICE, NETWORK_POLICY, HTTP_ROUTE):
        for obj in await client.list(kind, "default"):
            written.setdefault(obj.name, []).append(obj)

    count = 0

    async def write(name: str) -> None:
        nonlocal count
        for obj in written[name]:
            metadata = {"name": name, "namespace": "raw", "labels": obj.metadata.labels}
            body = {"apiVersion": obj.api_version, "kind": obj.kind, "metadata": metadata}
            await client.apply({**body, "spec": obj.spec})
            count += 1
            if obj.kind in ("Agent", "Deployment"):
                await client.apply({**body, "status": obj.status}, subresource="status")
                count += 1
        await client.create(event(name))
        count += 1

    start = time.monotonic()
    names = (f"agent-{n}" for n in range(min(agents, RAW_AGENTS)))
    await in_parallel((write(name) for name in names), RAW_WRITERS)
    return count / (time.monotonic() - start)


def event(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"{name}.raw", "namespace": "raw"},
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "type": "Normal",
        "reason": "Ready",
        "action": "Reconcile",
        "note": "everything declared works",
        "reportingController": "raw",
        "reportingInstance": "raw-1",
        "regarding": {"apiVersion": "v1", "kind": "Agent", "name": name, "namespace": "raw"},
    }


def peak_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmHWM in /proc: this needs Linux")


class Bench:
    """One run against one server."""

    def __init__(self, url: str, agents: int) -> None:
        self.url, self.agents = url, agents
        self.manager = Manager(ClusterConfig.direct(url, TOKEN), field_manager="bench")
        self.manager.add(Controller("rollouts", Rollouts(self.manager), for_=DEPLOYMENT, workers=8))
        self.manager.watch(api.Agent)
        self.client = self.manager.client
        self.context = multiprocessing.get_context("spawn")

    def start_controllers(self) -> tuple[Any, Pipe]:
        ours, theirs = self.context.Pipe()
        process = self.context.Process(target=control, args=(theirs, self.url))
        process.start()
        return process, ours

    def ready(self) -> int:
        return sum(READY in agent.raw("status") for agent in self.manager.cache.list(api.Agent))

    async def until(self, count: int) -> None:
        async with asyncio.timeout(DEADLINE):
            while self.ready() < count:  # noqa: ASYNC110 - counting 5000 at each event would be the load
                await asyncio.sleep(0.25)

    async def edits(self) -> list[float]:
        """Edit one agent after the other while the second half is at work."""
        await self.until(self.agents // 2)
        took: list[float] = []
        while self.ready() < self.agents:
            took.append(await self.edit(f"agent-{len(took)}"))
            await asyncio.sleep(EDIT_EVERY)
        return took

    async def edit(self, name: str) -> float:
        """Seconds until a user's edit is in the Deployment."""
        start = time.monotonic()
        change = {"spec": {"config": {"description": "edited"}}}
        await self.client.patch(api.Agent, name, "default", change)
        async with asyncio.timeout(DEADLINE):
            while True:
                found = self.manager.cache.get(DEPLOYMENT, name, "default")
                if found is not None and b'"edited"' in found.raw("spec"):
                    return time.monotonic() - start
                await asyncio.sleep(0.005)

    async def run(self) -> dict[str, float]:
        for definition in (*api.crds(), *gateway_api.crds()):
            await self.client.apply(definition)
        async with running(self.manager):
            process, pipe = self.start_controllers()
            await asyncio.to_thread(pipe.recv)
            before, start = await revision(self.client), time.monotonic()
            async with asyncio.TaskGroup() as group:
                everything = (self.client.apply(one) for one in bodies(self.agents))
                group.create_task(in_parallel(everything, WRITERS))
                editing = group.create_task(self.edits())
                await self.until(self.agents)
                took = time.monotonic() - start
            writes = await revision(self.client) - before
            edits = editing.result()
            figures = {"seconds": took, "writes": writes, "edits": len(edits), "edit": max(edits)}
            figures["memory"] = peak_mb(process.pid)
            await asyncio.sleep(QUIET_SECONDS)  # the last statuses, so that the restart finds rest
            pipe.send("stop")
            await asyncio.to_thread(process.join)
            figures["resync"] = await self.resync()
            figures["lost"] = self.agents - self.ready()
        async with Client.connect(ClusterConfig.direct(self.url, TOKEN)) as raw:
            figures["ratio"] = writes / took / await raw_rate(raw, self.agents)
        return figures

    async def resync(self) -> float:
        """How many writes new controllers make of what is there."""
        before = await revision(self.client)
        process, pipe = self.start_controllers()
        await asyncio.to_thread(pipe.recv)
        await asyncio.sleep(QUIET_SECONDS + self.agents / 200)
        pipe.send("stop")
        await asyncio.to_thread(process.join)
        return await revision(self.client) - before - 1  # the probe itself


def main() -> int:
    agents = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    logs.configure("WARNING", "json")
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=serve, args=(theirs,))
    server.start()
    try:
        found = asyncio.run(Bench(ours.recv(), agents).run())
    finally:
        ours.send("stop")
        server.join(30)
    print(f"{agents} agents, {MODEL_APIS} ModelAPIs, {SERVERS} MCPServers")
    print(f"all Ready after      {found['seconds']:8.1f} s, {found['writes']:.0f} writes")
    print(f"of the server's rate {found['ratio']:8.2f}   (target {TARGETS['ratio']})")
    worst = f"{found['edit']:8.2f} s (target {TARGETS['edit']}), worst of {found['edits']}"
    print(f"an edit in the midst {worst}")
    print(f"controllers' memory  {found['memory']:8.0f} MB (target {TARGETS['memory']:.0f})")
    print(f"writes of a restart  {found['resync']:8.0f}   (target 0)")
    print(f"lost                 {found['lost']:8.0f}   (target 0)")
    good = (
        found["ratio"] >= TARGETS["ratio"]
        and found["edit"] <= TARGETS["edit"]
        and found["memory"] <= TARGETS["memory"]
        and found["resync"] == found["lost"] == 0
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
