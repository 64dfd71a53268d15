"""The classic bugs of watches and lists; the docstring names where each was told."""

import asyncio
from typing import Any

import pytest

from kaos.runtime import CONFIG_MAP, Controller
from kaos.runtime.client import Client
from kaos.runtime.informer import Informer
from kaos.runtime.store import Change
from kaos.runtime.transport import HttpRequest, HttpResponse
from kaos.runtime.watcher import IDLE_TIMEOUT, TRIES_BEFORE_LIST
from tests.unit.runtime.fake import GONE, TOO_LARGE, FakeServer, status
from tests.unit.runtime.support import (
    THING,
    THINGS,
    Recorder,
    empty,
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
    return empty()


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


@pytest.mark.parametrize("streaming", [True, False])
async def test_memory_on_big_lists(server: FakeServer, streaming: bool) -> None:
    """kr8s#726, KEP-3157: while a new list came in, all was in memory twice or more."""
    server.streaming, server.page_limit = streaming, 2
    for name in "abcde":
        things(server).put(name, spec={})
    informed = Informed(server)
    await settle()
    before = {obj.key: obj for obj in informed.informer.store}
    for watch in things(server).watches:
        watch.silent = True
    things(server).put("c", spec={"changed": True})
    things(server).compact()
    things(server).end_watches()
    await settle(10)
    after = {obj.key: obj for obj in informed.informer.store}
    kept = {key.name for key, obj in after.items() if obj is before[key]}
    assert len(after) == 5
    assert kept == {"a", "b", "d", "e"}  # of what has not changed, the new copies are dropped
    await informed.stop()


async def test_unbounded_handler_buffers(server: FakeServer) -> None:
    """client-go shared_informer.go, its infinite buffers: slow handlers fill the memory.

    Ours are called in line and only add keys: however long reconciles take, the keys are all.
    """
    release = asyncio.Event()

    async def act(_: object) -> None:
        await release.wait()

    recorder = Recorder(act)
    made = manager(server)
    controller = Controller("t", recorder, for_=THING)
    made.add(controller)
    async with running(made):
        for number in range(1000):
            things(server).put(f"t{number % 5}", spec={"n": number})
        await settle()
        assert len(controller._queue) <= 5
        assert made.cache.informer(THING).pending == 0
        release.set()
        await settle()
        assert set(recorder.names) == {f"t{n}" for n in range(5)}
        assert len(recorder.calls) <= 6
