"""The fixtures, used as a project of somebody else would."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs

from kaos.runtime import (
    CONFIG_MAP,
    CUSTOM_RESOURCE_DEFINITION,
    NAMESPACE,
    Client,
    ClusterConfig,
    Controller,
    CustomResource,
    Manager,
    NotFound,
    Request,
    ResourceType,
    Result,
    Unreachable,
    define,
)
from kaos.runtime.transport import HttpRequest
from kaos.testing.definitions import defined, undefine
from kaos.testing.faults import Close, FaultProxy, Rule
from kaos.testing.inprocess import CONFIG, InProcess
from kaos.testing.running import hosted, running
from kaos.testing.waiting import eventually

pytestmark = pytest.mark.process

pytest_plugins = ["pytester"]


def config_map(name: str, namespace: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}


class Counting:
    def __init__(self) -> None:
        self.names: list[str] = []
        self.times: list[float] = []

    async def reconcile(self, request: Request, /) -> Result:
        self.names.append(request.name)
        self.times.append(asyncio.get_running_loop().time())
        return Result(requeue_after=3600)


async def test_a_manager_for_the_length_of_a_test(
    kaos_api: ClusterConfig,
    kaos_client: Client,
    kaos_run: Callable[[Manager], Awaitable[Manager]],
) -> None:
    counting = Counting()
    manager = Manager(kaos_api, namespaces=[kaos_api.namespace])
    manager.add(Controller("counting", counting, for_=CONFIG_MAP))
    await kaos_run(manager)
    await kaos_client.create(config_map("a", kaos_api.namespace))
    await eventually(lambda: "a" in counting.names)  # a real server adds one of its own
    assert kaos_api.namespace in [n.name for n in await kaos_client.list(NAMESPACE)]


class Lid(CustomResource):
    GROUP, VERSION, KIND, PLURAL = "fixtures.kaos.tools", "v1", "Lid", "lids"


async def test_a_kind_is_there_for_a_test_and_goes_with_its_objects(
    kaos_api: ClusterConfig, kaos_client: Client
) -> None:
    lid = ResourceType.of(Lid)
    body = lid.body("a", kaos_api.namespace, metadata={"finalizers": ["example.com/left"]})
    async with defined(kaos_client, Lid):
        await kaos_client.create(body)  # a manager that stopped has left a finalizer on it
    with pytest.raises(NotFound):
        await kaos_client.list(Lid)


async def test_a_definition_of_somebody_elses_is_left_alone(
    kaos_api: ClusterConfig, kaos_client: Client, kaos_define: Callable[..., Awaitable[None]]
) -> None:
    name = str(ResourceType.of(Lid))
    await define(kaos_api, Lid)
    try:
        with pytest.raises(RuntimeError, match=f"{name} is defined on this cluster already"):
            await kaos_define(Lid)
        assert (await kaos_client.get(CUSTOM_RESOURCE_DEFINITION, name)).name == name
    finally:
        await undefine(kaos_client, name)


async def test_faults_before_the_api_server(kaos_faults: FaultProxy, kaos_client: Client) -> None:
    namespace = kaos_faults.config.namespace
    await kaos_client.create(config_map("a", namespace))
    async with Client.connect(kaos_faults.config) as client:
        with kaos_faults.having(Rule(Close(processed=True))), pytest.raises(Unreachable):
            await client.create(config_map("b", namespace))
    names = {found.name for found in await kaos_client.list(CONFIG_MAP, namespace)}
    assert names >= {"a", "b"}  # a real one adds one of its own


async def test_a_day_on_a_virtual_clock(kaos_in_process: InProcess, kaos_clock: Any) -> None:
    counting = Counting()
    manager = Manager(CONFIG, transport=kaos_in_process)
    manager.add(Controller("counting", counting, for_=CONFIG_MAP))
    with capture_logs():
        async with running(manager):
            await manager.client.create(config_map("a", "default"))
            await asyncio.sleep(24 * 3600 + 60)
    assert len(counting.times) == 25
    assert counting.times[-1] - counting.times[0] == pytest.approx(24 * 3600, abs=1)
    assert kaos_clock >= 24 * 3600


async def test_a_server_that_fails_in_process_gives_no_answer(kaos_clock: Any) -> None:
    """Whoever read the rest of its answer waited for good."""
    request = HttpRequest("GET", "/", timeout=5)

    async def breaks(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{", "more_body": True})
        raise RuntimeError("no disk")

    async def hangs(*_: object) -> None:
        await asyncio.Event().wait()

    with pytest.raises(Unreachable, match="no disk"):
        await InProcess(breaks).request(request)
    with pytest.raises(Unreachable, match="no answer in 5 s"):
        await InProcess(hangs).request(request)
    assert kaos_clock == 5


async def test_owners_take_their_children_with_them_in_process(kaos_in_process: InProcess) -> None:
    async with Client(kaos_in_process) as client:
        owner = await client.create(config_map("owner", "default"))
        child = config_map("child", "default")
        reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.uid}
        child["metadata"]["ownerReferences"] = [reference]
        await client.create(child)
        await client.delete(CONFIG_MAP, "owner", "default")

        async def nothing_left() -> bool:
            return not await client.list(CONFIG_MAP, "default")

        await eventually(nothing_left)


async def test_a_hosted_context_begins_and_ends_in_one_task() -> None:
    tasks: list[Any] = []

    @asynccontextmanager
    async def context() -> AsyncIterator[str]:
        async with anyio.create_task_group():
            tasks.append(asyncio.current_task())
            yield "value"
            tasks.append(asyncio.current_task())

    host = hosted(context())
    assert await asyncio.create_task(host.__aenter__()) == "value"
    await asyncio.create_task(host.__aexit__(None, None, None))
    assert tasks[0] is tasks[1] is not asyncio.current_task()


async def test_a_hosted_context_that_cannot_begin_says_why() -> None:
    @asynccontextmanager
    async def context() -> AsyncIterator[None]:
        if tasks := asyncio.all_tasks():
            raise OSError(f"no port left for {len(tasks)}")
        yield

    with pytest.raises(OSError, match="no port left"):
        async with hosted(context()):
            pass


async def test_a_manager_that_cannot_start_names_what_it_waits_for() -> None:
    manager = Manager(ClusterConfig.direct("http://127.0.0.1:1"))
    manager.watch(CONFIG_MAP)
    with capture_logs(), pytest.raises(TimeoutError, match=r"configmaps: .*127\.0\.0\.1:1"):
        async with running(manager, within=0.3):
            pass


def test_a_manager_that_fails_in_the_middle_fails_its_test(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function")
    pytester.makepyfile(
        """
        import asyncio, pytest
        from kaos.runtime import Manager

        class Failing(Manager):
            async def run(self, *, started=None):
                started.set()
                await asyncio.sleep(0.05)
                raise LookupError("it broke")

        @pytest.mark.asyncio
        async def test_it(kaos_api, kaos_run):
            await kaos_run(Failing(kaos_api))
            await asyncio.sleep(0.2)
        """
    )
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*LookupError: it broke*"])


def test_without_pytest_asyncio_the_plugin_is_no_burden(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(): pass")
    result = pytester.runpytest_subprocess("-p", "no:asyncio", "-p", "no:looptime", "--fixtures")
    assert result.ret == 0
    assert "scripted_model" in result.stdout.str()
    assert "kaos_api" not in result.stdout.str()
