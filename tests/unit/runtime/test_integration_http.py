"""The library over real HTTP against the embedded API server, on the loopback and in real time."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from kaos.local.apiserver import APIServer
from kaos.runtime import (
    CONFIG_MAP,
    CUSTOM_RESOURCE_DEFINITION,
    EVENT,
    LEASE,
    NAMESPACE,
    AlreadyExists,
    ApplySet,
    Client,
    ClusterConfig,
    Conflict,
    Controller,
    Invalid,
    LeaderElection,
    Manager,
    NotFound,
    Object,
    Request,
    ResourceType,
    Unauthorized,
    UnknownKind,
    Unreachable,
    create_or_update,
)

TOKEN = "a-token"
# By hand, the same against a real API server that is thrown away afterwards.
REAL = os.environ.get("KAOS_TEST_KUBECONFIG", "")
SITE = ResourceType("example.com", "v1", "Site", "sites")


def crd() -> dict[str, Any]:
    number = {"type": "integer", "minimum": 0}
    spec = {"type": "object", "properties": {"n": number}}
    status = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema = {"type": "object", "properties": {"spec": spec, "status": status}}
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": schema},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "sites.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"kind": "Site", "plural": "sites", "singular": "site"},
            "versions": [version],
        },
    }


def site(name: str, n: int = 1) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": "example.com/v1", "kind": "Site", "metadata": metadata, "spec": {"n": n}}


def config_map(name: str, **data: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


async def eventually(check: Callable[[], Any], seconds: float = 5) -> None:
    with anyio.fail_after(seconds):
        while not check():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)


class Site:
    """A reconciler that keeps one ConfigMap per site and says so in the status."""

    def __init__(self, manager: Manager) -> None:
        self.manager = manager
        self.children = ApplySet(manager.client, manager.cache, kinds=[CONFIG_MAP])
        self.calls: list[Request] = []
        self.finalized: list[str] = []

    async def reconcile(self, request: Request, /) -> None:
        self.calls.append(request)
        owner = self.manager.cache.get(SITE, request.name, request.namespace)
        if owner is None:
            return
        body = config_map(request.name, n=str(owner.spec["n"]))
        await self.children.apply(owner, [body])
        status = {"status": {"n": owner.spec["n"]}}
        await self.manager.client.patch(SITE, owner.name, "default", status, subresource="status")
        self.manager.events.event(owner, type="Normal", reason="Applied", note="it is there")

    async def finalize(self, obj: Any, /) -> None:
        self.finalized.append(obj.name)


def names(objects: list[Object]) -> list[str]:
    """The names, without what a real cluster puts into every namespace."""
    return [o.name for o in objects if o.name != "kube-root-ca.crt"]


async def clean(config: ClusterConfig) -> None:
    """Remove what a test left on a real server."""
    async with Client.connect(config) as client:
        with contextlib.suppress(NotFound):
            for found in await client.list(SITE):
                await client.patch(SITE, found.name, "default", {"metadata": {"finalizers": None}})
            await client.delete(CUSTOM_RESOURCE_DEFINITION, "sites.example.com")
        for resource in (CONFIG_MAP, EVENT, LEASE):
            for name in names(await client.list(resource, "default")):
                await client.delete(resource, name, "default")
        with contextlib.suppress(NotFound):
            for _ in range(100):
                await client.get(CUSTOM_RESOURCE_DEFINITION, "sites.example.com")
                await asyncio.sleep(0.1)


@pytest.fixture
async def config() -> AsyncIterator[ClusterConfig]:
    if REAL:
        found = await ClusterConfig.load(Path(REAL))
        await clean(found)
        yield found
        await clean(found)
        return
    async with APIServer(token=TOKEN).serve() as url:
        yield ClusterConfig.direct(url, TOKEN)


@pytest.fixture
async def client(config: ClusterConfig) -> AsyncIterator[Client]:
    async with Client.connect(config) as made:
        yield made


async def test_a_life_of_an_object(client: Client) -> None:
    made = await client.create(config_map("a", k="v"))
    assert made.uid
    with pytest.raises(AlreadyExists):
        await client.create(config_map("a"))
    stale = made.to_dict()
    changed = await client.patch(CONFIG_MAP, "a", "default", {"data": {"k": "w"}})
    assert changed.get("data") == {"k": "w"}
    assert changed.version > made.version
    with pytest.raises(Conflict):
        await client.update(stale)
    applied = await client.apply(config_map("a", more="x"), field_manager="other")
    assert applied.get("data") == {"k": "w", "more": "x"}
    assert names(await client.list(CONFIG_MAP, "default")) == ["a"]
    with pytest.raises(Conflict):
        await client.delete(CONFIG_MAP, "a", "default", uid="another")
    await client.delete(CONFIG_MAP, "a", "default", uid=made.uid)
    with pytest.raises(NotFound, match='configmaps "a" not found'):
        await client.get(CONFIG_MAP, "a", "default")


async def test_dry_runs_change_nothing(client: Client) -> None:
    await client.create(config_map("a"), dry_run=True)
    assert names(await client.list(CONFIG_MAP, "default")) == []


async def test_lists_are_read_in_pages(client: Client) -> None:
    await asyncio.gather(*(client.create(config_map(f"c{i:03}")) for i in range(30)))
    page = await client.page(CONFIG_MAP, "default", {"limit": "7"})
    assert len(page.items) == 7
    assert page.continue_token
    found = names(await client.list(CONFIG_MAP, "default"))
    assert found == sorted(f"c{i:03}" for i in range(30))


async def test_selectors(client: Client) -> None:
    body = config_map("a")
    body["metadata"]["labels"] = {"app": "x"}
    await client.create(body)
    await client.create(config_map("b"))
    found = await client.list(CONFIG_MAP, "default", label_selector="app=x")
    assert [o.name for o in found] == ["a"]
    found = await client.list(CONFIG_MAP, "default", field_selector="metadata.name=b")
    assert names(found) == ["b"]


async def test_create_or_update(client: Client) -> None:
    def change(body: dict[str, Any]) -> None:
        body["data"] = {"k": "v"}

    for expected in ("created", "unchanged"):
        _, what = await create_or_update(client, CONFIG_MAP, "a", "default", change)
        assert what == expected
    await client.patch(CONFIG_MAP, "a", "default", {"data": {"k": "drift"}})
    assert (await create_or_update(client, CONFIG_MAP, "a", "default", change))[1] == "updated"


async def test_kinds_of_a_crd_are_found_and_their_schema_is_told(client: Client) -> None:
    with pytest.raises(UnknownKind, match=r"Site in example\.com/v1"):
        await client.create(site("a"))
    await client.create(crd())
    with anyio.fail_after(5):
        while True:
            try:
                await client.create(site("a"))
                break
            except UnknownKind:
                await asyncio.sleep(0.2)  # it looks again at most every two seconds
    with pytest.raises(Invalid) as refused:
        await client.create(site("b", n=-1))
    assert refused.value.causes[0].field == "spec.n"
    found = await client.get(SITE, "a", "default")
    assert (await client.resolve(found)) == SITE
    assert found.metadata.generation == 1


@pytest.mark.skipif(bool(REAL), reason="needs the embedded server's token")
async def test_a_wrong_token_is_refused(config: ClusterConfig) -> None:
    async with Client.connect(ClusterConfig.direct(config.server, "wrong")) as client:
        with pytest.raises(Unauthorized):
            await client.list(NAMESPACE)


async def test_no_server_is_unreachable() -> None:
    async with Client.connect(ClusterConfig.direct("http://127.0.0.1:1")) as client:
        with pytest.raises(Unreachable, match="GET /api/v1/namespaces/default/configmaps/a"):
            await client.get(CONFIG_MAP, "a", "default")


async def test_a_custom_resource_from_nothing_to_gone(
    config: ClusterConfig, client: Client
) -> None:
    election = LeaderElection("sites", "default", retry_period=0.2)
    manager = Manager(config, leader_election=election)
    reconciler = Site(manager)
    manager.add(Controller("site", reconciler, for_=SITE, owns=[CONFIG_MAP]))
    started = anyio.Event()
    task = asyncio.create_task(manager.run(started=started))
    await client.create(crd())  # the controller waits for it
    with anyio.fail_after(10):
        await started.wait()

    await client.create(site("a"))
    await eventually(lambda: reconciler.calls == [Request("default", "a")])
    await eventually(lambda: manager.cache.get(CONFIG_MAP, "a", "default"))
    await asyncio.sleep(0.3)
    assert len(reconciler.calls) == 1  # finalizer, child and status: none of them came back
    found = await client.get(SITE, "a", "default")
    assert found.status == {"n": 1}
    assert found.metadata.finalizers == ["example.com/site"]

    await client.patch(SITE, "a", "default", {"spec": {"n": 2}})
    await eventually(lambda: len(reconciler.calls) == 2)
    await client.patch(CONFIG_MAP, "a", "default", {"data": {"n": "drift"}})
    await eventually(lambda: len(reconciler.calls) == 3)
    await asyncio.sleep(0.2)
    assert len(reconciler.calls) == 3
    child = await client.get(CONFIG_MAP, "a", "default")
    assert child.get("data") == {"n": "2"}

    await client.delete(SITE, "a", "default")
    await eventually(lambda: manager.cache.get(SITE, "a", "default") is None)
    assert reconciler.finalized == ["a"]
    await eventually(lambda: manager.cache.get(CONFIG_MAP, "a", "default") is None)
    events = await client.list(EVENT, "default")
    ours = [e for e in events if e.get("regarding")["name"] == "a"]
    assert len(ours) == 1
    assert ours[0].get("series")["count"] >= 2

    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    held = await client.get(LEASE, "sites", "default")
    assert not held.spec.get("holderIdentity")


async def test_a_crd_that_goes_and_comes_back(config: ClusterConfig, client: Client) -> None:
    await client.create(crd())
    manager = Manager(config)
    manager.watch(SITE, optional=True)
    task = asyncio.create_task(manager.run())
    await eventually(lambda: manager.cache.synced(SITE))
    await client.delete(CUSTOM_RESOURCE_DEFINITION, "sites.example.com")
    await asyncio.sleep(0.5)
    await client.create(crd())
    await eventually(lambda: manager.cache.synced(SITE), 10)
    body = site("again")
    with anyio.fail_after(5):
        while True:
            try:
                await client.create(body)
                break
            except (NotFound, UnknownKind):
                await asyncio.sleep(0.1)
    await eventually(lambda: manager.cache.get(SITE, "again", "default"), 10)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
