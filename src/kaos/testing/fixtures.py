# ruff: noqa: PLC0415 - a session that uses none of these pays for none of them
"""The asynchronous fixtures: an API server, a client, running managers, faults, a virtual clock.

Guarantees: an API server of its own for each test; with ``--kaos-kubeconfig`` that cluster, and a
namespace of its own, which is deleted afterwards. What a fixture started has ended before the next
test begins; a manager that failed meanwhile fails its test.
Does not: remove from a real cluster what a test creates outside of its namespace, other than by
`kaos_define`.
"""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

if TYPE_CHECKING:
    from kaos.runtime import Client, ClusterConfig, CustomResource, Manager
    from kaos.testing.faults import FaultProxy
    from kaos.testing.inprocess import InProcess

    Define = Callable[..., Awaitable[None]]


@pytest_asyncio.fixture
async def kaos_api(request: pytest.FixtureRequest) -> "AsyncIterator[ClusterConfig]":
    """An API server that nobody else uses; its `namespace` is there and empty."""
    from kaos.runtime import NAMESPACE, Client, ClusterConfig

    given = request.config.getoption("--kaos-kubeconfig")
    async with AsyncExitStack() as stack:
        if given:
            config = await ClusterConfig.load(Path(given))
        else:
            from kaos.local.apiserver import APIServer
            from kaos.testing.running import hosted

            token = secrets.token_urlsafe(24)
            url = await stack.enter_async_context(hosted(APIServer(token=token).serve()))
            config = ClusterConfig.direct(url, token)
        config.namespace = f"test-{secrets.token_hex(4)}"
        client = await stack.enter_async_context(Client.connect(config))
        await client.create(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": config.namespace}}
        )
        yield config
        if given:
            await client.delete(NAMESPACE, config.namespace)


@pytest_asyncio.fixture
async def kaos_client(kaos_api: "ClusterConfig") -> "AsyncIterator[Client]":
    """A client of `kaos_api`, beside the managers': for what users and others do."""
    from kaos.runtime import Client

    async with Client.connect(kaos_api, field_manager="test") as client:
        yield client


@pytest_asyncio.fixture
async def kaos_define(kaos_client: "Client") -> "AsyncIterator[Define]":
    """A function that defines kinds until the test ends, and returns when they are served."""
    from kaos.testing.definitions import defined

    async with AsyncExitStack() as stack:

        async def define(*kinds: "type[CustomResource] | Mapping[str, Any]") -> None:
            for kind in kinds:
                await stack.enter_async_context(defined(kaos_client, kind))

        yield define


@pytest_asyncio.fixture
async def kaos_kubeconfig(
    request: pytest.FixtureRequest, kaos_api: "ClusterConfig", tmp_path: Path
) -> Path:
    """A kubeconfig for the cluster of `kaos_api`, for programs that a test starts."""
    from kaos.local import kubeconfig

    if given := request.config.getoption("--kaos-kubeconfig"):
        return Path(given)
    path = tmp_path / "kubeconfig"
    kubeconfig.write(path, kaos_api.server, await kaos_api.credentials.token())
    return path


@pytest_asyncio.fixture
async def kaos_run() -> "AsyncIterator[Callable[[Manager], Awaitable[Manager]]]":
    """A function that runs a manager until the test ends; it returns when controllers work."""
    from kaos.testing.running import running

    async with AsyncExitStack() as stack:

        async def run(manager: "Manager", *, within: float = 10.0) -> "Manager":
            return await stack.enter_async_context(running(manager, within=within))

        yield run


@pytest_asyncio.fixture
async def kaos_faults(kaos_api: "ClusterConfig") -> "AsyncIterator[FaultProxy]":
    """A proxy before `kaos_api`, without faults so far: its `config` is for the manager."""
    from kaos.testing.faults import FaultProxy

    async with FaultProxy(kaos_api) as proxy:
        yield proxy


@pytest_asyncio.fixture
async def kaos_in_process() -> "AsyncIterator[InProcess]":
    """A transport to an API server without a port, as a virtual clock needs it."""
    from kaos.testing.inprocess import in_process

    async with in_process() as transport:
        yield transport


@pytest.fixture
def kaos_clock(request: pytest.FixtureRequest) -> Any:
    """A virtual clock (looptime's) for this test: pauses take no time, and it tells how late it is.

    Compare it with numbers: seconds since the test began. Not for tests with real connections: use
    `kaos_in_process`.
    """
    request.node.add_marker(pytest.mark.looptime)
    return request.getfixturevalue("looptime")
