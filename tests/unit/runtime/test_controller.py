"""Controllers on a manager: results, failures, timeouts, finalizers, pause, causes."""

import asyncio
import itertools
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from kaos.runtime import (
    CONFIG_MAP,
    Conflict,
    Controller,
    Forbidden,
    Object,
    Owns,
    Request,
    ResourceType,
    Result,
    TerminalError,
    Watches,
    content_changed,
    spec_changed,
)
from kaos.runtime.cache import NotWatched
from tests.unit.runtime.fake import FakeServer, status
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


def raising(*errors: Exception) -> Recorder:
    """A reconciler that raises these, one at a time, and then goes well."""
    left = list(errors)

    async def act(request: Request) -> None:
        if left:
            raise left.pop(0)

    return Recorder(act)


def value(made: Any, name: str, **labels: str) -> float:
    found = made.metrics.registry.get_sample_value(name, labels)
    assert found is not None, f"{name}{labels} does not exist"
    return float(found)


async def test_an_exception_is_tried_again_with_growing_delays(server: FakeServer) -> None:
    recorder = raising(*[ValueError("no")] * 4)
    made = manager(server)
    made.add(Controller("t", recorder, for_=THING))
    async with running(made):
        await settle(5)
    times = [at for at, _ in recorder.calls]
    gaps = [round(b - a, 3) for a, b in itertools.pairwise(times)]
    assert gaps == pytest.approx([0.005, 0.01, 0.02, 0.04], abs=0.003)
    assert value(made, "controller_runtime_reconcile_errors_total", controller="t") == 4
    assert value(made, "controller_runtime_reconcile_panics_total", controller="t") == 4
    labels = {"controller": "t", "result": "success"}
    assert value(made, "controller_runtime_reconcile_total", **labels) == 1


async def test_a_cancelled_error_of_what_a_reconcile_waits_for_ends_nobody(
    server: FakeServer,
) -> None:
    """A lookup shared with another task that was cancelled: the worker ended without a word."""
    for name in "bc":
        things(server).put(name, spec={"n": 1})

    async def act(request: Request) -> None:
        if request.name == "a" and recorder.names.count("a") < 3:
            shared = asyncio.create_task(asyncio.sleep(10))
            shared.cancel()
            await shared

    recorder = Recorder(act)
    made = manager(server)
    made.add(
        Controller("t", recorder, for_=THING),
        Controller("u", recorder, for_=THING, reconcile_timeout=5),
    )
    with capture_logs() as logs:
        async with running(made):
            await settle(5)
    assert sorted(recorder.names) == sorted("bcbc" + "aaaa")
    failed = [line for line in logs if line["event"] == "reconcile.failed"]
    assert [line["error"] for line in failed] == [
        "what it waited for was cancelled, but not the reconcile itself"
    ] * 2
    assert all(isinstance(line["exc_info"].__cause__, asyncio.CancelledError) for line in failed)


async def test_a_terminal_error_is_not_tried_again_until_a_change(server: FakeServer) -> None:
    recorder = raising(TerminalError("that cannot work"))
    made = manager(server)
    made.add(Controller("t", recorder, for_=THING))
    async with running(made):
        await settle(3600)
        assert len(recorder.calls) == 1
        things(server).put("a", spec={"n": 2})
        await settle()
    assert len(recorder.calls) == 2
    assert value(made, "controller_runtime_terminal_reconcile_errors_total", controller="t") == 1


async def test_a_namespace_that_ends_is_no_failure_to_try_again(server: FakeServer) -> None:
    causes = [{"reason": "NamespaceTerminating", "message": "namespace x is being terminated"}]
    recorder = raising(Forbidden(403, "Forbidden", "no new content", {"causes": causes}))
    made = manager(server)
    made.add(Controller("t", recorder, for_=THING))
    with capture_logs() as logs:
        async with running(made):
            await settle(60)
    assert len(recorder.calls) == 1
    assert not [entry for entry in logs if entry["log_level"] in ("warning", "error")]


async def test_terminal_errors_of_a_task_group_are_terminal_too(server: FakeServer) -> None:
    recorder = raising(ExceptionGroup("g", [TerminalError("a"), TerminalError("b")]))
    made = manager(server)
    made.add(Controller("t", recorder, for_=THING))
    async with running(made):
        await settle(60)
    assert len(recorder.calls) == 1


async def test_requeue_after(server: FakeServer) -> None:
    async def act(request: Request) -> Result | None:
        return Result(requeue_after=60) if len(recorder.calls) < 3 else None

    recorder = Recorder(act)
    made = manager(server)
    made.add(Controller("t", recorder, for_=THING))
    async with running(made):
        await settle(1000)
    times = [at for at, _ in recorder.calls]
    assert [b - a for a, b in itertools.pairwise(times)] == pytest.approx([60, 60])


async def test_a_reconcile_that_takes_too_long_is_cancelled_and_tried_again(
    server: FakeServer,
) -> None:
    async def act(request: Request) -> None:
        await asyncio.sleep(100 if len(recorder.calls) == 1 else 0)

    recorder = Recorder(act)
    made = manager(server)
    made.add(Controller("t", recorder, for_=THING, reconcile_timeout=5))
    async with running(made):
        await settle(20)
    assert [round(at) for at, _ in recorder.calls] == [0, 5]
    assert value(made, "controller_runtime_reconcile_timeouts_total", controller="t") == 1


async def test_one_object_is_never_reconciled_twice_at_once(server: FakeServer) -> None:
    busy: set[Request] = set()
    most = 0

    async def act(request: Request) -> None:
        nonlocal most
        assert request not in busy
        busy.add(request)
        most = max(most, len(busy))
        await asyncio.sleep(1)
        busy.remove(request)

    recorder = Recorder(act)
    things(server).put("b", spec={})
    made = manager(server)
    made.add(Controller("t", recorder, for_=THING, workers=4))
    async with running(made):
        for n in range(10):
            things(server).put("a", spec={"n": 100 + n})
            await settle(0.1)
        await settle(10)
    assert most == 2
    assert recorder.names.count("a") == 2  # at the start, and once for all that came meanwhile


async def test_work_waits_for_every_kind_that_is_needed(server: FakeServer) -> None:
    config_maps(server).put("needed", data={})
    held = True
    server.faults.append(
        lambda r: status(500, "InternalError") if held and "configmaps" in r.path else None
    )
    made = manager(server)

    async def act(request: Request) -> None:
        assert made.cache.get(CONFIG_MAP, "needed", "default") is not None

    recorder = Recorder(act)
    made.add(Controller("t", recorder, for_=THING, owns=[CONFIG_MAP]))
    async with running(made, wait=False):
        await settle(60)
        assert recorder.calls == []
        held = False
        await settle(70)
        assert recorder.names == ["a"]


async def test_an_optional_kind_that_may_not_be_listed_stops_nobody(server: FakeServer) -> None:
    server.faults.append(lambda r: status(403, "Forbidden") if "configmaps" in r.path else None)
    recorder = Recorder()
    made = manager(server)
    made.add(Controller("t", recorder, for_=THING, owns=[Owns(CONFIG_MAP, optional=True)]))
    async with running(made):
        assert made.not_ready() == ""
        await settle()
    assert recorder.names == ["a"]


async def test_paused_objects_are_left_alone(server: FakeServer) -> None:
    things(server).put("a", meta={"annotations": {"kaos.tools/paused": "true"}})
    recorder = Recorder()
    made = manager(server)
    made.add(Controller("t", recorder, for_=THING))
    async with running(made):
        await settle()
        assert recorder.calls == []
        things(server).put("a", meta={"annotations": {}})
        await settle()
    assert recorder.names == ["a"]


async def test_the_owner_of_a_child_is_reconciled_and_nobody_else(server: FakeServer) -> None:
    recorder = Recorder()
    made = manager(server)
    made.add(Controller("t", recorder, for_=THING, owns=[CONFIG_MAP]))
    async with running(made):
        await settle()
        recorder.calls.clear()
        owner = {"apiVersion": "example.com/v9", "kind": "Thing", "name": "a", "uid": "u"}
        for number, reference in enumerate(
            (
                owner | {"controller": True},  # another version of the group is the same kind
                owner,  # an owner, but not its controller
                owner | {"controller": True, "apiVersion": "other.com/v1"},
            )
        ):
            config_maps(server).put(f"c{number}", meta={"ownerReferences": [reference]})
        await settle()
    assert recorder.names == ["a"]


async def test_a_childs_status_that_nobody_reads_causes_nothing(server: FakeServer) -> None:
    """An autoscaler's status changes every 15 s: each time its owner was looked at."""
    owner = {"apiVersion": "example.com/v1", "kind": "Thing", "name": "a", "controller": True}
    recorder = Recorder()
    made = manager(server)
    owns = Owns(CONFIG_MAP, predicate=content_changed)
    made.add(Controller("t", recorder, for_=THING, owns=[owns]))
    changes: list[dict[str, Any]] = [
        {"data": {"n": "1"}, "meta": {"ownerReferences": [owner]}},
        {"status": {"n": 1}},
        {"status": {"n": 2}},
        {"data": {"n": "2"}},
        {"meta": {"labels": {"x": "y"}}},
    ]
    counts = []
    async with running(made):
        await settle()
        for change in changes:
            config_maps(server).put("child", **change)
            await settle()
            counts.append(len(recorder.calls))
    assert counts == [2, 2, 2, 3, 4]


async def test_a_change_made_by_another_controller_counts(server: FakeServer) -> None:
    """Own writes are those of the same reconcile, not of the same process."""
    made = manager(server)

    async def write(request: Request) -> None:
        owner = made.cache.get(THING, "a", "default")
        assert owner is not None
        if made.cache.get(CONFIG_MAP, "c", "default") is None:
            await made.client.create(child_of(owner, "c"))

    follower = Recorder()
    made.add(
        Controller("writer", Recorder(write), for_=THING, owns=[CONFIG_MAP]),
        Controller("follower", follower, for_=CONFIG_MAP),
    )
    async with running(made):
        await settle()
    assert follower.names == ["c"]


async def test_a_write_counts_for_other_objects_of_the_same_controller(server: FakeServer) -> None:
    """Thing a writes itself; thing b, which follows a, must be told."""
    things(server).put("b", spec={})
    made = manager(server)

    async def act(request: Request) -> None:
        if request.name == "a":
            await made.client.patch(THING, "a", "default", {"status": {"ready": True}})

    recorder = Recorder(act)

    def follows(obj: Object) -> list[Request]:
        return [Request("default", "b")] if obj.name == "a" else []

    made.add(Controller("t", recorder, for_=THING, watches=[Watches(THING, follows)]))
    async with running(made):
        await settle()
    assert recorder.names.count("a") == 1
    assert recorder.names.count("b") == 2


async def test_logs_say_who_what_and_why(server: FakeServer) -> None:
    lines: list[dict[str, Any]] = []

    async def act(request: Request) -> None:
        lines.append(dict(structlog.contextvars.get_contextvars()))

    made = manager(server)
    made.add(Controller("t", Recorder(act), for_=THING))
    async with running(made):
        await settle()
        things(server).put("a", spec={"n": 5})
        await settle()
    assert lines[0]["why"] == ("Thing default/a listed",)
    assert lines[1]["why"] == ("Thing default/a changed",)
    expected = {"controller": "t", "kind": "Thing", "namespace": "default", "name": "a"}
    expected["uid"] = things(server).objects["default", "a"]["metadata"]["uid"]
    assert expected.items() <= lines[0].items()
    assert lines[0]["reconcile_id"] != lines[1]["reconcile_id"]
    assert structlog.contextvars.get_contextvars() == {}


async def test_conflicts_are_no_alarm(server: FakeServer) -> None:
    recorder = raising(Conflict(409, "Conflict", "changed"))
    made = manager(server)
    made.add(Controller("t", recorder, for_=THING))
    with capture_logs() as logs:
        async with running(made):
            await settle()
    assert len(recorder.calls) == 2
    assert {line["log_level"] for line in logs} <= {"info", "debug"}


async def test_a_broken_map_function_does_not_stop_the_watch(server: FakeServer) -> None:
    def broken(obj: Object) -> list[Request]:
        raise KeyError("spec")

    recorder = Recorder()
    made = manager(server)
    made.add(Controller("t", recorder, for_=THING, watches=[Watches(CONFIG_MAP, broken)]))
    async with running(made):
        config_maps(server).put("c")
        await settle()
        things(server).put("a", spec={"n": 2})
        await settle()
    assert len(recorder.calls) == 2
    assert made.cache.get(CONFIG_MAP, "c", "default") is not None


async def test_reading_what_nobody_watches_is_a_mistake_that_says_so(server: FakeServer) -> None:
    made = manager(server)
    with pytest.raises(NotWatched, match=r"secrets is not in the cache.*manager\.watch"):
        made.cache.get(ResourceType("", "v1", "Secret", "secrets"), "x", "default")


def test_names_are_unique() -> None:
    made = manager(FakeServer())
    made.add(Controller("t", Recorder(), for_=THING))
    with pytest.raises(ValueError, match="named 't' already"):
        made.add(Controller("t", Recorder(), for_=CONFIG_MAP))
    with pytest.raises(ValueError, match="at least one worker"):
        Controller("x", Recorder(), for_=THING, workers=0)


def test_kinds_without_generation_fall_back_to_any_change() -> None:
    def obj(version: str, **meta: Any) -> Object:
        metadata = {"name": "a", "resourceVersion": version, **meta}
        return Object.from_dict({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})

    assert spec_changed(obj("1"), obj("2"))
    assert not spec_changed(obj("1", generation=1), obj("2", generation=1))
    assert spec_changed(obj("1", generation=1), obj("2", generation=2))
    assert spec_changed(obj("9", generation=1), obj("2", generation=1)), "restored from a backup"
    assert spec_changed(None, obj("1", generation=1))
    assert spec_changed(obj("1", generation=1), None)
