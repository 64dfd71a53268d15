"""Each example does what its first lines say; 01 also as its reader runs it."""

import asyncio
import contextlib
import importlib.util
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from structlog.testing import capture_logs

from kaos.runtime import (
    CONFIG_MAP,
    DEPLOYMENT,
    POD,
    SERVICE,
    Client,
    ClusterConfig,
    Manager,
    NotFound,
    Object,
    Resource,
    ResourceType,
    TerminalError,
    UnknownKind,
)
from kaos.testing.definitions import undefine
from kaos.testing.waiting import eventually

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
Run = Callable[[Manager], Awaitable[Manager]]
Define = Callable[..., Awaitable[None]]


def load(number: str) -> ModuleType:
    (path,) = [path for path in EXAMPLES if path.name.startswith(number)]
    spec = importlib.util.spec_from_file_location(f"example_{number}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Pydantic looks types up in the module of a class.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class Bench:
    """An example at work, and a user beside it."""

    def __init__(
        self, config: ClusterConfig, client: Client, run: Run, define: Define, *, real: bool
    ) -> None:
        self.real = real
        self.client = client
        self.namespace = config.namespace
        self.config = config
        self._run = run
        self._define = define

    async def start(self, setup: Callable[[Manager], Any], *kinds: Any) -> Manager:
        await self._define(*kinds)
        manager = Manager(self.config)
        manager.add(setup(manager))
        return await self._run(manager)

    async def create(self, kind: Resource, name: str, **fields: Any) -> Object:
        return await self.client.create(ResourceType.of(kind).body(name, self.namespace, **fields))

    async def get(self, kind: Resource, name: str) -> Object | None:
        try:
            return await self.client.get(kind, name, self.namespace)
        except NotFound:
            return None

    async def serve(self, name: str) -> None:
        """Make a Deployment's pods ready, as a node would."""
        found = await self.client.get(DEPLOYMENT, name, self.namespace)
        replicas, labels = int(found.spec["replicas"]), found.spec["selector"]["matchLabels"]
        if not self.real:
            await self._status(DEPLOYMENT, name, {"replicas": replicas, "readyReplicas": replicas})
            return
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        pods: list[Object] = []

        async def all_there() -> bool:
            pods[:] = await self.client.list(POD, self.namespace, label_selector=selector)
            return len(pods) == replicas

        # Its controllers may just have lost their API server, to the tests before.
        await eventually(all_there, within=60)
        ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        for pod in pods:
            await self._status(POD, pod.name, ready)

    async def _status(self, kind: Resource, name: str, status: dict[str, Any]) -> None:
        body = {"status": status}
        await self.client.patch(kind, name, self.namespace, body, subresource="status")

    async def until(self, kind: Resource, name: str, holds: Callable[[Any], Any]) -> None:
        """Wait until this holds of an object, which is None while it is not there."""

        async def check() -> bool:
            return bool(holds(await self.get(kind, name)))

        await eventually(check, within=60 if self.real else 10)

    async def delete_with(self, owner: Object, kind: Resource, child: str) -> None:
        """Delete an owner; the child goes with it, or on a real cluster soon will.

        A real garbage collector looks only every 30 s which kinds there are.
        """
        found = await self.client.get(kind, child, self.namespace)
        assert [reference.uid for reference in found.metadata.owner_references] == [owner.uid]
        await self.client.delete(owner, owner.name, self.namespace)
        if not self.real:
            await self.until(kind, child, lambda o: o is None)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with capture_logs():
        yield


@pytest.fixture
async def bench(
    request: pytest.FixtureRequest,
    kaos_api: ClusterConfig,
    kaos_client: Client,
    kaos_run: Run,
    kaos_define: Define,
) -> Bench:
    real = bool(request.config.getoption("--kaos-kubeconfig"))
    if real:
        # More than any node has: no kubelet says anything about pods that we make ready ourselves.
        limits = [{"type": "Container", "defaultRequest": {"cpu": "1000"}}]
        body = {"apiVersion": "v1", "kind": "LimitRange", "spec": {"limits": limits}}
        await kaos_client.create(
            {**body, "metadata": {"name": "l", "namespace": kaos_api.namespace}}
        )
    return Bench(kaos_api, kaos_client, kaos_run, kaos_define, real=real)


@asynccontextmanager
async def program(path: Path, kubeconfig: Path) -> AsyncIterator[None]:
    """An example as its reader runs it; it must end well when it is told to."""
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, path),
        env={**os.environ, "KUBECONFIG": str(kubeconfig)},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield
        running.terminate()
        async with asyncio.timeout(10):
            assert await running.wait() == 0
    finally:
        if running.returncode is None:
            running.kill()
            await running.wait()


def deployment(**annotations: str) -> dict[str, Any]:
    labels = {"app": "web"}
    container = {"name": "web", "image": "web:1"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    spec = {"replicas": 3, "selector": {"matchLabels": labels}, "template": template}
    return {"metadata": {"annotations": annotations}, "spec": spec}


def test_the_first_example_is_short() -> None:
    lines = EXAMPLES[0].read_text().splitlines()
    assert len([line for line in lines if line.strip()]) == 27  # as the README says


@pytest.mark.parametrize("page", ["README.md", "docs/runtime.md"])
def test_the_front_pages_show_the_first_example(page: str) -> None:
    assert f"```py\n{EXAMPLES[0].read_text()}```" in (ROOT / page).read_text()


async def test_01_copies_follow_their_source(bench: Bench) -> None:
    example = load("01")
    await bench.start(example.mirrors, example.Mirror)
    await bench.create(CONFIG_MAP, "source", data={"k": "1"})
    spec = {"source": "source", "copies": ["a", "b"]}
    mirror = await bench.create(example.Mirror, "m", spec=spec)
    await bench.until(CONFIG_MAP, "b", lambda o: o and o.get("data") == {"k": "1"})
    await bench.client.patch(CONFIG_MAP, "source", bench.namespace, {"data": {"k": "2"}})
    await bench.until(CONFIG_MAP, "a", lambda o: o.get("data") == {"k": "2"})
    await bench.client.delete(CONFIG_MAP, "a", bench.namespace)
    await bench.until(CONFIG_MAP, "a", lambda o: o and not o.deleting)
    only = {"spec": {"copies": ["b"]}}
    await bench.client.patch(example.Mirror, "m", bench.namespace, only)
    await bench.until(CONFIG_MAP, "a", lambda o: o is None)
    await bench.delete_with(mirror, CONFIG_MAP, "b")
    assert await bench.get(CONFIG_MAP, "source")


@pytest.mark.process
async def test_01_runs_as_a_program(bench: Bench, kaos_kubeconfig: Path) -> None:
    example = load("01")
    spec = {"source": "source", "copies": ["a"]}

    async def created() -> bool:
        with contextlib.suppress(NotFound, UnknownKind):  # it defines its kind itself
            await bench.create(example.Mirror, "m", spec=spec)
            return True
        return False

    async with program(EXAMPLES[0], kaos_kubeconfig):
        await bench.create(CONFIG_MAP, "source", data={"k": "1"})
        await eventually(created, within=20)
        await bench.until(CONFIG_MAP, "a", lambda o: o and o.get("data") == {"k": "1"})
    await undefine(bench.client, str(ResourceType.of(example.Mirror)))


async def test_02_a_website_has_its_children_and_says_when_it_serves(bench: Bench) -> None:
    example = load("02")
    await bench.start(example.websites, example.Website)
    site = await bench.create(example.Website, "shop", spec={"image": "nginx", "replicas": 2})
    assert site.spec["port"] == 80
    await bench.until(DEPLOYMENT, "shop", lambda o: o and o.spec["replicas"] == 2)
    await bench.until(SERVICE, "shop", lambda o: o and o.spec["ports"][0]["targetPort"] == "http")

    def says(reason: str, ready: int) -> Callable[[Object], bool]:
        def check(obj: Object) -> bool:
            (ready_condition,) = obj.status.get("conditions") or [{}]
            told = (ready_condition.get("reason"), obj.status.get("readyReplicas"))
            return told == (reason, ready)

        return check

    await bench.until(example.Website, "shop", says("Starting", 0))
    await bench.serve("shop")
    await bench.until(example.Website, "shop", says("Serving", 2))
    await bench.client.patch(DEPLOYMENT, "shop", bench.namespace, {"spec": {"replicas": 9}})
    await bench.until(DEPLOYMENT, "shop", lambda o: o.spec["replicas"] == 2)
    await bench.delete_with(site, SERVICE, "shop")


async def test_03_a_folder_goes_with_its_bucket(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUCKETS", str(tmp_path))
    example = load("03")
    await bench.start(example.buckets, example.Bucket)
    bucket = await bench.create(example.Bucket, "b")
    folder = example.folder(bucket)
    await eventually(folder.is_dir)
    (folder / "file").write_text("kept until it goes")
    await bench.client.delete(example.Bucket, "b", bench.namespace)
    await bench.until(example.Bucket, "b", lambda o: o is None)
    assert not folder.exists()


async def test_04_a_change_of_a_config_map_restarts_who_uses_it(bench: Bench) -> None:
    example = load("04")
    await bench.start(example.restarts)
    await bench.create(CONFIG_MAP, "settings", data={"k": "1"})
    await bench.create(DEPLOYMENT, "web", **deployment(**{example.ANNOTATION: "settings, texts"}))
    await bench.create(DEPLOYMENT, "other", **deployment())

    def digest(obj: Object | None) -> str:
        assert obj is not None
        template = obj.spec["template"]["metadata"]
        return str((template.get("annotations") or {}).get(example.HASH, ""))

    await bench.create(CONFIG_MAP, "texts", data={"t": "1"})
    await bench.until(DEPLOYMENT, "web", digest)
    before = digest(await bench.get(DEPLOYMENT, "web"))
    await bench.client.patch(CONFIG_MAP, "texts", bench.namespace, {"data": {"t": "2"}})
    await bench.until(DEPLOYMENT, "web", lambda o: digest(o) != before)
    assert digest(await bench.get(DEPLOYMENT, "other")) == ""


@pytest.mark.process
async def test_05_deployments_sleep_outside_of_their_hours(
    bench: Bench, kaos_kubeconfig: Path
) -> None:
    example = load("05")
    at_work, off = {example.HOURS: "0-24"}, {example.HOURS: "0-0"}
    # As a program: kr8s never closes its connections.
    async with program(EXAMPLES[4], kaos_kubeconfig):
        await bench.create(DEPLOYMENT, "web", **deployment(**at_work))
        await bench.create(DEPLOYMENT, "night", **deployment(**off))
        await bench.until(DEPLOYMENT, "night", lambda o: o.spec["replicas"] == 0)
        awake = {"metadata": {"annotations": at_work}}
        await bench.client.patch(DEPLOYMENT, "night", bench.namespace, awake)
        await bench.until(DEPLOYMENT, "night", lambda o: o.spec["replicas"] == 3)
        web = await bench.get(DEPLOYMENT, "web")
        assert web is not None
        assert web.spec["replicas"] == 3


def test_05_hours_are_read() -> None:
    example = load("05")
    morning, night = datetime(2026, 1, 1, 7, tzinfo=UTC), datetime(2026, 1, 1, 19, tzinfo=UTC)
    assert example.awake("7-19", morning)
    assert not example.awake("7-19", night)
    with pytest.raises(TerminalError, match="expected two hours"):
        example.awake("always", night)
