"""One test per bug that bit the libraries before us; the docstring names where it was told."""

import asyncio
from typing import Any

import pytest

from kaos.runtime import CONFIG_MAP, Controller, Object, Owns, Request, Result, Watches
from kaos.runtime.client import Client
from kaos.runtime.informer import Informer
from kaos.runtime.owners import set_controller_reference
from kaos.runtime.store import Change
from kaos.runtime.transport import HttpRequest, HttpResponse
from kaos.runtime.watcher import IDLE_TIMEOUT, TRIES_BEFORE_LIST
from tests.unit.runtime.fake import GONE, TOO_LARGE, FakeServer, status
from tests.unit.runtime.support import (
    THING,
    THINGS,
    Recorder,
    child_of,
    config_maps,
    manager,
    running,
    settle,
    things,
)

pytestmark = pytest.mark.looptime


class Informed:
    """An informer that runs, and what it told."""

    def __init__(self, server: FakeServer) -> None:
        self.informer = Informer(Client(server), THING)
        self.changes: list[Change] = []
        self.informer.add_handler(lambda change, _: self.changes.append(change))
        self.task = asyncio.create_task(self.informer.run())

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@pytest.fixture
def server() -> FakeServer:
    made = FakeServer()
    things(made)
    config_maps(made)
    return made


async def test_deletes_lost_across_a_relist(server: FakeServer) -> None:
    """controller-runtime#2212, beats#23419: a deletion during a 410 gap was never told."""
    collection = things(server)
    for name in ("stays", "goes", "returns"):
        collection.put(name, spec={"n": 1})
    informed = Informed(server)
    informed.informer.store.add_index("spec", lambda o: [o.uid])
    await settle()
    old = collection.objects["default", "returns"]["metadata"]["uid"]
    informed.changes.clear()

    for watch in collection.watches:
        watch.silent = True
    collection.delete("goes")
    collection.delete("returns")
    collection.put("returns", spec={"n": 2})
    collection.compact()
    collection.end_watches()
    await settle(10)

    told = [(c.latest.name, c.old is not None, c.new is not None) for c in informed.changes]
    assert sorted(told) == [
        ("goes", True, False),
        ("returns", False, True),
        ("returns", True, False),
    ]
    assert informed.informer.store.find("spec", old) == []
    assert len(informed.informer.store) == 2
    await informed.stop()


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


async def test_watch_dies_silently(server: FakeServer) -> None:
    """client-go#374, kopf#1276: a half-dead connection was waited for until a restart."""
    informed = Informed(server)
    await settle()
    for watch in things(server).watches:
        watch.silent = True
    things(server).put("a")
    version = informed.informer.store
    assert len(version) == 0
    await asyncio.sleep(IDLE_TIMEOUT + 1)
    assert len(informed.informer.store) == 1
    assert server.asked(watch=False) == []  # resumed where it was, without a list
    last = server.asked(watch=True)[-1]
    assert last.params["resourceVersion"] == "100"
    await informed.stop()


@pytest.mark.parametrize("form", ["http", "event", "continue"])
async def test_410_in_each_form_leads_to_one_list(server: FakeServer, form: str) -> None:
    """kr8s#476, lightkube#153, kubernetes_asyncio#327: endless loops, or a dead watch."""
    server.streaming = False
    collection = things(server)
    for i in range(5):
        collection.put(f"t{i}")
    server.page_limit = 2
    informed = Informed(server)
    await settle()
    before = len(server.asked(watch=False))
    collection.put("late")
    collection.compact()
    if form == "continue":
        expired = False

        def fault(request: HttpRequest) -> HttpResponse | None:
            nonlocal expired
            if "continue" in request.params and not expired:
                expired = True
                return GONE
            return None

        server.faults.append(fault)
    line = b'{"type":"ERROR","object":' + GONE.body + b"}\n" if form == "event" else None
    if form != "event":
        server.faults.append(_once(lambda r: "watch" in r.params, GONE))
    collection.end_watches(line)
    await settle(20)
    lists = server.asked(watch=False)[before:]
    newest = [r for r in lists if "continue" not in r.params]
    assert all("resourceVersion" not in r.params for r in newest)
    assert len(newest) == (2 if form == "continue" else 1)
    assert len(informed.informer.store) == 6
    await informed.stop()


def _once(match: Any, answer: HttpResponse) -> Any:
    left = [answer]

    def fault(request: HttpRequest) -> HttpResponse | None:
        return left.pop() if left and match(request) else None

    return fault


async def test_a_server_that_closes_without_410(server: FakeServer) -> None:
    """fabric8#7896, kubernetes#137089: instant closes led to an endless hot loop."""
    server.streaming = False
    informed = Informed(server)
    await settle()

    def close_at_once(request: HttpRequest) -> None:
        if "watch" in request.params:
            asyncio.get_running_loop().call_later(0.001, things(server).end_watches)

    server.faults.append(close_at_once)
    lists, watches = len(server.asked(watch=False)), len(server.asked(watch=True))
    things(server).end_watches()
    await settle(100)
    assert 1 <= len(server.asked(watch=False)) - lists <= 2
    assert len(server.asked(watch=True)) - watches <= 2 * TRIES_BEFORE_LIST + 2
    await informed.stop()


async def test_too_large_resource_version_after_failover(server: FakeServer) -> None:
    """Reflector, isTooLargeResourceVersionError: a replica that lags was asked for ever."""
    informed = Informed(server)
    things(server).put("a")
    await settle()
    server.faults.append(
        _once(lambda r: r.params.get("resourceVersion") not in ("", None), TOO_LARGE)
    )
    things(server).end_watches()
    await settle(10)
    things(server).put("b")
    await settle()
    assert len(informed.informer.store) == 2
    await informed.stop()


async def test_429_storms_cause_no_list(server: FakeServer) -> None:
    """client-go TestNoRelistOnTooManyRequests: every refused watch became a full list."""
    informed = Informed(server)
    await settle()
    busy = HttpResponse(429, status(429, "TooManyRequests").body, retry_after=1.0)
    refusals = [busy] * 100
    server.faults.append(lambda r: refusals.pop() if refusals and "watch" in r.params else None)
    things(server).end_watches()
    await settle(100 * 65)
    assert refusals == []
    things(server).put("a")
    await settle()
    assert len(informed.informer.store) == 1
    assert server.asked(watch=False) == []
    assert all("sendInitialEvents" not in r.params for r in server.asked(watch=True)[1:])
    await informed.stop()


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


async def test_one_forbidden_list_leaves_running_watches_alone(server: FakeServer) -> None:
    """kr8s: a 403 on any request closed the pool under all watches."""
    server.faults.append(lambda r: status(403, "Forbidden") if "configmaps" in r.path else None)
    recorder = Recorder()
    made = manager(server)
    made.add(Controller("t", recorder, for_=THING))
    made.watch(CONFIG_MAP)
    async with running(made, wait=False):
        await settle(IDLE_TIMEOUT - 10)
        things(server).put("a", spec={})
        await settle()
        assert recorder.names == ["a"]
        assert "configmaps" in made.not_ready()
        assert "Forbidden" in made.not_ready()
        assert len([r for r in server.asked(watch=True) if r.path == THINGS]) == 1


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
