"""A cluster for the reconcilers, new for each test; with `--kaos-kubeconfig` that one.

On a real cluster a test has two namespaces of its own, and controllers that see nothing else. It
must have the Gateway API, whose own definitions are not ours to make there.
"""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path

import pytest

from kaos import api
from kaos.local import gateway_api
from kaos.local.apiserver import APIServer
from kaos.reconcilers import FIELD_MANAGER, Settings, controllers
from kaos.runtime import NAMESPACE, Client, ClusterConfig, Manager
from kaos.testing.running import hosted
from kaos.testing.running import running as managing
from tests.unit.reconcilers.harness import Cluster, Logs, RealCluster

TOKEN = "t"
definitions = cache(api.crds)  # half of what it took to start a test's cluster


@pytest.fixture
async def cluster(request: pytest.FixtureRequest) -> AsyncIterator[Cluster]:
    given = request.config.getoption("--kaos-kubeconfig")
    async with hosted(real(Path(given)) if given else running()) as found:
        yield found


@asynccontextmanager
async def running(
    settings: Settings | None = None, *, gateway: bool = True
) -> AsyncIterator[Cluster]:
    """An API server with our kinds and the Gateway API's, and the controllers on it."""
    async with served(gateway=gateway) as (config, client, logs):
        namespaces = settings.namespaces if settings else ()
        manager = Manager(config, field_manager=FIELD_MANAGER, namespaces=namespaces)
        made = Cluster(client, manager, logs)
        settings = settings or Settings(namespace=made.namespace)
        manager.add(*controllers(manager, settings, ask=made.servers.ask))
        async with managing(manager):
            await client.apply(NAMESPACE.body(made.elsewhere))
            yield made


@asynccontextmanager
async def served(*, gateway: bool = True) -> AsyncIterator[tuple[ClusterConfig, Client, Logs]]:
    """An API server with our kinds and the Gateway API's, and nobody on it."""
    server = APIServer(token=TOKEN)
    if not gateway:
        without_gateway(server)
    server.node = logs = Logs()
    async with server.serve() as url:
        config = ClusterConfig.direct(url, TOKEN)
        async with Client.connect(config, field_manager="test") as client:
            for body in (*definitions(), *(gateway_api.crds() if gateway else ())):
                await client.apply(body)
            yield config, client, logs


def without_gateway(server: APIServer) -> None:
    """Take the Gateway API out of the kinds that the embedded API server always has."""
    built_in = server.registry._builtin
    for address in [key for key in built_in if key[0] == gateway_api.GROUP]:
        del built_in[address]
    server.registry._rebuild()


@asynccontextmanager
async def real(kubeconfig: Path) -> AsyncIterator[Cluster]:
    """The controllers on somebody else's cluster, in two new namespaces of it."""
    config = await ClusterConfig.load(kubeconfig)
    here = f"test-{secrets.token_hex(4)}"
    namespaces = (here, f"{here}-elsewhere")
    async with Client.connect(config, field_manager="test") as client:
        for body in (*definitions(), *map(NAMESPACE.body, namespaces)):
            await client.apply(body)
        try:
            manager = Manager(config, field_manager=FIELD_MANAGER, namespaces=namespaces)
            made = RealCluster(client, manager, *namespaces)
            manager.add(*controllers(manager, Settings(namespace=here), ask=made.servers.ask))
            async with managing(manager, within=30):
                yield made
        finally:
            for name in namespaces:
                await client.delete(NAMESPACE, name)
