"""A cluster for the reconcilers, new for each test."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from kaos import api
from kaos.local import gateway_api
from kaos.local.apiserver import APIServer
from kaos.reconcilers import FIELD_MANAGER, Settings, controllers
from kaos.runtime import Client, ClusterConfig, Manager
from tests.unit.reconcilers.harness import Cluster, Logs

TOKEN = "t"


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    """The cluster lives in a task of its own: pytest ends a fixture in another than it began."""
    ready: asyncio.Future[Cluster] = asyncio.get_running_loop().create_future()
    done = asyncio.Event()

    async def host() -> None:
        async with running() as found:
            ready.set_result(found)
            await done.wait()

    task = asyncio.create_task(host())
    await asyncio.wait((task, ready), return_when=asyncio.FIRST_COMPLETED)
    if not ready.done():
        await task
    yield ready.result()
    done.set()
    await task


@asynccontextmanager
async def running() -> AsyncIterator[Cluster]:
    """An API server with our kinds and the Gateway API's, and the controllers on it."""
    server = APIServer(token=TOKEN)
    server.node = logs = Logs()
    async with server.serve() as url:
        config = ClusterConfig.direct(url, TOKEN)
        async with Client.connect(config, field_manager="test") as client:
            for body in (*api.crds(), *gateway_api.crds()):
                await client.apply(body)
            manager = Manager(config, field_manager=FIELD_MANAGER)
            manager.add(*controllers(manager, Settings()))
            started = anyio.Event()

            async def run() -> None:
                await manager.run(started=started)

            async with anyio.create_task_group() as group:
                group.start_soon(run)
                with anyio.fail_after(10):
                    await started.wait()
                yield Cluster(client, manager, logs)
                group.cancel_scope.cancel()
