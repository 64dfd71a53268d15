"""The manager: order of start and stop, grace, failures, probes."""

import asyncio
import gc
import socket

import aiohttp
import anyio
import pytest

from kaos.runtime import (
    CONFIG_MAP,
    Controller,
    HttpServer,
    LeaderElection,
    Request,
    RuntimeFailure,
)
from kaos.runtime.transport import HttpRequest
from tests.unit.runtime.fake import FakeServer, status
from tests.unit.runtime.support import (
    LEASES,
    THING,
    Recorder,
    manager,
    running,
    settle,
    things,
)

LOOPTIME = pytest.mark.looptime


@LOOPTIME
async def test_graceful_end_lets_the_reconcile_under_way_finish(server: FakeServer) -> None:
    """controller-runtime#967, #3211: reconciles were cut off in mid-write."""
    made = manager(server)
    ended = []

    async def act(request: Request) -> None:
        await asyncio.sleep(10)
        await made.client.patch(THING, "a", "default", {"status": {"done": True}})
        ended.append(request)

    made.add(Controller("t", Recorder(act), for_=THING))
    async with running(made):
        await settle(1)
    assert ended == [Request("default", "a")]
    assert things(server).objects["default", "a"]["status"] == {"done": True}
    assert server.closed


@LOOPTIME
async def test_what_takes_longer_than_the_grace_is_cancelled(server: FakeServer) -> None:
    cancelled = []

    async def act(request: Request) -> None:
        try:
            await asyncio.sleep(10_000)
        except asyncio.CancelledError:
            cancelled.append(request)
            raise

    made = manager(server, graceful_timeout=5)
    made.add(Controller("t", Recorder(act), for_=THING))
    start = asyncio.get_running_loop().time()
    async with running(made):
        await settle(1)
    assert len(cancelled) == 1
    assert 6 <= asyncio.get_running_loop().time() - start < 10


@LOOPTIME
async def test_a_lease_lost_during_the_grace_ends_it(server: FakeServer) -> None:
    """The reconciles under way went on beside another leader's for the rest of the 30 s."""
    server.collection(LEASES, "Lease")
    now = asyncio.get_running_loop().time
    cancelled = []

    async def act(request: Request) -> None:
        try:
            await asyncio.sleep(10_000)
        finally:
            cancelled.append(now())

    election = LeaderElection("lock", "default", renew_deadline=10, lease_duration=15)
    made = manager(server, election, graceful_timeout=300)
    made.add(Controller("t", Recorder(act), for_=THING))
    async with running(made):
        await settle(3)
        server.faults.append(lambda r: status(500) if "leases" in r.path else None)
        asked = now()
    assert 5 < cancelled[0] - asked < 15


@LOOPTIME
async def test_nothing_is_begun_after_the_stop(server: FakeServer) -> None:
    for n in range(10):
        things(server).put(f"t{n}", spec={})

    async def act(request: Request) -> None:
        await asyncio.sleep(1)

    recorder = Recorder(act)
    made = manager(server)
    made.add(Controller("t", recorder, for_=THING))
    async with running(made):
        await settle(0.5)
    assert len(recorder.calls) == 1


@LOOPTIME
async def test_no_task_is_left_behind(server: FakeServer) -> None:
    before = asyncio.all_tasks()
    made = manager(server)
    made.add(Controller("t", Recorder(), for_=THING, owns=[CONFIG_MAP], workers=8))
    async with running(made):
        await settle(5)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
    assert things(server).watches == []


@LOOPTIME
async def test_the_cache_still_follows_while_reconciles_end(server: FakeServer) -> None:
    made = manager(server)
    seen = []

    async def act(request: Request) -> None:
        await asyncio.sleep(3)
        things(server).put("late", spec={})
        await asyncio.sleep(1)
        seen.append(made.cache.get(THING, "late", "default"))

    made.add(Controller("t", Recorder(act), for_=THING))
    async with running(made):
        await settle(1)
    assert seen[0] is not None


@LOOPTIME
async def test_a_manager_runs_once_and_takes_no_controllers_then(server: FakeServer) -> None:
    made = manager(server)
    async with running(made):
        with pytest.raises(RuntimeError, match="runs already"):
            await made.run()
        with pytest.raises(RuntimeError, match="before the manager runs"):
            made.add(Controller("t", Recorder(), for_=THING))


@LOOPTIME
async def test_cancellation_by_the_loop_itself_stops_in_order_too(server: FakeServer) -> None:
    """asyncio.timeout and asyncio.TaskGroup cancel natively, past the scopes of anyio."""
    ended = []

    async def act(request: Request) -> None:
        await asyncio.sleep(5)
        ended.append(request)

    made = manager(server)
    made.add(Controller("t", Recorder(act), for_=THING))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await made.run()
    assert len(ended) == 1
    assert server.closed


async def test_a_part_that_fails_ends_the_manager_with_its_error(server: FakeServer) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        made = manager(server, http=HttpServer(port=port))
        with anyio.fail_after(5), pytest.raises(OSError, match="in use"):
            await made.run()
    assert server.closed


@LOOPTIME
async def test_a_controller_that_ends_by_itself_ends_the_manager(server: FakeServer) -> None:
    """The replica was ready, held the lease, and did nothing."""
    made = manager(server)
    controller = Controller("t", Recorder(), for_=THING)
    made.add(controller)
    with pytest.RaisesGroup(pytest.RaisesExc(RuntimeFailure, match="controller 't' ended")):
        async with running(made):
            controller.stop()
            await settle(10)


async def test_probes_and_metrics(server: FakeServer) -> None:
    server.faults.append(
        lambda r: status(403, "Forbidden", "no list for you") if "configmaps" in r.path else None
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    made = manager(server, http=HttpServer(port=port))
    made.add(Controller("t", Recorder(), for_=THING))
    made.watch(CONFIG_MAP)

    async def get(path: str) -> tuple[int, str]:
        async with session.get(f"http://127.0.0.1:{port}{path}") as response:
            return response.status, await response.text()

    async with running(made, wait=False), aiohttp.ClientSession() as session:
        await asyncio.sleep(0.3)
        assert await get("/healthz") == (200, "ok\n")
        code, text = await get("/readyz")
        assert code == 503
        assert "[-]kinds failed: configmaps: " in text
        assert "no list for you" in text
        assert (await get("/readyz?exclude=kinds"))[0] == 200
        assert (await get("/readyz/nonsense"))[0] == 404
        assert (await get("/healthz?verbose"))[1] == "[+]ping ok\n"
        code, text = await get("/metrics")
        assert code == 200
    # Dashboards for controller-runtime ask for these names, from the start.
    for line in (
        'controller_runtime_reconcile_total{controller="t",result="error"} 0.0',
        'controller_runtime_reconcile_total{controller="t",result="success"} 1.0',
        'controller_runtime_reconcile_errors_total{controller="t"} 0.0',
        'controller_runtime_max_concurrent_reconciles{controller="t"} 1.0',
        'workqueue_adds_total{controller="t",name="t"} 1.0',
        'workqueue_retries_total{controller="t",name="t"} 0.0',
        'workqueue_unfinished_work_seconds{controller="t",name="t"} 0.0',
        'workqueue_depth{controller="t",name="t",priority="-100"} 0.0',
        'kaos_runtime_cached_objects{resource="things.example.com"} 1.0',
    ):
        assert line in text.splitlines()


@LOOPTIME
async def test_the_collector_rests_while_the_cache_fills_and_then_overlooks_it(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = gc.get_threshold()
    seen: list[int] = []
    frozen: list[bool] = []
    monkeypatch.setattr("kaos.runtime.collector.gc.freeze", lambda: frozen.append(True))
    things(server).put("a", spec={})

    def look(request: HttpRequest) -> None:
        seen.append(gc.get_threshold()[0])

    server.faults.append(look)
    made = manager(server, tune_collector=True)
    made.watch(THING)
    async with running(made):
        await settle(1)
        assert max(seen) == 50_000
        assert (gc.get_threshold(), frozen) == (before, [True])
