"""The cluster put together: what is there once it is ready, and that all of it ends."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from kaos.api import MODELS
from kaos.local import cluster
from kaos.local.restart import taken_back
from kaos.local.state import ClusterInfo, State
from kaos.runtime import GATEWAY, HTTP_ROUTE, Client, ClusterConfig, Unauthorized


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def running(state: State, *, controllers: bool = True) -> AsyncIterator[ClusterInfo]:
    stop = anyio.Event()
    ready: asyncio.Future[ClusterInfo] = asyncio.get_running_loop().create_future()
    settings = cluster.ClusterSettings(state, free_port(), controllers)
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        group.create_task(cluster.run(settings, stop=stop, ready=ready.set_result))
        yield await ready
        stop.set()


@pytest.fixture
def state(tmp_path: Path) -> State:
    made = State(tmp_path / "state")
    made.prepare()
    return made


def config(state: State, info: ClusterInfo, token: str | None = None) -> ClusterConfig:
    token = state.token() if token is None else token
    return ClusterConfig.direct(info.url, token, ca=state.certificate)


def answers(url: str) -> bool:
    host, _, port = url.rpartition("/")[2].partition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


async def test_ready_means_that_kinds_gateway_and_credentials_are_there(state: State) -> None:
    async with running(state) as info:
        async with Client.connect(config(state, info)) as client:
            for model in MODELS:
                assert await client.list(model) == []
            assert await client.list(HTTP_ROUTE) == []
            (gateway,) = await client.list(GATEWAY)
            assert (gateway.namespace, gateway.name) == ("kaos-gateway", "kaos-gateway")
            assert gateway.spec["listeners"][0]["port"] == info.gateway_port
        async with Client.connect(config(state, info, token="wrong")) as stranger:
            with pytest.raises(Unauthorized):
                await stranger.list(GATEWAY)
        assert answers(info.gateway_url)
        assert str(state.token()) in state.kubeconfig.read_text()
    assert not answers(info.url)
    assert not answers(info.gateway_url)


async def test_what_was_applied_is_there_after_a_restart(state: State) -> None:
    agent = {
        "apiVersion": "kaos.tools/v1alpha1",
        "kind": "Agent",
        "metadata": {"name": "a", "namespace": "default"},
        "spec": {"modelAPI": "m"},
    }
    for round_ in range(2):
        async with (
            running(state, controllers=False) as info,
            Client.connect(config(state, info)) as client,
        ):
            if round_ == 0:
                await client.apply(agent)
            assert [found.name for found in await client.list(MODELS[-1])] == ["a"]


async def test_what_was_ready_before_a_restart_is_not_believed_after_it(state: State) -> None:
    # `kaos up --ask` on an old state asked at once, and was told that no pod serves.
    moment = {"lastTransitionTime": "2026-11-22T10:00:00Z", "reason": "x", "message": "y"}
    ready = {"type": "Ready", "status": "True", **moment}
    accepted = {"type": "Accepted", "status": "True", **moment}
    agent = {
        "apiVersion": "kaos.tools/v1alpha1",
        "kind": "Agent",
        "metadata": {"name": "a", "namespace": "default"},
        "spec": {"modelAPI": "m"},
    }
    status = {"ready": True, "phase": "Ready", "conditions": [ready, accepted]}
    for round_ in range(2):
        async with (
            running(state, controllers=False) as info,
            Client.connect(config(state, info)) as client,
        ):
            if round_ == 0:
                await client.apply(agent)
                patch = {"status": status}
                await client.patch(MODELS[-1], "a", "default", patch, subresource="status")
            else:
                found = (await client.get(MODELS[-1], "a", "default")).status
    assert (found["ready"], found["phase"]) == (False, "Pending")
    told = {condition["type"]: condition for condition in found["conditions"]}
    assert (told["Ready"]["status"], told["Ready"]["reason"]) == ("False", "ClusterRestarted")
    assert told["Accepted"]["status"] == "True"


def test_a_pod_and_a_deployment_of_an_earlier_life_are_not_ready() -> None:
    ready = {"type": "Ready", "status": "True"}
    running_container = {"name": "c", "ready": True, "restartCount": 3}
    pod = {"conditions": [ready], "containerStatuses": [running_container], "phase": "Running"}
    assert taken_back({"kind": "Pod", "status": pod})["containerStatuses"] == [
        {"name": "c", "ready": False, "restartCount": 3}
    ]
    available = {"type": "Available", "status": "True"}
    status = {"conditions": [available], "replicas": 2, "readyReplicas": 2, "availableReplicas": 2}
    back = taken_back({"kind": "Deployment", "status": status})
    assert (back["readyReplicas"], back["availableReplicas"]) == (None, None)
    assert back["unavailableReplicas"] == 2
    assert back["conditions"][0]["status"] == "False"


async def test_a_port_that_is_taken_ends_the_cluster_with_a_clear_error(state: State) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        settings = cluster.ClusterSettings(state, taken.getsockname()[1])
        with pytest.raises(ExceptionGroup) as caught:
            await cluster.run(settings, stop=anyio.Event(), ready=lambda _: None)
    assert caught.group_contains(OSError, match="port", depth=None)


async def test_told_to_stop_before_it_is_ready_it_ends_without_a_word(state: State) -> None:
    stop = anyio.Event()
    stop.set()
    said: list[ClusterInfo] = []
    async with asyncio.timeout(20):
        await cluster.run(cluster.ClusterSettings(state, free_port()), stop=stop, ready=said.append)
    assert said == []
