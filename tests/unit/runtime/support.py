"""Helpers of the runtime's tests: a manager on the fake server, recording reconcilers."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio

from kaos.runtime import (
    CONFIG_MAP,
    ClusterConfig,
    LeaderElection,
    Manager,
    Object,
    Request,
    ResourceType,
    Result,
)
from tests.unit.runtime.fake import Collection, FakeServer

THING = ResourceType("example.com", "v1", "Thing", "things")
THINGS = "/apis/example.com/v1/things"
CONFIG_MAPS = "/api/v1/configmaps"
LEASES = "/apis/coordination.k8s.io/v1/leases"

Act = Callable[[Request], Awaitable[Result | None]]


class Recorder:
    """A reconciler that notes when it was asked for what, and then does as told."""

    def __init__(self, act: Act | None = None) -> None:
        self.calls: list[tuple[float, Request]] = []
        self.act = act

    async def reconcile(self, request: Request, /) -> Result | None:
        self.calls.append((asyncio.get_running_loop().time(), request))
        return await self.act(request) if self.act is not None else None

    @property
    def names(self) -> list[str]:
        return [request.name for _, request in self.calls]


class Finalizing(Recorder):
    """A recorder with a clean-up."""

    def __init__(self, act: Act | None = None) -> None:
        super().__init__(act)
        self.finalized: list[str] = []
        self.failures = 0

    async def finalize(self, obj: Object, /) -> None:
        self.finalized.append(obj.name)
        if self.failures:
            self.failures -= 1
            raise ConnectionError("the thing outside did not answer")


def things(server: FakeServer) -> Collection:
    return server.collection(THINGS, "Thing")


def config_maps(server: FakeServer) -> Collection:
    return server.collection(CONFIG_MAPS, "ConfigMap")


def empty() -> FakeServer:
    """A server that has things and ConfigMaps, and none of them."""
    made = FakeServer()
    things(made)
    config_maps(made)
    return made


def manager(server: FakeServer, election: LeaderElection | None = None, **kwargs: Any) -> Manager:
    return Manager(
        ClusterConfig.direct("http://fake"),
        transport=server,
        leader_election=election,
        **kwargs,
    )


@asynccontextmanager
async def running(made: Manager, *, wait: bool = True) -> AsyncIterator[Manager]:
    """The manager while it runs; waits until its controllers do."""
    started = anyio.Event()
    async with anyio.create_task_group() as group:

        async def run() -> None:
            await made.run(started=started)

        group.start_soon(run)
        if wait:
            await started.wait()
        yield made
        group.cancel_scope.cancel()


async def settle(seconds: float = 0.5) -> None:
    """Let happen what happens within so long; virtual time, so it costs nothing."""
    await asyncio.sleep(seconds)


def child_of(owner: Object, name: str, **fields: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": CONFIG_MAP.kind,
        "metadata": {"name": name, "namespace": owner.namespace},
        **fields,
    }
