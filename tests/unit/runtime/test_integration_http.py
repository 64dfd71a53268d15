"""The library over real HTTP and in real time: on the embedded API server, or a real one.

`pytest --kaos-kubeconfig FILE` for the latter.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from kaos.runtime import (
    CONFIG_MAP,
    EVENT,
    LEASE,
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
    Request,
    ResourceType,
    UnknownKind,
    Unreachable,
    create_or_update,
)
from kaos.testing.waiting import eventually

SITE = ResourceType("example.com", "v1", "Site", "sites")
Define = Callable[..., Awaitable[None]]


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


class User:
    """What a user does in the test's namespace."""

    def __init__(self, client: Client, namespace: str) -> None:
        self.client, self.namespace = client, namespace

    def site(self, name: str, n: int = 1) -> dict[str, Any]:
        return SITE.body(name, self.namespace, spec={"n": n})

    def config_map(self, name: str, **data: str) -> dict[str, Any]:
        return CONFIG_MAP.body(name, self.namespace, data=data)

    async def names(self, *, labels: str = "", fields: str = "") -> list[str]:
        """Of the ConfigMaps, without what a real cluster puts into every namespace."""
        found = await self.client.list(
            CONFIG_MAP, self.namespace, label_selector=labels, field_selector=fields
        )
        return [o.name for o in found if o.name != "kube-root-ca.crt"]


@pytest.fixture
def user(kaos_api: ClusterConfig, kaos_client: Client) -> User:
    return User(kaos_client, kaos_api.namespace)


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
        data = {"n": str(owner.spec["n"])}
        await self.children.apply(
            owner, [CONFIG_MAP.body(request.name, request.namespace, data=data)]
        )
        status = {"status": {"n": owner.spec["n"]}}
        await self.manager.client.patch(
            SITE, owner.name, owner.namespace, status, subresource="status"
        )
        self.manager.events.event(owner, type="Normal", reason="Applied", note="it is there")

    async def finalize(self, obj: Any, /) -> None:
        self.finalized.append(obj.name)


async def test_a_life_of_an_object(user: User) -> None:
    client, ns = user.client, user.namespace
    made = await client.create(user.config_map("a", k="v"))
    assert made.uid
    with pytest.raises(AlreadyExists):
        await client.create(user.config_map("a"))
    stale = made.to_dict()
    changed = await client.patch(CONFIG_MAP, "a", ns, {"data": {"k": "w"}})
    assert changed.get("data") == {"k": "w"}
    assert changed.version > made.version
    with pytest.raises(Conflict):
        await client.update(stale)
    applied = await client.apply(user.config_map("a", more="x"), field_manager="other")
    assert applied.get("data") == {"k": "w", "more": "x"}
    assert await user.names() == ["a"]
    with pytest.raises(Conflict):
        await client.delete(CONFIG_MAP, "a", ns, uid="another")
    await client.delete(CONFIG_MAP, "a", ns, uid=made.uid)
    with pytest.raises(NotFound, match='configmaps "a" not found'):
        await client.get(CONFIG_MAP, "a", ns)


async def test_dry_runs_change_nothing(user: User) -> None:
    await user.client.create(user.config_map("a"), dry_run=True)
    assert await user.names() == []


async def test_lists_are_read_in_pages(user: User) -> None:
    bodies = [user.config_map(f"c{i:03}") for i in range(30)]
    await asyncio.gather(*(user.client.create(body) for body in bodies))
    page = await user.client.page(CONFIG_MAP, user.namespace, {"limit": "7"})
    assert len(page.items) == 7
    assert page.continue_token
    assert await user.names() == sorted(f"c{i:03}" for i in range(30))


async def test_selectors(user: User) -> None:
    body = user.config_map("a")
    body["metadata"]["labels"] = {"app": "x"}
    await user.client.create(body)
    await user.client.create(user.config_map("b"))
    assert await user.names(labels="app=x") == ["a"]
    assert await user.names(fields="metadata.name=b") == ["b"]


async def test_create_or_update(user: User) -> None:
    client, ns = user.client, user.namespace

    def change(body: dict[str, Any]) -> None:
        body["data"] = {"k": "v"}

    for expected in ("created", "unchanged"):
        _, what = await create_or_update(client, CONFIG_MAP, "a", ns, change)
        assert what == expected
    await client.patch(CONFIG_MAP, "a", ns, {"data": {"k": "drift"}})
    assert (await create_or_update(client, CONFIG_MAP, "a", ns, change))[1] == "updated"


async def test_kinds_of_a_crd_are_found_and_their_schema_is_told(
    user: User, kaos_define: Define
) -> None:
    client = user.client
    with pytest.raises(UnknownKind, match=r"Site in example\.com/v1"):
        await client.create(user.site("a"))
    await kaos_define(crd())
    await client.create(user.site("a"))
    with pytest.raises(Invalid) as refused:
        await client.create(user.site("b", n=-1))
    assert refused.value.causes[0].field == "spec.n"
    found = await client.get(SITE, "a", user.namespace)
    assert (await client.resolve(found)) == SITE
    assert found.metadata.generation == 1


async def test_no_server_is_unreachable() -> None:
    async with Client.connect(ClusterConfig.direct("http://127.0.0.1:1")) as client:
        with pytest.raises(Unreachable, match="GET /api/v1/namespaces/default/configmaps/a"):
            await client.get(CONFIG_MAP, "a", "default")


async def test_a_custom_resource_from_nothing_to_gone(
    request: pytest.FixtureRequest, kaos_api: ClusterConfig, user: User, kaos_define: Define
) -> None:
    client, ns = user.client, user.namespace
    election = LeaderElection("sites", ns, retry_period=0.2)
    manager = Manager(kaos_api, leader_election=election, namespaces=[ns])
    reconciler = Site(manager)
    manager.add(Controller("site", reconciler, for_=SITE, owns=[CONFIG_MAP]))
    started = anyio.Event()
    task = asyncio.create_task(manager.run(started=started))
    await kaos_define(crd())  # the controller waits for it
    with anyio.fail_after(15):
        await started.wait()

    await client.create(user.site("a"))
    await eventually(lambda: reconciler.calls == [Request(ns, "a")])
    await eventually(lambda: bool(manager.cache.get(CONFIG_MAP, "a", ns)))
    await asyncio.sleep(0.3)
    assert len(reconciler.calls) == 1  # finalizer, child and status: none of them came back
    found = await client.get(SITE, "a", ns)
    assert found.status == {"n": 1}
    assert found.metadata.finalizers == ["example.com/site"]

    await client.patch(SITE, "a", ns, {"spec": {"n": 2}})
    await eventually(lambda: len(reconciler.calls) == 2)
    await client.patch(CONFIG_MAP, "a", ns, {"data": {"n": "drift"}})
    await eventually(lambda: len(reconciler.calls) == 3)
    await asyncio.sleep(0.2)
    assert len(reconciler.calls) == 3
    child = await client.get(CONFIG_MAP, "a", ns)
    assert child.get("data") == {"n": "2"}
    assert [reference.uid for reference in child.metadata.owner_references] == [found.uid]

    await client.delete(SITE, "a", ns)
    await eventually(lambda: manager.cache.get(SITE, "a", ns) is None)
    assert reconciler.finalized == ["a"]
    # A real one goes at the next round of the garbage collector, which may be in 30 s.
    if not request.config.getoption("--kaos-kubeconfig"):
        await eventually(lambda: manager.cache.get(CONFIG_MAP, "a", ns) is None)
    events = await client.list(EVENT, ns)
    ours = [e for e in events if e.get("regarding")["name"] == "a"]
    assert len(ours) == 1
    assert ours[0].get("series")["count"] >= 2

    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    held = await client.get(LEASE, "sites", ns)
    assert not held.spec.get("holderIdentity")
