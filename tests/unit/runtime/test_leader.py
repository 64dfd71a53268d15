"""Leader election: one writer, also when loops block and servers vanish."""

import asyncio
import time
from contextlib import AbstractAsyncContextManager

import anyio
import pytest

from kaos.runtime import (
    ClusterConfig,
    Controller,
    LeaderElection,
    LeadershipLost,
    Manager,
    NotLeader,
    Request,
    Result,
)
from kaos.runtime.client import Client
from kaos.runtime.leader import Elector
from kaos.runtime.transport import HttpRequest, HttpResponse, Stream
from tests.unit.runtime.fake import Body, FakeServer, Fault, refused, status
from tests.unit.runtime.support import (
    LEASES,
    THING,
    Recorder,
    manager,
    running,
    settle,
    things,
)

pytestmark = pytest.mark.looptime
SETTINGS = LeaderElection("lock", "default", identity="me")
GAUGE = "leader_election_master_status", {"name": "lock"}


@pytest.fixture
def server() -> FakeServer:
    made = FakeServer()
    made.collection(LEASES, "Lease")
    things(made).put("a", spec={"n": 1})
    return made


def lease(server: FakeServer) -> Body:
    body: Body = server.collections[LEASES].objects["default", "lock"]["spec"]
    return body


def elector(server: FakeServer, name: str) -> Elector:
    return Elector(Client(server), LeaderElection("lock", "default", identity=name))


async def test_a_free_lease_is_taken_and_renewed(server: FakeServer) -> None:
    one = elector(server, "one")
    await one.acquire()
    assert lease(server)["holderIdentity"] == "one"
    before = lease(server)["renewTime"]
    task = asyncio.create_task(one.renew())
    await settle(60)
    assert one.leading
    assert lease(server)["renewTime"] != before
    assert lease(server)["leaseTransitions"] == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_held_lease_is_waited_for_until_it_expires(server: FakeServer) -> None:
    await elector(server, "one").acquire()
    two = elector(server, "two")
    start = asyncio.get_running_loop().time()
    await two.acquire()
    waited = asyncio.get_running_loop().time() - start
    assert 15 <= waited <= 18  # by our own clock, from when we first saw it
    assert lease(server)["leaseTransitions"] == 2


async def test_a_released_lease_is_taken_at_once(server: FakeServer) -> None:
    one, two = elector(server, "one"), elector(server, "two")
    await one.acquire()
    waiting = asyncio.create_task(two.acquire())
    await settle(3)
    await one.release()
    await asyncio.wait_for(waiting, 3)
    assert not one.leading


async def test_a_release_never_takes_the_lease_from_another(server: FakeServer) -> None:
    one = elector(server, "one")
    await one.acquire()
    two = elector(server, "two")
    await two.acquire()
    await one.release()
    assert lease(server)["holderIdentity"] == "two"


async def test_a_release_is_tried_again_after_a_conflict(server: FakeServer) -> None:
    """client-go TestReleaseRetriesOnConflict: a release was lost, and others waited 15 s."""
    one = elector(server, "one")
    await one.acquire()
    conflicts = [status(409, "Conflict")]
    server.faults.append(lambda r: conflicts.pop() if conflicts and r.method == "PUT" else None)
    await one.release()
    assert lease(server)["holderIdentity"] == ""


@pytest.mark.parametrize("fault", [refused, lambda _: status(500)], ids=["refused", "500"])
async def test_a_lease_that_cannot_be_renewed_is_given_up_in_time(
    server: FakeServer, fault: Fault
) -> None:
    """A last attempt was begun after the deadline, and went on while another one might lead."""
    now = asyncio.get_running_loop().time
    for _ in range(30):  # pauses are of random length
        one = elector(server, "one")
        await one.acquire()
        start = now()
        server.faults.append(fault)
        with pytest.raises(LeadershipLost):
            await one.renew()
        assert SETTINGS.renew_deadline - 1 < now() - start < SETTINGS.lease_duration - 2
        server.faults.clear()


class Hanging:
    """A transport which does not answer writes of the lease, or reads, from some time on."""

    def __init__(self, server: FakeServer, method: str = "PUT") -> None:
        self.server = server
        self.hangs = False
        self.times = 1000
        self._method = method

    async def request(self, request: HttpRequest) -> HttpResponse:
        if self.hangs and self.times and request.method == self._method:
            self.times -= 1
            await asyncio.sleep(request.timeout)
            raise refused(request)
        return await self.server.request(request)

    def stream(self, request: HttpRequest) -> AbstractAsyncContextManager[Stream]:
        return self.server.stream(request)

    async def close(self) -> None:
        await self.server.close()


async def test_a_write_of_the_lease_that_hangs_ends_with_the_lease(server: FakeServer) -> None:
    """A write runs to its answer: so this one did for 30 s, while the next leader worked."""
    transport = Hanging(server)
    made = Manager(ClusterConfig.direct("http://x"), transport=transport, leader_election=SETTINGS)

    async def again(_: Request) -> Result:
        return Result(requeue_after=1)

    recorder = Recorder(again)
    made.add(Controller("t", recorder, for_=THING))
    task = asyncio.create_task(made.run())
    await settle(5)
    start = asyncio.get_running_loop().time()
    transport.hangs = True
    with pytest.raises(LeadershipLost):
        await task
    assert asyncio.get_running_loop().time() - start <= SETTINGS.renew_deadline
    assert recorder.calls[-1][0] - start <= SETTINGS.renew_deadline


async def test_one_dead_connection_does_not_cost_the_lease(server: FakeServer) -> None:
    """An API server that was gone without a word left it, and one read took all the time."""
    transport = Hanging(server, "GET")
    one = Elector(Client(transport), SETTINGS)
    await one.acquire()
    task = asyncio.create_task(one.renew())
    transport.times = 1
    transport.hangs = True
    await settle(60)
    assert transport.times == 0
    assert one.leading
    task.cancel()
    await asyncio.wait([task])


async def test_a_release_that_hangs_is_given_up(server: FakeServer) -> None:
    transport = Hanging(server)
    one = Elector(Client(transport), SETTINGS)
    await one.acquire()
    transport.hangs = True
    start = asyncio.get_running_loop().time()
    await one.release()
    assert asyncio.get_running_loop().time() - start <= 5


async def test_a_lease_of_a_broken_number_of_seconds_is_not_shorter_than_said(
    server: FakeServer,
) -> None:
    """The API takes whole seconds: 1.9 became 1, while the leader took itself for one for 1.8."""

    def odd(name: str) -> LeaderElection:
        return LeaderElection(
            "lock", "default", name, lease_duration=1.9, renew_deadline=1.8, retry_period=0.2
        )

    one, two = Elector(Client(server), odd("one")), Elector(Client(server), odd("two"))
    await one.acquire()
    await two.acquire()
    assert not one.leading


@pytest.mark.looptime(False)
async def test_leader_split_brain_by_a_blocked_event_loop(server: FakeServer) -> None:
    """kubernetes#23731, cilium#42920: a leader that was frozen wrote after its lease expired."""
    settings = LeaderElection(
        "lock", "default", lease_duration=0.3, renew_deadline=0.2, retry_period=0.05
    )
    guard = Elector(Client(server), settings)
    client = Client(server)
    client.guard(guard.check)
    await guard.acquire()
    await client.patch(THING, "a", "default", {"status": {"n": 1}})
    time.sleep(0.4)  # noqa: ASYNC251 - the very failure: the loop is blocked past the lease
    writes = len(server.asked(method="PATCH"))
    with pytest.raises(NotLeader):
        await client.patch(THING, "a", "default", {"status": {"n": 2}})
    assert len(server.asked(method="PATCH")) == writes
    await client.get(THING, "a", "default")  # reading is for everybody


async def test_only_the_leader_reconciles_and_the_next_takes_over(server: FakeServer) -> None:
    recorders = [Recorder(), Recorder()]
    managers = [
        manager(server, LeaderElection("lock", "default", identity=f"replica-{n}"))
        for n in range(2)
    ]
    for made, recorder in zip(managers, recorders, strict=True):
        made.add(Controller("t", recorder, for_=THING))
    async with running(managers[1], wait=False):
        await settle(5)
        async with running(managers[0], wait=False):
            await settle(5)
            assert [len(r.calls) for r in recorders] == [0, 1]
            assert managers[0].cache.synced(THING)  # a standby's cache is warm
            assert managers[0].not_ready() == ""
            told = [made.metrics.registry.get_sample_value(*GAUGE) for made in managers]
            assert told == [0, 1]  # of a standby it said nothing, so "no leader" looked like none
    assert lease(server)["holderIdentity"] == ""  # released by the leader


async def test_a_lost_lease_ends_the_manager_at_once(server: FakeServer) -> None:
    """controller-runtime#1132: a leader that lost its lease went on."""
    recorder = Recorder()

    async def slow(_: object) -> None:
        await asyncio.sleep(10_000)

    recorder.act = slow
    made = manager(server, SETTINGS)
    made.add(Controller("t", recorder, for_=THING))
    task = asyncio.create_task(made.run())
    await settle(5)
    server.faults.append(refused)
    start = asyncio.get_running_loop().time()
    with pytest.raises(LeadershipLost, match="not renewed"):
        await task
    assert asyncio.get_running_loop().time() - start < 15  # no grace for the reconcile
    assert server.closed


async def test_a_lease_stuck_while_the_server_is_away_turns_readiness_false(
    server: FakeServer,
) -> None:
    """controller-runtime#3298: the standby was ready though it could never lead."""
    await elector(server, "somebody").acquire()
    made = manager(server, SETTINGS)
    made.add(Controller("t", Recorder(), for_=THING))
    async with running(made, wait=False):
        await settle(5)
        check = made.readiness()["lease"]
        assert check() == ""
        server.faults.append(refused)
        await settle(60)
        assert "lease" in check()


async def test_no_leader_work_begins_at_shutdown(server: FakeServer) -> None:
    """controller-runtime#2719: a standby that was stopped started its controllers on the way."""
    await elector(server, "somebody").acquire()
    recorder = Recorder()
    made = manager(server, SETTINGS)
    made.add(Controller("t", recorder, for_=THING))
    async with running(made, wait=False):
        await settle(5)
    await settle(60)
    assert recorder.calls == []
    assert lease(server)["holderIdentity"] == "somebody"


async def test_the_lease_is_released_after_the_last_write(server: FakeServer) -> None:
    """cr "should only cancel the leader election after all runnables are done"."""
    made = manager(server, SETTINGS)

    async def act(request: object) -> None:
        with anyio.CancelScope(shield=True):
            await asyncio.sleep(5)
        await made.client.patch(THING, "a", "default", {"status": {"done": True}})

    made.add(Controller("t", Recorder(act), for_=THING))
    async with running(made):
        await settle(1)
    assert things(server).objects["default", "a"]["status"] == {"done": True}
    writes = [r for r in server.asked() if r.method != "GET"]
    assert writes[-1].path.endswith("/leases/lock")
    assert lease(server)["holderIdentity"] == ""


async def test_a_new_leader_acts_on_nothing_older_than_its_election(server: FakeServer) -> None:
    """The chaos test: a standby whose watch lagged made things for an object that was gone."""
    predecessor = elector(server, "predecessor")
    await predecessor.acquire()
    recorder = Recorder()
    seen: list[object] = []

    async def act(request: Request) -> None:
        seen.append(made.cache.get(THING, request.name, request.namespace))

    recorder.act = act
    made = manager(server, SETTINGS)
    made.add(Controller("t", recorder, for_=THING))
    async with running(made, wait=False):
        await settle(5)
        for watch in things(server).watches:
            watch.silent = True
        things(server).delete("a")
        assert made.cache.get(THING, "a", "default") is not None  # the standby does not know
        await predecessor.release()
        await settle(10)
        assert lease(server)["holderIdentity"] == "me"
    assert seen == [None]


async def test_a_new_leader_waits_for_no_watch_that_rests_after_failures(
    server: FakeServer,
) -> None:
    predecessor = elector(server, "predecessor")
    await predecessor.acquire()
    recorder = Recorder()
    made = manager(server, SETTINGS)
    made.add(Controller("t", recorder, for_=THING))
    broken = True

    def fault(request: HttpRequest) -> HttpResponse | None:
        return status(500, "InternalError") if broken and "watch" in request.params else None

    server.faults.append(fault)
    renewing = asyncio.create_task(predecessor.renew())
    async with running(made, wait=False):
        await settle(100)  # by now it waits half a minute between two tries
        renewing.cancel()
        broken = False
        things(server).put("b", spec={})
        await predecessor.release()
        await settle(4)
        assert sorted(recorder.names) == ["a", "b"]


async def test_a_leader_that_finds_its_lease_free_again_has_missed_another(
    server: FakeServer,
) -> None:
    """Frozen while another replica led and released: its cache may be older than what that did."""
    one = elector(server, "one")
    await one.acquire()
    server.collections[LEASES].put("lock", spec={**lease(server), "holderIdentity": ""})
    with pytest.raises(LeadershipLost):
        await one.renew()
    assert lease(server)["holderIdentity"] == ""


def test_settings_that_cannot_be_safe_are_refused() -> None:
    with pytest.raises(ValueError, match="lease_duration > renew_deadline"):
        LeaderElection("lock", "default", lease_duration=5, renew_deadline=10)


async def test_a_machine_that_slept_past_the_deadline_wakes_up_as_no_leader(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python's clock stands still while a machine is suspended: by it, the lease would be ours."""
    slept = 0.0
    monkeypatch.setattr("kaos.runtime.leader.awake", lambda: slept)
    one = elector(server, "one")
    await one.acquire()
    one.check()
    slept = 60.0
    with pytest.raises(NotLeader):
        one.check()
    server.collections[LEASES].put("lock", spec={**lease(server), "holderIdentity": "two"})
    with pytest.raises(LeadershipLost):
        await one.renew()
    assert lease(server)["holderIdentity"] == "two"
