"""A cluster for the reconcilers, new for each test."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from kaos import api
from kaos.local import gateway_api
from kaos.local.apiserver import APIServer
from kaos.reconcilers import FIELD_MANAGER, Settings, controllers
from kaos.runtime import Client, ClusterConfig, Manager
from kaos.testing.running import hosted
from kaos.testing.running import running as managing
from tests.unit.reconcilers.harness import Cluster, Logs

TOKEN = "t"


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with hosted(running()) as found:
        yield found


@asynccontextmanager
async def running(settings: Settings | None = None) -> AsyncIterator[Cluster]:
    """An API server with our kinds and the Gateway API's, and the controllers on it."""
    server = APIServer(token=TOKEN)
    server.node = logs = Logs()
    async with server.serve() as url:
        config = ClusterConfig.direct(url, TOKEN)
        async with Client.connect(config, field_manager="test") as client:
            for body in (*api.crds(), *gateway_api.crds()):
                await client.apply(body)
            manager = Manager(config, field_manager=FIELD_MANAGER)
            manager.add(*controllers(manager, settings or Settings()))
            async with managing(manager):
                yield Cluster(client, manager, logs)
