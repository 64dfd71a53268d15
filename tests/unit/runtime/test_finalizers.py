"""Finalizers: set only where there is a clean-up, removed once it is done; others keep theirs."""

import pytest

from kaos.runtime import Controller
from tests.unit.runtime.fake import FakeServer, status
from tests.unit.runtime.support import (
    THING,
    Finalizing,
    Recorder,
    config_maps,
    manager,
    running,
    settle,
    things,
)

pytestmark = pytest.mark.looptime


@pytest.fixture
def server() -> FakeServer:
    made = FakeServer()
    things(made).put("a", spec={"n": 1})
    config_maps(made)
    return made


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
