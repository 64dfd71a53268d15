"""Options of the client, against the embedded API server without a socket."""

from collections.abc import Callable
from typing import Any

import pytest
from kr8s.asyncio.objects import ConfigMap

from kaos.runtime import (
    CONFIG_MAP,
    Client,
    Conflict,
    CustomResource,
    NotFound,
    Object,
    ResourceType,
    crd,
    to_kr8s,
)
from kaos.testing.inprocess import InProcess


class Pot(CustomResource):
    """A model for the client."""

    GROUP, VERSION, KIND, PLURAL = "example.com", "v1", "Pot", "pots"
    metadata: dict[str, Any]
    spec: dict[str, int]


POT = ResourceType.of(Pot)


@pytest.fixture
def client(kaos_in_process: InProcess) -> Client:
    return Client(kaos_in_process)


def body(name: str, **data: str) -> dict[str, Any]:
    return CONFIG_MAP.body(name, "default", data=data)


async def test_a_dry_run_of_every_write_changes_nothing(client: Client) -> None:
    made = await client.create(body("a", n="1"))
    writes: list[Callable[[], Any]] = [
        lambda: client.create(body("b"), dry_run=True),
        lambda: client.update(body("a", n="2"), dry_run=True),
        lambda: client.patch(CONFIG_MAP, "a", "default", {"data": {"n": "3"}}, dry_run=True),
        lambda: client.apply(body("a", n="4"), dry_run=True),
        lambda: client.delete(CONFIG_MAP, "a", "default", dry_run=True),
    ]
    answers = [await write() for write in writes]
    assert [a.get("data") for a in answers[1:4]] == [{"n": "2"}, {"n": "3"}, {"n": "4"}]
    (left,) = await client.list(CONFIG_MAP, "default")
    assert left.metadata.resource_version == made.metadata.resource_version


async def test_a_dry_run_is_not_told_to_the_cache(client: Client) -> None:
    class Observer:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError(name)

    await client.create(body("a"))
    client.observe(Observer())
    await client.update(body("a", n="2"), dry_run=True)
    await client.delete(CONFIG_MAP, "a", "default", dry_run=True)


async def test_a_delete_can_be_bound_to_the_uid_and_to_the_version(client: Client) -> None:
    made = await client.create(body("a"))
    now = await client.update(body("a", n="1"))
    with pytest.raises(Conflict):
        await client.delete(CONFIG_MAP, "a", "default", uid="of-another-one")
    seen = made.metadata.resource_version
    with pytest.raises(Conflict):
        await client.delete(CONFIG_MAP, "a", "default", uid=made.uid, resource_version=seen)
    seen = now.metadata.resource_version
    await client.delete(CONFIG_MAP, "a", "default", uid=made.uid, resource_version=seen)
    with pytest.raises(NotFound):
        await client.get(CONFIG_MAP, "a", "default")


async def test_lists_come_in_pages_of_the_size_asked_for(client: Client) -> None:
    for n in range(5):
        await client.create(body(f"c{n}"))
    sizes = [len(page.items) async for page in client.pages(CONFIG_MAP, "default", page_size=2)]
    assert sizes == [2, 2, 1]
    assert len(await client.list(CONFIG_MAP, "default", page_size=2)) == 5
    some = await client.list(CONFIG_MAP, "default", resource_version="0")
    assert len(some) == 5
    assert (await client.get(CONFIG_MAP, "c1", "default", resource_version="0")).name == "c1"


async def test_kr8s_classes_and_objects_are_targets_and_bodies(client: Client) -> None:
    made = await client.create(ConfigMap(body("a", n="1")))
    found = await client.get(ConfigMap, "a", "default")
    assert found.uid == made.uid
    wrapped = to_kr8s(found, api=object())
    assert isinstance(wrapped, ConfigMap)
    wrapped.raw["data"]["n"] = "2"
    assert found.get("data") == {"n": "1"}
    assert (await client.update(wrapped)).get("data") == {"n": "2"}


async def test_pydantic_models_are_targets_and_bodies(client: Client) -> None:
    await client.create(crd(Pot))
    pot = Pot(metadata={"name": "a", "namespace": "default"}, spec={"size": 1})
    made = await client.create(pot)
    model = (await client.get(Pot, "a", "default")).as_model(Pot)
    assert model.spec == {"size": 1}
    model.spec["size"] = 2
    changed = await client.update(model)
    assert changed.spec == {"size": 2}
    assert changed.uid == made.uid


def test_a_kind_that_kr8s_does_not_know_keeps_its_name_and_plural() -> None:
    obj = Object.from_dict(POT.body("a", "default"))
    wrapped = to_kr8s(obj, Pot, api=object())
    assert (wrapped.kind, wrapped.plural, wrapped.raw["kind"]) == ("Pot", "pots", "Pot")


def test_a_kind_that_nobody_knows_needs_its_resource() -> None:
    obj = Object.from_dict({"apiVersion": "example.org/v1", "kind": "Odd", "metadata": {}})
    with pytest.raises(ValueError, match="pass its resource"):
        _ = to_kr8s(obj)


def test_a_body_that_is_none_is_refused() -> None:
    from kaos.runtime.requests import plain  # noqa: PLC0415

    with pytest.raises(TypeError, match="expected a dict"):
        plain(7)  # type: ignore[arg-type]
