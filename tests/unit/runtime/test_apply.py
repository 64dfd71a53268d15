"""Apply sets: few writes, drift put right, unwanted children pruned, others left alone."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from kaos.runtime import (
    CONFIG_MAP,
    SERVICE,
    Applied,
    ApplySet,
    Controller,
    Invalid,
    Manager,
    NameConflict,
    Object,
    Request,
    Result,
    RuntimeFailure,
)
from kaos.runtime.apply import contains
from kaos.runtime.owners import owner_reference
from tests.unit.runtime.fake import Body, FakeServer, status
from tests.unit.runtime.support import (
    THING,
    Recorder,
    child_of,
    config_maps,
    manager,
    running,
    settle,
    things,
)

pytestmark = pytest.mark.looptime


def config_map(name: str, **data: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default", "labels": {"app": "x"}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


class Bench:
    """A running manager, an owner, and a way to apply for it."""

    def __init__(self, made: Manager, server: FakeServer) -> None:
        self.server = server
        self.manager = made
        self.set = ApplySet(made.client, made.cache, kinds=[CONFIG_MAP])

    @property
    def owner(self) -> Object:
        found = self.manager.cache.get(THING, "a", "default")
        assert found is not None
        return found

    async def apply(self, *bodies: dict[str, Any], **labels: str) -> Applied:
        result = await self.set.apply(self.owner, bodies, labels=labels)
        await settle()
        return result

    def live(self, name: str) -> Body:
        return config_maps(self.server).objects["default", name]

    @property
    def writes(self) -> int:
        return len([r for r in self.server.asked() if r.method != "GET"])


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    server = FakeServer()
    config_maps(server)
    things(server).put("a", spec={})
    made = manager(server)
    made.watch(CONFIG_MAP)
    made.watch(THING)
    made.client.discovery._known["example.com/v1", "Thing"] = THING
    # pytest-asyncio runs both halves of a fixture in tasks of their own, so no task group here.
    started = anyio.Event()
    task = asyncio.create_task(made.run(started=started))
    await started.wait()
    yield Bench(made, server)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_nothing_is_written_when_nothing_changed(bench: Bench) -> None:
    first = await bench.apply(config_map("one", k="v"), config_map("two", k="v"))
    assert (first.written, bench.writes) == (2, 2)
    assert [o.name for o in first.objects] == ["one", "two"]
    for _ in range(5):
        again = await bench.apply(config_map("one", k="v"), config_map("two", k="v"))
        assert again.written == 0
    assert bench.writes == 2
    assert bench.live("one")["metadata"]["ownerReferences"][0]["controller"] is True


async def test_a_restart_writes_nothing_either(bench: Bench) -> None:
    await bench.apply(config_map("one", k="v"))
    bench.set = ApplySet(bench.manager.client, bench.manager.cache, kinds=[CONFIG_MAP])
    assert (await bench.apply(config_map("one", k="v"))).written == 0


async def test_a_change_of_mind_is_written(bench: Bench) -> None:
    await bench.apply(config_map("one", k="v", gone="x"))
    assert (await bench.apply(config_map("one", k="v"))).written == 1


async def test_drift_is_put_right(bench: Bench) -> None:
    await bench.apply(config_map("one", k="v"))
    config_maps(bench.server).put("one", data={"k": "changed by hand"})
    await settle()
    assert (await bench.apply(config_map("one", k="v"))).written == 1
    assert bench.live("one")["data"]["k"] == "v"


async def test_what_others_add_is_left_alone(bench: Bench) -> None:
    await bench.apply(config_map("one", k="v"))
    config_maps(bench.server).put("one", data={"k": "v", "more": "x"})
    await settle()
    assert (await bench.apply(config_map("one", k="v"))).written == 0


async def test_a_value_that_the_server_rewrites_is_written_once(bench: Bench) -> None:
    """A quantity of "1000m" comes back as "1": compared naively, it is written for ever."""
    original = config_maps(bench.server).put

    def normalising(name: str, namespace: str = "default", **fields: Any) -> Body:
        if fields.get("data", {}).get("cpu") == "1000m":
            fields["data"]["cpu"] = "1"
        return original(name, namespace, **fields)

    config_maps(bench.server).put = normalising  # type: ignore[method-assign]
    await bench.apply(config_map("one", cpu="1000m"))
    assert bench.live("one")["data"]["cpu"] == "1"
    for _ in range(3):
        assert (await bench.apply(config_map("one", cpu="1000m"))).written == 0
    original("one", data={"cpu": "7"})
    await settle()
    assert (await bench.apply(config_map("one", cpu="1000m"))).written == 1
    assert (await bench.apply(config_map("one", cpu="1000m"))).written == 0


async def test_what_is_not_wanted_any_more_is_pruned(bench: Bench) -> None:
    await bench.apply(config_map("one", k="v"), config_map("two", k="v"))
    config_maps(bench.server).put("somebody-elses", data={})
    result = await bench.apply(config_map("two", k="v"))
    assert result.pruned == ["ConfigMap default/one"]
    assert {name for _, name in config_maps(bench.server).objects} == {"two", "somebody-elses"}


async def test_children_without_the_labels_are_not_pruned(bench: Bench) -> None:
    await bench.apply(config_map("one"))
    await bench.apply(part="other")
    assert "one" in {name for _, name in config_maps(bench.server).objects}


async def test_an_object_of_another_controller_is_never_touched(bench: Bench) -> None:
    owner = {"apiVersion": "v1", "kind": "Boss", "name": "big", "uid": "u", "controller": True}
    config_maps(bench.server).put("one", data={"k": "theirs"}, meta={"ownerReferences": [owner]})
    await settle()
    writes = bench.writes
    with pytest.raises(NameConflict, match=r"ConfigMap default/one .* Boss default/big"):
        await bench.apply(config_map("one", k="v"))
    assert bench.writes == writes


async def test_an_object_of_nobody_is_not_touched_either(bench: Bench) -> None:
    config_maps(bench.server).put("one", data={"k": "a user's"})
    with pytest.raises(NameConflict, match="no controller at all"):
        await bench.apply(config_map("one", k="v"))  # also before the cache has it
    assert bench.live("one")["data"] == {"k": "a user's"}


async def test_a_stray_with_our_labels_is_adopted(bench: Bench) -> None:
    """After a restore from a backup, children are there and their owners have new uids."""
    config_maps(bench.server).put("one", data={"k": "v"}, meta={"labels": {"app": "x"}})
    await settle()
    assert (await bench.apply(config_map("one", k="v"), app="x")).written == 1
    assert bench.live("one")["metadata"]["ownerReferences"][0]["name"] == "a"


async def test_a_child_that_is_still_being_deleted_is_waited_for(bench: Bench) -> None:
    await bench.apply(config_map("one", k="v"))
    config_maps(bench.server).put("one", meta={"finalizers": ["x/y"]})
    config_maps(bench.server).delete("one")
    await settle()
    writes = bench.writes
    result = await bench.apply(config_map("one", k="v"))
    assert [key.name for key in result.waiting] == ["one"]
    assert bench.writes == writes


async def test_a_stale_cache_costs_a_retry_and_nothing_else(bench: Bench) -> None:
    await bench.apply(config_map("one", k="v"))
    for watch in config_maps(bench.server).watches:
        watch.silent = True
    config_maps(bench.server).put("one", data={"k": "changed by hand"})
    assert (await bench.apply(config_map("one", k="new"))).written == 1
    assert bench.live("one")["data"]["k"] == "new"


async def test_a_child_that_is_gone_without_the_cache_knowing_is_made_again(bench: Bench) -> None:
    """An apply based on a version of what is gone is a bad request (400), and no conflict."""
    await bench.apply(config_map("one", k="v"))
    for watch in config_maps(bench.server).watches:
        watch.silent = True
    config_maps(bench.server).delete("one")
    assert (await bench.apply(config_map("one", k="new"))).written == 1
    assert bench.live("one")["data"]["k"] == "new"


async def test_what_the_server_refuses_is_tried_once(bench: Bench) -> None:
    await bench.apply(config_map("one", k="v"))
    refusal = status(422, "Invalid", "data: too long")
    bench.server.faults.append(lambda request: refusal if request.method == "PATCH" else None)
    writes = bench.writes
    with pytest.raises(Invalid, match="too long"):
        await bench.apply(config_map("one", k="new"))
    assert bench.writes == writes + 1


async def test_a_child_of_an_owner_that_had_this_name_before_is_collected(bench: Bench) -> None:
    """It was told as a NameConflict with its own owner, until the garbage collector came.

    That took minutes on a real server whose API server had been killed.
    """
    await bench.apply(config_map("one", k="v"))
    old = bench.live("one")["metadata"]["uid"]
    things(bench.server).delete("a")
    things(bench.server).put("a", spec={})
    await settle()
    assert (await bench.apply(config_map("one", k="v"), app="x")).written == 1
    assert bench.live("one")["metadata"]["uid"] != old


async def test_the_child_of_a_predecessor_that_no_watch_shows_is_made_again(bench: Bench) -> None:
    """It came and went between two lists, so that no event ended the wait for its end."""
    for watch in config_maps(bench.server).watches:
        watch.silent = True
    owners = {"ownerReferences": [owner_reference(bench.owner)]}
    config_maps(bench.server).put("one", meta=owners)
    things(bench.server).delete("a")
    things(bench.server).put("a", spec={})
    await settle()
    assert (await bench.apply(config_map("one", k="v"))).written == 1


async def test_a_deletion_that_the_cache_does_not_know_of_is_asked_for_again(bench: Bench) -> None:
    """An event may never tell of its end."""
    for watch in config_maps(bench.server).watches:
        watch.silent = True
    owners = {"ownerReferences": [owner_reference(bench.owner)]}
    config_maps(bench.server).put("one", meta=owners | {"finalizers": ["x/y"]})
    config_maps(bench.server).delete("one")
    with pytest.raises(RuntimeFailure, match="default/one is still being deleted"):
        await bench.apply(config_map("one", k="v"))


async def test_who_is_the_predecessor_itself_collects_nothing(bench: Bench) -> None:
    """A cache that lags knows the old owner: the child of the new one looks foreign to it."""
    stale = bench.owner
    things(bench.server).delete("a")
    things(bench.server).put("a", spec={})
    await settle()
    await bench.apply(config_map("one", k="v"))
    result = await bench.set.apply(stale, [config_map("one", k="old")])
    assert [key.name for key in result.waiting] == ["one"]
    assert bench.live("one")["data"] == {"k": "v"}


async def test_nothing_is_remembered_of_children_that_are_gone(bench: Bench) -> None:
    """Children that the garbage collector deleted were remembered for ever."""
    await bench.apply(config_map("one", k="v"), config_map("two", k="v"))
    assert len(bench.set._accepted) == 2
    config_maps(bench.server).delete("one")
    await bench.apply()
    assert not bench.set._accepted


async def test_the_children_a_reconciler_returns_are_made_so() -> None:
    server = FakeServer()
    config_maps(server)
    things(server).put("a", spec={"n": 1})
    made = manager(server)

    async def act(request: Request) -> Result | None:
        thing = made.cache.get(THING, request.name, request.namespace)
        if thing is None:
            return Result(children=[])  # of nobody: left to the garbage collector
        return Result(children=[child_of(thing, f"c{n}") for n in range(thing.spec["n"])])

    recorder = Recorder(act)
    made.add(Controller("t", recorder, for_=THING, owns=[CONFIG_MAP]))
    children = config_maps(server).objects
    async with running(made):
        things(server).put("a", spec={"n": 2})
        await settle()
        assert {name for _, name in children} == {"c0", "c1"}
        writes = len([r for r in server.asked() if r.method != "GET"])
        made._controllers["t"].enqueue(Request("default", "a"))
        await settle()
        assert len([r for r in server.asked() if r.method != "GET"]) == writes
        config_maps(server).delete("c1")  # by hand: put right
        await settle()
        assert {name for _, name in children} == {"c0", "c1"}
        things(server).put("a", spec={"n": 1})
        await settle()
        assert {name for _, name in children} == {"c0"}
        things(server).put("a", spec={"n": 3}, meta={"finalizers": ["x/y"]})
        things(server).delete("a")
        await settle()
        assert "c2" not in {name for _, name in children}  # nothing is made for what goes


async def test_other_kinds_are_refused(bench: Bench) -> None:
    body = config_map("x") | {"kind": SERVICE.kind}
    with pytest.raises(ValueError, match="Service in v1 is not among the kinds"):
        await bench.apply(body)


@pytest.mark.parametrize(
    ("live", "desired", "expected"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, True),
        ({"a": 1}, {"a": 2}, False),
        ({}, {"a": None}, True),
        ({}, {"a": {}}, True),
        ({}, {"a": []}, True),
        ({}, {"a": {"b": 1}}, False),
        ({"a": False}, {"a": False}, True),
        ({}, {"a": False}, False),
        ([{"name": "x", "v": 1}, {"name": "side", "v": 2}], [{"name": "x", "v": 1}], True),
        ([{"name": "x", "v": 1}], [{"name": "y", "v": 1}], False),
        ([1, 2], [1, 2], True),
        ([1, 2, 3], [1, 2], False),
        ([{"port": 80, "nodePort": 3}], [{"port": 80}], True),
    ],
)
def test_containment(live: Any, desired: Any, expected: bool) -> None:
    assert contains(live, desired) is expected
