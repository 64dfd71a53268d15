"""Selections: what of a kind is kept in the cache, and what that means for changes and writes."""

import asyncio
from typing import Any

import pytest

from kaos.runtime import (
    CONFIG_MAP,
    ApplySet,
    Backoff,
    Controller,
    Manager,
    Object,
    Owns,
    Request,
    Selection,
    Watches,
    without,
)
from kaos.testing.inprocess import CONFIG, InProcess
from kaos.testing.running import running
from tests.unit.runtime.fake import FakeServer
from tests.unit.runtime.support import THING, Recorder, config_maps, manager, settle, things
from tests.unit.runtime.support import running as running_fake

pytestmark = pytest.mark.looptime


def body(name: str, namespace: str = "default", **labels: str) -> dict[str, Any]:
    return CONFIG_MAP.body(name, namespace, metadata={"labels": labels}, data={"n": "1"})


def names(made: Manager) -> list[str]:
    return sorted(obj.name for obj in made.cache.list(CONFIG_MAP))


async def test_label_and_field_selectors_limit_what_is_kept(kaos_in_process: InProcess) -> None:
    made = Manager(CONFIG, transport=kaos_in_process)
    select = Selection(label_selector="app=a", field_selector="metadata.name!=b")
    made.watch(CONFIG_MAP, select=select)
    async with running(made):
        for name, app in (("a", "a"), ("b", "a"), ("c", "c")):
            await made.client.create(body(name, app=app))
        assert names(made) == ["a"]  # our own writes, before the watch tells
        await settle()
        assert names(made) == ["a"]


async def test_an_object_that_leaves_the_selection_is_reported_as_gone(
    kaos_in_process: InProcess,
) -> None:
    made = Manager(CONFIG, transport=kaos_in_process)
    asked = Recorder()
    select = Selection(label_selector="app=a")
    made.add(Controller("c", asked, for_=CONFIG_MAP, select=select))
    async with running(made):
        await made.client.create(body("a", app="a"))
        await settle()
        patch = {"metadata": {"labels": {"app": "b"}}}
        await made.client.patch(CONFIG_MAP, "a", "default", patch)
        await settle()
        assert (names(made), asked.names) == ([], ["a", "a"])


async def test_metadata_only_asks_the_server_for_no_more(kaos_in_process: InProcess) -> None:
    accepted: list[str] = []

    class Noting(InProcess):
        def stream(self, request: Any) -> Any:
            accepted.append(request.accept)
            return super().stream(request)

    transport = Noting(kaos_in_process._app)
    made = Manager(CONFIG, transport=transport)
    made.watch(CONFIG_MAP, select=Selection(metadata_only=True))
    async with running(made):
        assert "PartialObjectMetadata" in accepted[0]
        await made.client.create(body("a", app="a"))
        for _ in range(2):  # our own write, then what the watch told
            found = made.cache.get(CONFIG_MAP, "a", "default")
            assert found is not None
            assert (found.kind, found.metadata.labels) == ("ConfigMap", {"app": "a"})
            assert found.get("data") is None
            await settle()
        assert (await made.client.get(CONFIG_MAP, "a", "default")).get("data") == {"n": "1"}


async def test_a_server_that_sends_all_the_same_is_stripped() -> None:
    server = FakeServer()
    config_maps(server).put("a", data={"secret": "x"})
    made = manager(server)
    made.watch(CONFIG_MAP, select=Selection(metadata_only=True))
    async with running_fake(made):
        (found,) = made.cache.list(CONFIG_MAP)
        assert found.fields() == {}


async def test_an_apply_set_refuses_kinds_of_which_only_metadata_is_known() -> None:
    server = FakeServer()
    config_maps(server)
    made = manager(server)
    made.watch(CONFIG_MAP, select=Selection(metadata_only=True))
    owner = Object.from_dict(THING.body("a", "default"))
    with pytest.raises(ValueError, match="metadata alone"):
        await ApplySet(made.client, made.cache, kinds=[CONFIG_MAP]).apply(owner, [])


async def test_a_transform_shapes_what_is_kept_also_of_own_writes() -> None:
    server = FakeServer()
    maps = config_maps(server)
    maps.put("a", data={"n": "1"}, extra={"x": 1})
    made = manager(server)
    made.watch(CONFIG_MAP, select=Selection(transform=without("data")))
    async with running_fake(made):
        maps.put("b", data={"n": "1"})
        await settle()
        await made.client.create(body("c"))
        assert [o.get("data") for o in made.cache.list(CONFIG_MAP)] == [None] * 3
        found = made.cache.get(CONFIG_MAP, "a", "default")
        assert found is not None
        assert found.get("extra") == {"x": 1}


async def test_a_transform_that_fails_does_not_stop_the_watch() -> None:
    def broken(obj: Object) -> Object:
        raise KeyError(obj.name)

    server = FakeServer()
    config_maps(server).put("a")
    made = manager(server)
    made.watch(CONFIG_MAP, select=Selection(transform=broken))
    async with running_fake(made):
        assert names(made) == ["a"]


async def test_several_namespaces_are_watched_one_by_one(kaos_in_process: InProcess) -> None:
    made = Manager(CONFIG, transport=kaos_in_process, namespaces=["default"])
    made.watch(CONFIG_MAP, select=Selection(namespaces=["one", "two"]))
    for name in ("one", "two", "three"):
        await made.client.create(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        )
    async with running(made):
        for name in ("one", "two", "three"):
            await made.client.create(body(f"in-{name}", name))
        await settle()
        assert names(made) == ["in-one", "in-two"]


async def test_indexes_are_named_where_the_kind_is() -> None:
    server = FakeServer()
    maps, seen = config_maps(server), things(server)
    maps.put("a", data={"for": "x"})
    seen.put("x", spec={})
    made = manager(server)
    select = Selection(indexes={"for": lambda obj: [obj.get("data")["for"]]})
    recorder = Recorder()
    made.add(
        Controller(
            "c",
            recorder,
            for_=THING,
            watches=[Watches(CONFIG_MAP, lambda o: [Request("default", "x")], select=select)],
        )
    )
    async with running_fake(made):
        assert [o.name for o in made.cache.by_index(CONFIG_MAP, "for", "x")] == ["a"]


def test_a_kind_has_one_selection_for_all_controllers() -> None:
    server = FakeServer()
    some = Selection(label_selector="app=a")
    made = manager(server)
    made.watch(CONFIG_MAP, select=some)
    made.add(Controller("a", Recorder(), for_=THING, owns=[Owns(CONFIG_MAP, select=some)]))
    made.add(Controller("b", Recorder(), for_=THING, owns=[CONFIG_MAP]))
    with pytest.raises(ValueError, match="another selection"):
        made.watch(CONFIG_MAP, select=Selection(label_selector="app=b"))


def test_a_selection_never_hides_what_a_controller_relies_on_already() -> None:
    made = manager(FakeServer())
    made.add(Controller("a", Recorder(), for_=THING, owns=[CONFIG_MAP]))
    with pytest.raises(ValueError, match=r"before `manager\.add`"):
        made.watch(CONFIG_MAP, select=Selection(metadata_only=True))


@pytest.mark.parametrize(
    ("selector", "labels", "expected"),
    [
        ("", {}, True),
        ("app=a", {"app": "a"}, True),
        ("app==a", {"app": "b"}, False),
        ("app!=a", {}, True),
        ("app!=a", {"app": "a"}, False),
        ("app in (a, b),!old", {"app": "b"}, True),
        ("app in (a, b),!old", {"app": "b", "old": ""}, False),
        ("app notin (a)", {"app": "a"}, False),
        ("app notin (a)", {}, True),
        ("example.com/x,app=a", {"app": "a", "example.com/x": "1"}, True),
        ("example.com/x", {"app": "a"}, False),
        ("app=", {"app": ""}, True),
    ],
)
def test_label_selectors_mean_what_the_server_means(
    selector: str, labels: dict[str, str], expected: bool
) -> None:
    obj = Object.from_dict(CONFIG_MAP.body("a", "default", metadata={"labels": labels}))
    assert Selection(label_selector=selector).matches(obj) is expected


def test_field_selectors_compare_text() -> None:
    obj = Object.from_dict(THING.body("a", "default", spec={"node": "n1", "on": True}))
    assert Selection(field_selector="spec.node=n1,spec.on=true,spec.absent=").matches(obj)
    assert not Selection(field_selector="metadata.name!=a").matches(obj)


@pytest.mark.parametrize("selector", ["app in a", "a b", "=x", "app>1"])
def test_a_selector_that_is_none_is_refused_at_once(selector: str) -> None:
    with pytest.raises(ValueError, match="selector"):
        Selection(label_selector=selector)
    with pytest.raises(ValueError, match="selector"):
        Selection(field_selector=selector)


async def test_a_bucket_spreads_retries_but_not_changes() -> None:
    async def fail(request: Request) -> None:
        if len(asked.calls) <= 20:
            raise RuntimeError("outage")

    server = FakeServer()
    for n in range(20):
        things(server).put(f"t{n}", spec={})
    made = manager(server)
    asked = Recorder(fail)
    backoff = Backoff(first=0.001, rate=5, burst=10)
    made.add(Controller("c", asked, for_=THING, workers=20, backoff=backoff))
    loop = asyncio.get_running_loop()
    async with running_fake(made):
        started = loop.time()
        await settle(0.5)
        assert len(asked.calls) == pytest.approx(20 + 12, abs=1)
        things(server).put("new", spec={})
        await settle(0.01)
        assert asked.names[-1] == "new"
        await settle(3)
        assert len(asked.calls) == 41
        assert asked.calls[-1][0] - started == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize("wrong", [{"first": 0}, {"rate": 0}, {"burst": 0}, {"last": 0.001}])
def test_a_backoff_that_cannot_work_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="backoff"):
        Backoff(**wrong)
