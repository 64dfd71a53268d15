"""The front door: definitions from models, a function as reconciler, controllers as a program."""

import asyncio
import contextlib
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from pydantic import BaseModel, Field

from kaos.local.kubeconfig import write
from kaos.runtime import (
    CONFIG_MAP,
    NAMESPACE,
    Client,
    ClusterConfig,
    Controller,
    CustomResource,
    Manager,
    NotFound,
    Request,
    ResourceType,
    UnknownKind,
    crd,
    run,
)
from kaos.testing.definitions import undefine
from kaos.testing.inprocess import CONFIG, InProcess
from kaos.testing.running import running
from kaos.testing.waiting import eventually

pytestmark = pytest.mark.process


class ThingSpec(BaseModel):
    size: int = Field(default=1, ge=1)


class ThingStatus(BaseModel):
    seen: int = 0


class Thing(CustomResource):
    GROUP, VERSION, KIND, PLURAL = "example.com", "v1", "Thing", "things"
    SHORT_NAMES = ("th",)
    spec: ThingSpec
    status: ThingStatus = ThingStatus()


THING = ResourceType.of(Thing)


def test_a_body() -> None:
    assert CONFIG_MAP.body("a", "x", data={"k": "v"}, metadata={"labels": {"l": "1"}}) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "a", "namespace": "x", "labels": {"l": "1"}},
        "data": {"k": "v"},
    }
    assert NAMESPACE.body("x")["metadata"] == {"name": "x"}


def test_a_definition_says_what_the_model_says() -> None:
    made = crd(Thing)
    assert made["metadata"]["name"] == "things.example.com"
    assert made["spec"]["names"]["shortNames"] == ["th"]
    (version,) = made["spec"]["versions"]
    properties = version["schema"]["openAPIV3Schema"]["properties"]
    assert properties["spec"]["properties"]["size"] == {
        "type": "integer",
        "minimum": 1,
        "default": 1,
    }
    assert properties["status"]["properties"]["seen"] == {"type": "integer"}
    assert version["subresources"] == {"status": {}}


def test_a_definition_leaves_metadata_to_the_api_server() -> None:
    """A model that is written as a whole has a name, and a real API server refused its kind."""

    class Named(BaseModel):
        name: str
        labels: dict[str, str] = {}

    class Whole(Thing):
        metadata: Named

    (version,) = crd(Whole)["spec"]["versions"]
    properties = version["schema"]["openAPIV3Schema"]["properties"]
    assert properties["metadata"] == {"type": "object"}


async def test_a_defined_kind_is_served_and_a_function_reconciles_it(
    kaos_api: ClusterConfig, kaos_client: Client, kaos_define: Callable[..., Awaitable[None]]
) -> None:
    await kaos_define(Thing)
    namespace = kaos_api.namespace
    seen: list[Request] = []

    async def reconcile(request: Request) -> None:
        seen.append(request)

    manager = Manager(kaos_api)
    manager.add(Controller("thing", reconcile, for_=Thing))
    async with running(manager):
        await kaos_client.create(THING.body("a", namespace, spec={}))
        await eventually(lambda: seen == [Request(namespace, "a")])
        found = manager.cache.get(Thing, "a", namespace)
        assert found is not None
        assert found.as_model(Thing).spec.size == 1


async def test_a_function_has_no_finalizer(kaos_in_process: InProcess) -> None:
    async def reconcile(request: Request) -> None: ...

    manager = Manager(CONFIG, transport=kaos_in_process)
    manager.add(Controller("maps", reconcile, for_=CONFIG_MAP))
    async with running(manager):
        await manager.client.create(CONFIG_MAP.body("a", "default"))
        found = await manager.client.get(CONFIG_MAP, "a", "default")
        assert not found.metadata.finalizers


PROGRAM = """
from kaos.runtime import CONFIG_MAP, Controller, CustomResource, run
class Thing(CustomResource):
    GROUP, VERSION, KIND, PLURAL = "example.com", "v1", "Thing", "things"
def things(manager):
    async def reconcile(request):
        print("reconciled", request, flush=True)
    return Controller("things", reconcile, for_=Thing)
run(things, crds=[Thing])
"""


async def test_a_program_from_start_to_sigterm(
    kaos_api: ClusterConfig, kaos_client: Client, kaos_kubeconfig: Path
) -> None:
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-c", PROGRAM),
        env={**os.environ, "KUBECONFIG": str(kaos_kubeconfig)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert program.stdout is not None
    output: list[bytes] = []
    try:

        async def created() -> bool:
            with contextlib.suppress(NotFound, UnknownKind):
                await kaos_client.create(THING.body("a", kaos_api.namespace))
                return True
            return False

        await eventually(created, within=15)
        async with asyncio.timeout(10):
            async for line in program.stdout:
                output.append(line)
                if f"reconciled {kaos_api.namespace}/a".encode() in line:
                    break
            program.terminate()
            output.append(await program.stdout.read())
            assert await program.wait() == 0, output
    finally:
        if program.returncode is None:
            program.kill()
            await program.wait()
        await undefine(kaos_client, str(THING))


def test_no_cluster_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as told:
        run(kubeconfig=tmp_path / "missing")
    assert "missing" in str(told.value)
    assert "\n" not in str(told.value)


def test_an_unreachable_cluster_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    write(path, "http://127.0.0.1:1", "t")
    with pytest.raises(SystemExit) as told:
        run(kubeconfig=path, crds=[Thing])
    assert "127.0.0.1:1" in str(told.value)
    assert "\n" not in str(told.value)
