"""Finalizers: set only where there is a clean-up, removed once it is done; others keep theirs."""

import asyncio

import pytest

from kaos.runtime import (
    CONFIG_MAP,
    Controller,
    LeaderElection,
    Manager,
    Request,
    Selection,
)
from kaos.runtime.client import Client
from kaos.runtime.leader import Elector
from kaos.testing.inprocess import CONFIG, in_process
from tests.unit.runtime.fake import FakeServer, status
from tests.unit.runtime.support import (
    LEASES,
    THING,
    Finalizing,
    Recorder,
    manager,
    running,
    settle,
    things,
)

pytestmark = pytest.mark.looptime


async def test_finalizers_only_when_there_is_a_clean_up(server: FakeServer) -> None:
    """kopf#640: objects were left undeletable by controllers that had nothing to clean up."""
    made = manager(server)
    made.add(Controller("t", Recorder(), for_=THING))
    async with running(made):
        await settle()
    assert "finalizers" not in things(server).objects["default", "a"]["metadata"]


async def test_finalizer_leak(server: FakeServer) -> None:
    """kopf PR#361, zalando#24: removed too early, or never."""
    recorder = Finalizing()
    recorder.failures = 2
    made = manager(server)
    made.add(Controller("t", recorder, for_=THING))
    async with running(made):
        await settle()
        assert things(server).objects["default", "a"]["metadata"]["finalizers"] == ["example.com/t"]
        assert recorder.names == ["a"]  # adding it did not cause a second one
        things(server).delete("a")
        await settle(5)
        assert recorder.finalized == ["a"] * 3  # twice it failed
        assert ("default", "a") not in things(server).objects
        assert recorder.names == ["a", "a"]  # the last one finds it gone


async def test_a_crash_between_clean_up_and_removal_cleans_up_again(server: FakeServer) -> None:
    """kube-rs finalizer.rs: the removal must be tried again, and the clean-up with it."""
    recorder = Finalizing()
    made = manager(server)
    made.add(Controller("t", recorder, for_=THING))
    failures = [status(500, "InternalError")]
    async with running(made):
        await settle()
        things(server).delete("a")
        server.faults.append(lambda r: failures.pop() if failures and r.method == "PATCH" else None)
        await settle(5)
    assert recorder.finalized == ["a", "a"]
    assert ("default", "a") not in things(server).objects


async def test_two_controllers_that_edit_finalizers_at_once_lose_nothing(
    server: FakeServer,
) -> None:
    """Blind merges of the list put back what the other one had removed."""
    made = manager(server)
    made.add(
        Controller("one", Finalizing(), for_=THING),
        Controller("two", Finalizing(), for_=THING),
    )
    server.latency = 0.05
    async with running(made):
        await settle(5)
        found = things(server).objects["default", "a"]["metadata"]["finalizers"]
        assert sorted(found) == ["example.com/one", "example.com/two"]
        things(server).delete("a")
        await settle(5)
    assert ("default", "a") not in things(server).objects


def leaves(server: FakeServer) -> None:
    """What a watch with a selector tells of an object that was relabelled."""
    server.version += 1
    body = things(server).objects["default", "a"]
    body["metadata"]["resourceVersion"] = str(server.version)
    things(server)._tell("DELETED", body)


def let_go(server: FakeServer) -> None:
    """A deletion that was decided on before the finalizer was added, and done afterwards."""
    collection = things(server)
    server.version += 1
    body = collection.objects.pop(("default", "a"))
    metadata = {**body["metadata"], "resourceVersion": str(server.version)}
    collection._tell("DELETED", {**body, "metadata": metadata})


async def test_what_the_server_lets_go_despite_its_finalizer_is_cleaned_up(
    server: FakeServer,
) -> None:
    """kubernetes#77988: adding a finalizer and a deletion at once both go well, and it is gone."""
    recorder = Finalizing()
    made = manager(server)
    made.add(Controller("t", recorder, for_=THING))

    async def act(request: Request) -> None:
        if not recorder.finalized:
            let_go(server)
            await asyncio.sleep(0.1)  # and here it makes what is to be cleaned up

    recorder.act, recorder.failures = act, 1
    async with running(made):
        await settle(5)
        assert recorder.finalized == ["a", "a"]  # the first failed
        things(server).put("a", spec={"n": 2})
        await settle(5)
        assert recorder.finalized == ["a", "a"]
        assert recorder.names == ["a", "a", "a"]  # before, when it was gone, and its successor


async def test_what_leaves_the_selection_is_not_cleaned_up() -> None:
    """Data loss: to a watch with a selector, a relabelled object is a deleted one."""
    async with in_process() as transport:
        client = Client(transport)
        metadata = {"name": "a", "namespace": "default", "labels": {"shard": "1"}}
        await client.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
        recorder = Finalizing()
        made = Manager(CONFIG, transport=transport)
        made.add(Controller("t", recorder, for_=CONFIG_MAP, select=Selection("shard=1")))
        async with running(made):
            await settle(1)
            assert (await client.get(CONFIG_MAP, "a", "default")).metadata.finalizers
            for shard in "21":  # it goes, and it comes back
                patch = {"metadata": {"labels": {"shard": shard}}}
                await client.patch(CONFIG_MAP, "a", "default", patch)
                await settle(1)
                assert recorder.finalized == []
            await client.delete(CONFIG_MAP, "a", "default")
            await settle(1)
        assert recorder.finalized == ["a"]


async def test_what_leaves_the_selection_and_is_deleted_at_once_is_cleaned_up(
    server: FakeServer,
) -> None:
    """By the time we ask it goes, and nothing else tells us: the watch shows it no more."""
    recorder = Finalizing()
    made = manager(server)
    made.add(Controller("t", recorder, for_=THING))
    async with running(made):
        await settle()
        leaves(server)
        things(server).delete("a")
        await settle(5)
    assert recorder.finalized == ["a"]
    assert ("default", "a") not in things(server).objects


async def test_what_is_not_served_any_more_is_not_cleaned_up(server: FakeServer) -> None:
    """Data loss: `served: false` for a version of a CRD looked like the deletion of all of it."""
    recorder = Finalizing()
    made = manager(server)
    made.add(Controller("t", recorder, for_=THING))
    async with running(made):
        await settle()
        leaves(server)  # what this means cannot be asked for a while
        things(server).served = False
        things(server).end_watches()
        await settle(60)
        assert made.cache.get(THING, "a", "default") is None
        assert recorder.finalized == []
        things(server).served = True
        await settle(2000)
        assert recorder.finalized == []
        things(server).delete("a")
        await settle(5)
    assert recorder.finalized == ["a"]


async def test_a_standby_cleans_up_after_nothing_that_is_lost(server: FakeServer) -> None:
    """It would do so when it comes to lead, and hit what a successor of that name has by then."""
    server.collection(LEASES, "Lease")
    settings = LeaderElection("lock", "default", identity="other")
    leader = Elector(Client(server), settings)
    await leader.acquire()
    things(server).put("a", spec={"n": 1}, meta={"finalizers": ["example.com/t"]})
    recorder = Finalizing()
    made = manager(server, LeaderElection("lock", "default", identity="me"))
    made.add(Controller("t", recorder, for_=THING))
    async with running(made, wait=False):
        await settle(3)
        let_go(server)
        await settle(1)
        await leader.release()
        await settle(10)
        assert recorder.names == ["a"]
    assert recorder.finalized == []
