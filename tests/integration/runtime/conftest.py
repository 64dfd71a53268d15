"""The server these tests run on: an embedded one that can be killed, or a real one.

`kaos_api` is that server here, so all fixtures of `kaos.testing` use it.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from kaos.runtime import NAMESPACE, Client, ClusterConfig
from tests.chaos.processes import Cluster, Server, embedded
from tests.chaos.users import insist


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Keep logs in memory: these tests make hundreds of expected failures."""
    with capture_logs():
        yield


@pytest.fixture
def real(request: pytest.FixtureRequest) -> bool:
    """Whether the server is somebody else's."""
    return bool(request.config.getoption("--kaos-kubeconfig"))


@pytest.fixture
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Server]:
    """An API server that a test may kill."""
    if kubeconfig := request.config.getoption("--kaos-kubeconfig"):
        config = await ClusterConfig.load(Path(kubeconfig))
        yield Cluster(config, request.config.getoption("--restart-command"))
        return
    async with embedded(tmp_path) as started:
        yield started


@pytest.fixture
def killable(request: pytest.FixtureRequest, server: Server, real: bool) -> Server:
    """The same, for tests that cannot do without."""
    if real and not request.config.getoption("--restart-command"):
        pytest.skip("needs --restart-command, the command that kills and starts the API server")
    return server


@pytest.fixture
async def kaos_api(server: Server, real: bool) -> AsyncIterator[ClusterConfig]:
    """See `kaos.testing`."""
    config = server.config
    config.namespace = f"test-{secrets.token_hex(4)}"
    async with Client.connect(config) as client:
        body = NAMESPACE.body(config.namespace)
        await asyncio.wait_for(insist(lambda: client.apply(body)), 20)  # it may be starting
        yield config
        if real:
            await client.delete(NAMESPACE, config.namespace)
