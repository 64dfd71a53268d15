"""Events: series instead of repetition, limits instead of floods."""

import pytest
from structlog.testing import capture_logs

from kaos.runtime import EventRecorder, Object
from kaos.runtime.client import Client
from kaos.runtime.transport import HttpResponse
from tests.unit.runtime.fake import Body, FakeServer, status
from tests.unit.runtime.support import settle

pytestmark = pytest.mark.looptime
EVENTS = "/apis/events.k8s.io/v1/events"


def obj(name: str = "a") -> Object:
    metadata = {"name": name, "namespace": "default", "uid": name}
    return Object.from_dict({"apiVersion": "v1", "kind": "Thing", "metadata": metadata})


@pytest.fixture
def server() -> FakeServer:
    made = FakeServer()
    made.collection(EVENTS, "Event")
    return made


@pytest.fixture
def recorder(server: FakeServer) -> EventRecorder:
    return EventRecorder(Client(server), controller="kaos", instance="kaos-1")


def written(server: FakeServer) -> list[Body]:
    return list(server.collections[EVENTS].objects.values())


async def test_an_event_is_what_the_api_asks_for(
    server: FakeServer, recorder: EventRecorder
) -> None:
    recorder.event(obj(), type="Warning", reason="Failed", note="it failed")
    await recorder.flush()
    (event,) = written(server)
    assert event["regarding"]["name"] == "a"
    assert event["type"] == "Warning"
    assert event["action"] == "Failed"  # the API refuses an empty one
    assert event["reportingController"] == "kaos"
    assert event["reportingInstance"] == "kaos-1"
    assert event["eventTime"].endswith("Z")
    assert event["metadata"]["namespace"] == "default"


async def test_the_same_event_again_becomes_a_series(
    server: FakeServer, recorder: EventRecorder
) -> None:
    for _ in range(100):
        recorder.event(obj(), type="Normal", reason="Pulled", note="again")
    await recorder.flush()
    assert len(written(server)) == 1
    assert len(server.requests) == 2  # one event, one series; the rest is counted only
    await settle(31)
    recorder.event(obj(), type="Normal", reason="Pulled", note="again")
    await recorder.flush()
    assert written(server)[0]["series"]["count"] == 101
    await settle(400)
    recorder.event(obj(), type="Normal", reason="Pulled", note="again")
    await recorder.flush()
    assert len(written(server)) == 2  # a new series after a pause


async def test_one_object_cannot_flood(server: FakeServer, recorder: EventRecorder) -> None:
    for number in range(100):
        recorder.event(obj(), type="Normal", reason="R", note=f"number {number}")
    recorder.event(obj("b"), type="Normal", reason="R", note="mine")
    await recorder.flush()
    names = [e["regarding"]["name"] for e in written(server)]
    assert names.count("a") == 25
    assert names.count("b") == 1


async def test_what_cannot_be_written_is_dropped(
    server: FakeServer, recorder: EventRecorder
) -> None:
    server.faults.append(lambda r: status(403, "Forbidden", "namespace is being terminated"))
    recorder.event(obj(), type="Normal", reason="R", note="n")
    await recorder.flush()
    server.faults.clear()
    recorder.event(obj(), type="Normal", reason="R", note="other")
    await recorder.flush()
    assert len(written(server)) == 1


@pytest.mark.parametrize(("reason", "level"), [("NamespaceTerminating", "debug"), ("No", "info")])
async def test_the_end_of_a_namespace_is_no_news_to_an_operator(
    server: FakeServer, recorder: EventRecorder, reason: str, level: str
) -> None:
    server.faults.append(lambda r: status(403, "Forbidden", causes=[{"reason": reason}]))
    recorder.event(obj(), type="Normal", reason="R", note="n")
    with capture_logs() as logs:
        await recorder.flush()
    assert [(e["event"], e["log_level"]) for e in logs] == [("event.dropped", level)]


async def test_a_note_that_is_no_unicode_is_cleaned(
    server: FakeServer, recorder: EventRecorder
) -> None:
    """The name of a file, as os.fsdecode gives it, stopped the manager, at each start anew."""
    recorder.event(obj(), type="Warning", reason="Failed", note="no file caf\udce9")
    await recorder.flush()
    assert written(server)[0]["note"] == "no file caf?"


@pytest.mark.parametrize("answer", [b"<html>", b"", b"[]"])
async def test_an_answer_that_is_no_json_stops_nothing(
    server: FakeServer, recorder: EventRecorder, answer: bytes
) -> None:
    server.faults.append(lambda r: HttpResponse(200, answer))
    recorder.event(obj(), type="Normal", reason="R", note="n")
    with capture_logs() as logs:
        await recorder.flush()
    assert [e["event"] for e in logs] == ["event.dropped"]
    server.faults.clear()
    recorder.event(obj(), type="Normal", reason="R", note="other")
    await recorder.flush()
    assert len(written(server)) == 1


async def test_memory_is_bounded(recorder: EventRecorder) -> None:
    for number in range(5000):
        recorder.event(obj(), type="Normal", reason="R", note=str(number))
    assert len(recorder._waiting) == 1000


@pytest.mark.parametrize("text", ["x", "ü"])
async def test_what_is_too_long_is_cut_as_the_api_server_counts(
    server: FakeServer, text: str
) -> None:
    """It counts bytes, and refused a note of 1024 characters whose last was an ellipsis."""
    recorder = EventRecorder(Client(server), controller="kaos", instance=text * 200)
    recorder.event(obj(), type="Normal", reason=text * 200, note=text * 5000)
    await recorder.flush()
    (event,) = written(server)
    assert 1020 < len(event["note"].encode()) <= 1024
    for field in ("reason", "action", "reportingInstance"):
        assert 125 < len(event[field].encode()) <= 128


@pytest.mark.parametrize(
    ("name", "prefix"),
    [("a.b-1", "a.b-1."), ("system:node", "event."), ("A", "event."), ("x" * 199 + "-y", "event.")],
)
async def test_the_name_of_an_object_may_be_none_for_an_event(
    server: FakeServer, recorder: EventRecorder, name: str, prefix: str
) -> None:
    """https://github.com/kubernetes/kubernetes/issues/127594: the event was refused."""
    recorder.event(obj(name), type="Normal", reason="R", note="n")
    await recorder.flush()
    assert written(server)[0]["metadata"]["name"].startswith(prefix)
