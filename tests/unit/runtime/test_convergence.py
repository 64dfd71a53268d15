"""Whatever happens between us and the server: in the end the cache is what the server has.

Random changes meet random faults on virtual time. At the end the faults stop, and then the store
must equal the server's state, the changes told must add up to it, and every key must have been told
at or after its last change. After a refresh nothing counts as synced that is older than it.
"""

import asyncio
import random
from typing import Any

import looptime
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kaos.runtime.client import Client, Origin
from kaos.runtime.errors import Unreachable
from kaos.runtime.informer import Informer
from kaos.runtime.resources import Request
from kaos.runtime.store import Change
from kaos.runtime.transport import HttpRequest, HttpResponse
from kaos.runtime.watcher import Watcher
from tests.unit.runtime.fake import GONE, TOO_LARGE, FakeServer, refused, status
from tests.unit.runtime.support import THING, things

NAMES = ["a", "b", "c", "d", "e", "f"]
changes = st.tuples(st.sampled_from(["put", "put", "delete"]), st.sampled_from(NAMES))
faults = st.tuples(
    st.sampled_from(
        ["close", "compact", "silent", "error410", "error500", "broken", "garbage", "bookmark"]
    ),
    st.just(""),
)
outages = st.tuples(st.sampled_from(["429", "500", "410", "504", "404", "refused"]), st.just(""))
pauses = st.tuples(st.just("wait"), st.sampled_from(["0.1", "3", "40"]))
refreshes = st.tuples(st.just("refresh"), st.sampled_from(["0", "0.1"]))
steps = st.lists(st.one_of(changes, changes, faults, outages, pauses, refreshes), max_size=40)
ANSWERS: dict[str, HttpResponse] = {
    "429": HttpResponse(429, status(429, "TooManyRequests").body, retry_after=1.0),
    "500": status(500, "InternalError"),
    "410": GONE,
    "504": TOO_LARGE,
    "404": status(404, "NotFound"),
}


class Told:
    """Adds up the changes that a handler is told."""

    def __init__(self) -> None:
        self.state: dict[Request, str] = {}
        self.versions: dict[Request, int] = {}

    def __call__(self, change: Change, origin: Origin | None) -> None:
        obj = change.latest
        assert origin is None
        self.versions[obj.key] = max(self.versions.get(obj.key, 0), obj.version)
        if change.old is None:
            assert obj.key not in self.state
        else:
            # An old state is the one that was told before, and not another object's.
            assert self.state[obj.key] == change.old.uid
        if change.new is None:
            del self.state[obj.key]
        else:
            self.state[obj.key] = obj.uid


async def play(plan: list[tuple[str, str]], *, streaming: bool, pages: int, seed: int) -> None:
    server = FakeServer()
    server.streaming, server.page_limit = streaming, pages
    server.latency = 0.1
    collection = things(server)
    watcher = Watcher(random.Random(seed))
    informer = Informer(Client(server), THING, new_watcher=lambda: watcher)
    told = Told()
    informer.add_handler(told)
    refreshed, stale = 0, []

    def synced(served: bool) -> None:
        if served and int(watcher.resource_version) < refreshed:
            stale.append((watcher.resource_version, refreshed))

    informer.on_served(synced)
    outage: list[str] = []

    def fault(request: HttpRequest) -> HttpResponse | Exception | None:
        if not outage:
            return None
        kind = outage.pop()
        return refused(request) if kind == "refused" else ANSWERS[kind]

    server.faults.append(fault)
    task = asyncio.create_task(informer.run())
    changed: dict[Request, int] = {}
    for number, (what, how) in enumerate(plan):
        if what != "refresh":  # which comes in the turn of the loop in which an answer does
            await asyncio.sleep(0)
        match what:
            case "refresh":
                await asyncio.sleep(float(how))
                informer.refresh()
                refreshed = server.version
            case "put":
                collection.put(how, "ns", spec={"number": number})
                changed[Request("ns", how)] = server.version
            case "delete":
                if ("ns", how) in collection.objects:
                    collection.delete(how, "ns")
                    changed[Request("ns", how)] = server.version
            case "wait":
                await asyncio.sleep(float(how))
            case "close":
                collection.end_watches()
            case "compact":
                collection.compact()
                collection.end_watches()
            case "silent":
                for watch in collection.watches:
                    watch.silent = True
            case "error410":
                collection.end_watches(b'{"type":"ERROR","object":' + GONE.body + b"}\n")
            case "error500":
                collection.end_watches(b'{"type":"ERROR","object":' + status(500).body + b"}\n")
            case "garbage":
                collection.end_watches(b'{"type":"ADDED","obj\n')
            case "broken":
                collection.end_watches(Unreachable("watch", "connection reset"))
            case "bookmark":
                collection.bookmark()
            case _:
                outage.append(what)
                collection.end_watches()
    outage.clear()
    await asyncio.sleep(400)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    server_state: dict[Request, Any] = {
        Request(*key): body["metadata"]["resourceVersion"]
        for key, body in collection.objects.items()
    }
    assert informer.synced
    assert not stale
    assert {o.key: o.metadata.resource_version for o in informer.store} == server_state
    assert set(told.state) == set(server_state)
    for key, version in changed.items():
        # A deletion in a gap is told with the last state that was seen.
        assert told.versions.get(key, 0) >= version or key not in server_state
    assert server.version < 1000


@settings(max_examples=80, deadline=None)
@example([*(("put", n) for n in "abc"), *[("refresh", "0.1")] * 3], False, 1, 0)
@given(steps, st.booleans(), st.sampled_from([0, 1, 2]), st.integers(0, 1000))
def test_the_cache_equals_the_server_after_any_faults(
    plan: list[tuple[str, str]], streaming: bool, pages: int, seed: int
) -> None:
    with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
        runner.run(play(plan, streaming=streaming, pages=pages, seed=seed))
