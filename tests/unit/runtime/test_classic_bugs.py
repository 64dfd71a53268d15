"""The classic bugs of controllers and own writes; the docstring names where each was told."""

import asyncio
from typing import Any

import pytest

from kaos.runtime import CONFIG_MAP, Controller, Object, Owns, Request, Result, Watches
from kaos.runtime.owners import set_controller_reference
from kaos.runtime.transport import HttpRequest, HttpResponse
from tests.unit.runtime.fake import FakeServer, status
from tests.unit.runtime.support import (
    THING,
    Recorder,
    child_of,
    config_maps,
    empty,
    manager,
    running,
    settle,
    things,
)

pytestmark = pytest.mark.looptime


@pytest.fixture
def server() -> FakeServer:
    return empty()


async def test_stale_read_after_own_write(server: FakeServer) -> None:
    """controller-runtime#403, #1464: the next reconcile did not see what the last one wrote."""
    server.watch_delay = 0.5
    things(server).put("a", spec={"n": 1})
    made = manager(server)
    children: list[int] = []

    async def act(request: Request) -> Result | None:
        owner = made.cache.get(THING, request.name, request.namespace)
        assert owner is not None
        owned = made.cache.owned_by(CONFIG_MAP, owner)
        children.append(len(owned))
        if not owned:
            body = set_controller_reference(owner, child_of(owner, ""))
            del body["metadata"]["name"]
            body["metadata"]["generateName"] = "child-"
            await made.client.create(body)
        return Result(requeue_after=0.1) if len(children) < 4 else None

    made.add(Controller("t", Recorder(act), for_=THING, owns=[CONFIG_MAP]))
    async with running(made):
        await settle(5)
    assert children == [0, 1, 1, 1]
    assert len(config_maps(server).objects) == 1  # no duplicate child


async def test_hot_loop_on_own_status_write(server: FakeServer) -> None:
    """openstack-operator#968, kcm#550: each status write caused the next reconcile."""
    things(server).put("a", spec={"n": 1})
    made = manager(server)
    count = 0

    async def act(request: Request) -> None:
        nonlocal count
        count += 1
        status = {"status": {"count": count}}
        await made.client.patch(THING, "a", "default", status, subresource="status")

    made.add(Controller("t", Recorder(act), for_=THING))
    async with running(made):
        await settle(60)
        assert count == 1
        things(server).put("a", spec={"n": 2})
        await settle(60)
        assert count == 2


async def test_hot_loop_on_own_write_of_a_kind_without_generation(server: FakeServer) -> None:
    """The same for ConfigMaps and Pods, where any change of version counts."""
    config_maps(server).put("a", data={"n": "1"})
    made = manager(server)
    count = 0

    async def act(request: Request) -> None:
        nonlocal count
        count += 1
        await made.client.patch(CONFIG_MAP, "a", "default", {"data": {"count": str(count)}})

    made.add(Controller("t", Recorder(act), for_=CONFIG_MAP))
    async with running(made):
        await settle(60)
        assert count == 1
        config_maps(server).put("a", data={"n": "2"})
        await settle(60)
        assert count == 2


async def test_the_echo_of_a_write_may_come_before_its_answer(server: FakeServer) -> None:
    """Seen here: the watch's socket was read before the answer's, and the echo looked foreign."""
    things(server).put("a", spec={"n": 1})
    made = manager(server)
    recorder = Recorder()

    async def act(request: Request) -> None:
        owner = made.cache.get(THING, "a", "default")
        assert owner is not None
        if made.cache.get(CONFIG_MAP, "child", "default") is None:
            body = set_controller_reference(owner, child_of(owner, "child"))
            await made.client.create(body)

    recorder.act = act
    original = server.request

    async def slow(request: HttpRequest) -> HttpResponse:
        answer = await original(request)
        await asyncio.sleep(1)
        return answer

    server.request = slow  # type: ignore[method-assign]
    made.add(Controller("t", recorder, for_=THING, owns=[CONFIG_MAP]))
    async with running(made):
        await settle(30)
        assert recorder.names == ["a"]
        config_maps(server).put("child", data={"drift": "yes"})
        await settle(5)
        assert recorder.names == ["a", "a"]


async def test_a_foreign_change_is_not_taken_for_our_write(server: FakeServer) -> None:
    """A write that changed nothing is answered with a version that somebody else made."""
    config_maps(server).put("a", data={"n": "1"})
    made = manager(server)
    seen: list[Any] = []

    async def act(request: Request) -> None:
        found = made.cache.get(CONFIG_MAP, "a", "default")
        assert found is not None
        seen.append(found.get("data")["n"])
        if len(seen) == 1:
            server.watch_delay = 1.0
            config_maps(server).put("a", data={"n": "2"})  # not told yet
            await made.client.patch(CONFIG_MAP, "a", "default", {"data": {"n": "2"}})

    made.add(Controller("t", Recorder(act), for_=CONFIG_MAP))
    async with running(made):
        await settle(10)
    # Either it is proven to be ours, with nothing of anybody else in it, or it is told.
    assert seen[0] == "1"
    assert made.cache.get(CONFIG_MAP, "a", "default").get("data") == {"n": "2"}  # type: ignore[union-attr]


async def test_a_user_edit_during_the_status_write_is_not_lost(server: FakeServer) -> None:
    """The answer to a status write already holds the edit; its event must still count."""
    things(server).put("a", spec={"n": 1})
    made = manager(server)
    seen: list[int] = []

    async def act(request: Request) -> None:
        found = made.cache.get(THING, "a", "default")
        assert found is not None
        seen.append(found.spec["n"])
        if len(seen) == 1:
            server.watch_delay = 1.0
            things(server).put("a", spec={"n": 2})
            await made.client.patch(THING, "a", "default", {"status": {"n": 1}})

    made.add(Controller("t", Recorder(act), for_=THING))
    async with running(made):
        await settle(10)
    assert seen == [1, 2]


async def test_restart_thundering_herd(server: FakeServer) -> None:
    """cluster-api#8052: after a restart a user's edit waited for all objects listed before it."""
    for i in range(500):
        things(server).put(f"t{i}", spec={"n": 1})
    recorder = Recorder()

    async def act(request: Request) -> None:
        await asyncio.sleep(0.01)

    recorder.act = act
    made = manager(server)
    made.add(Controller("t", recorder, for_=THING))
    async with running(made):
        await settle(0.5)
        edited_at = asyncio.get_running_loop().time()
        things(server).put("t499", spec={"n": 2})
        await settle(10)
    served = next(at for at, r in recorder.calls if r.name == "t499")
    assert served - edited_at < 0.1
    assert len(set(recorder.names)) == 500  # and none of the others is forgotten


async def test_a_missing_crd_is_recovered_from_and_blocks_nobody(server: FakeServer) -> None:
    """controller-runtime#2589, #1759: never recovered, healthy all the while."""
    config_maps(server).put("other", data={})
    things(server).served = False
    made = manager(server)
    waiting, other = Recorder(), Recorder()
    made.add(
        Controller("waits", waiting, for_=THING),
        Controller("works", other, for_=CONFIG_MAP),
    )
    async with running(made, wait=False):
        await settle(60)
        assert other.names == ["other"]
        assert "things.example.com" in made.not_ready()
        things(server).served = True
        things(server).put("a", spec={})
        await settle(11)
        assert waiting.names == ["a"]
        assert made.not_ready() == ""


async def test_an_optional_kind_that_appears_and_vanishes(server: FakeServer) -> None:
    """rhobs#804: an optional CRD that was installed later needed a restart."""
    things(server).put("a", spec={})
    config_maps(server).served = False
    recorder = Recorder()
    made = manager(server)
    made.add(Controller("t", recorder, for_=THING, owns=[Owns(CONFIG_MAP, optional=True)]))
    async with running(made):
        await settle(30)
        assert made.not_ready() == ""
        assert not made.cache.synced(CONFIG_MAP)
        assert len(recorder.calls) == 1
        config_maps(server).served = True
        await settle(11)
        assert made.cache.synced(CONFIG_MAP)
        assert len(recorder.calls) == 2
        config_maps(server).served = False
        config_maps(server).end_watches()
        server.faults.append(lambda r: status(404, "NotFound") if "configmaps" in r.path else None)
        await settle(40)
        assert not made.cache.synced(CONFIG_MAP)
        assert len(recorder.calls) == 3


async def test_deleted_and_recreated_with_the_same_generation(server: FakeServer) -> None:
    """kube-rs predicate_filtering_should_handle_recreated_resources_with_same_generation."""
    things(server).put("a", spec={"n": 1})
    recorder = Recorder()
    made = manager(server)
    made.add(Controller("t", recorder, for_=THING))
    async with running(made):
        await settle()
        for watch in things(server).watches:
            watch.silent = True
        things(server).delete("a")
        things(server).put("a", spec={"n": 1})
        things(server).compact()
        things(server).end_watches()
        await settle(10)
    assert len(recorder.calls) == 2


async def test_edits_that_do_not_bump_the_generation_count(server: FakeServer) -> None:
    """node-readiness#213: with a bare generation predicate, these edits were never seen."""
    things(server).put("a", spec={"n": 1})
    recorder = Recorder()
    made = manager(server)
    made.add(Controller("t", recorder, for_=THING))
    async with running(made):
        await settle()
        for meta in (
            {"labels": {"x": "y"}},
            {"annotations": {"x": "y"}},
            {"finalizers": ["other/one"]},
            {"deletionTimestamp": "2026-01-01T00:00:00Z"},
        ):
            things(server).put("a", meta=meta)
            await settle()
        assert len(recorder.calls) == 5
        things(server).put("a", status={"n": 1})
        await settle()
        assert len(recorder.calls) == 5


async def test_map_functions_get_the_old_and_the_new_object(server: FakeServer) -> None:
    """A ConfigMap that moves from one user to another concerns both."""
    for name in ("one", "two"):
        things(server).put(name, spec={})
    config_maps(server).put("shared", data={"for": "one"})
    recorder = Recorder()
    made = manager(server)

    def to_requests(obj: Object) -> list[Request]:
        return [Request("default", obj.get("data")["for"])]

    made.add(Controller("t", recorder, for_=THING, watches=[Watches(CONFIG_MAP, to_requests)]))
    async with running(made):
        await settle()
        recorder.calls.clear()
        config_maps(server).put("shared", data={"for": "two"})
        await settle()
    assert sorted(recorder.names) == ["one", "two"]


async def test_a_reconcile_that_asks_for_many_others_does_not_wait_for_itself(
    server: FakeServer,
) -> None:
    """kube-rs applier_must_not_deadlock_if_reschedule_buffer_fills: a bounded channel was full."""
    things(server).put("first", spec={})
    made = manager(server)

    async def act(request: Request) -> None:
        if request.name == "first":
            for number in range(1000):
                controller.enqueue(Request("default", f"t{number}"))

    recorder = Recorder(act)
    controller = Controller("t", recorder, for_=THING)
    made.add(controller)
    async with running(made):
        await settle()
    assert len(set(recorder.names)) == 1001
