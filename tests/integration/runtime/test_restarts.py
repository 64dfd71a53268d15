"""The API server and etcd are killed and started again while 500 objects are rolled out, twice."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager

import pytest
from pydantic import BaseModel

from kaos.runtime import (
    CONFIG_MAP,
    AlreadyExists,
    ApplySet,
    Client,
    ClusterConfig,
    Controller,
    CustomResource,
    Manager,
    Object,
    Request,
    ResourceType,
    watch,
)
from kaos.testing.waiting import eventually
from tests.chaos.processes import Cluster, Server
from tests.chaos.users import insist

OBJECTS = 500
USERS = 8
WITHIN = 90.0


class ReleaseSpec(BaseModel):
    value: int


class Release(CustomResource):
    GROUP, VERSION, KIND, PLURAL = "rollout.kaos.tools", "v1", "Release", "releases"
    spec: ReleaseSpec


RELEASE = ResourceType.of(Release)
NAMES = [f"r{number:03}" for number in range(OBJECTS)]


class Releases:
    """Each has a ConfigMap with its value, and says in its status what it was when."""

    def __init__(self, manager: Manager) -> None:
        self.client, self.cache = manager.client, manager.cache
        self.children = ApplySet(self.client, self.cache, kinds=[CONFIG_MAP])
        self.done: dict[str, int] = {}

    async def reconcile(self, request: Request, /) -> None:
        release = self.cache.get(RELEASE, request.name, request.namespace)
        if release is None:
            return
        data = {"value": str(release.spec["value"])}
        child = CONFIG_MAP.body(release.name, release.namespace, data=data)
        if (await self.children.apply(release, [child])).waiting:
            return
        status = {"value": release.spec["value"], "generation": release.metadata.generation}
        if release.status != status:
            await self.client.patch(
                RELEASE, release.name, release.namespace, {"status": status}, subresource="status"
            )
        self.done[release.name] = release.metadata.generation


@asynccontextmanager
async def deletions(config: ClusterConfig) -> AsyncIterator[list[str]]:
    """The ConfigMaps that went while the block ran, by a watch beside the manager's."""
    seen: list[str] = []

    async def look() -> None:
        async with Client.connect(config) as client:
            async for change, obj in watch(client, CONFIG_MAP, config.namespace):
                seen.extend([obj.name] if change == "DELETED" else [])

    task = asyncio.create_task(look())
    try:
        yield seen
        assert not task.done(), "the watch ended"
    finally:
        task.cancel()
        await asyncio.wait([task])


async def for_all(act: Callable[[str], Awaitable[None]]) -> None:
    """Do this with each release, some at a time, each until it is certain that it happened."""
    names = iter(NAMES)

    async def work() -> None:
        for name in names:
            await insist(lambda name=name: act(name))  # type: ignore[misc]

    async with asyncio.TaskGroup() as group:
        for _ in range(USERS):
            group.create_task(work())


def versions(found: Iterable[dict[str, Object]]) -> list[dict[str, str]]:
    return [{name: obj.metadata.resource_version for name, obj in kind.items()} for kind in found]


def by_name(objects: Iterable[Object]) -> dict[str, Object]:
    return {obj.name: obj for obj in objects if obj.name != "kube-root-ca.crt"}


@pytest.mark.timeout(240)
async def test_a_rollout_of_500_objects_while_the_api_server_and_etcd_are_killed(
    request: pytest.FixtureRequest,
    killable: Server,
    real: bool,
    kaos_api: ClusterConfig,
    kaos_client: Client,
    kaos_define: Callable[..., Awaitable[None]],
    kaos_run: Callable[..., Awaitable[Manager]],
) -> None:
    await kaos_define(Release)
    namespace, client = kaos_api.namespace, kaos_client
    etcd: Server = killable
    if real and (command := request.config.getoption("--restart-etcd-command")):
        etcd = Cluster(kaos_api, command)
    manager = Manager(kaos_api, namespaces=[namespace])
    releases = Releases(manager)
    manager.add(Controller("releases", releases, for_=RELEASE, owns=[CONFIG_MAP], workers=8))
    await kaos_run(manager)

    async def create(name: str) -> None:
        try:
            await client.create(RELEASE.body(name, namespace, spec={"value": 1}))
        except AlreadyExists:
            return  # the answer was lost in the restart

    async def change(name: str) -> None:
        await client.patch(RELEASE, name, namespace, {"spec": {"value": 2}})

    async def kill_amid(part: Server, how_many: Callable[[], int]) -> None:
        await eventually(lambda: how_many() >= OBJECTS // 4, within=WITHIN)
        assert how_many() < OBJECTS, "too late: the rollout had ended"
        await part.restart()

    async def state() -> tuple[dict[str, Object], dict[str, Object]]:
        parents = await insist(lambda: client.list(RELEASE, namespace))
        children = await insist(lambda: client.list(CONFIG_MAP, namespace))
        return by_name(parents), by_name(children)

    async def rolled_out() -> bool:
        parents, _ = await state()
        seen = [p.status.get("generation") == p.metadata.generation for p in parents.values()]
        await asyncio.sleep(0.5)
        return len(seen) == OBJECTS and all(seen)

    async with deletions(kaos_api) as deleted:
        async with asyncio.TaskGroup() as group:
            group.create_task(for_all(create))
            group.create_task(kill_amid(killable, lambda: len(releases.done)))
        async with asyncio.TaskGroup() as group:
            group.create_task(for_all(change))
            again = lambda: sum(g > 1 for g in releases.done.values())  # noqa: E731
            group.create_task(kill_amid(etcd, again))
        await eventually(rolled_out, within=WITHIN)
        before = await state()
        await asyncio.sleep(3)
    parents, children = after = await state()
    assert versions(after) == versions(before), "written although nothing changed"

    assert parents.keys() == children.keys() == set(NAMES)
    assert deleted == []
    for name, parent in parents.items():
        assert parent.spec == {"value": 2}
        assert parent.status["value"] == 2
        assert releases.done[name] == parent.metadata.generation
        assert children[name].get("data") == {"value": "2"}
        assert [ref.uid for ref in children[name].metadata.owner_references] == [parent.uid]
