"""`watch`: a plain iterator that survives what servers do."""

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from kaos.runtime import Client, Forbidden, UnknownKind, watch
from kaos.runtime.codec import encode
from tests.unit.runtime.fake import GONE, FakeServer, status
from tests.unit.runtime.support import CONFIG_MAPS, THING, things

pytestmark = pytest.mark.looptime


async def take(seen: Any, count: int) -> list[str]:
    async with asyncio.timeout(60):
        found = [await anext(seen) for _ in range(count)]
    return [f"{event.type} {event.obj.name}" for event in found]


async def test_what_is_there_comes_first_then_what_changes() -> None:
    server = FakeServer()
    collection = things(server)
    collection.put("a", spec={})
    async with aclosing(watch(Client(server), THING)) as seen:
        assert await take(seen, 1) == ["ADDED a"]
        collection.put("a", spec={"n": 2})
        collection.put("b", spec={})
        collection.delete("a")
        assert await take(seen, 3) == ["MODIFIED a", "ADDED b", "DELETED a"]
    assert not collection.watches


async def test_a_gap_is_told_as_its_difference() -> None:
    server = FakeServer()
    collection = things(server)
    collection.put("a", spec={})
    collection.put("b", spec={})
    async with aclosing(watch(Client(server), THING)) as seen:
        assert await take(seen, 2) == ["ADDED a", "ADDED b"]
        watches, collection.watches = collection.watches, []
        collection.delete("a")
        collection.put("c", spec={})
        collection.compact()
        collection.watches = watches
        error = encode({"type": "ERROR", "object": {"code": 410, "reason": "Expired"}}) + b"\n"
        collection.end_watches(error)
        assert sorted(await take(seen, 2)) == ["ADDED c", "DELETED a"]
    assert GONE.status == 410


async def test_one_object_by_name() -> None:
    server = FakeServer()
    things(server).put("a", spec={})
    async with aclosing(watch(Client(server), THING, "default", name="a")) as seen:
        await take(seen, 1)
    (request,) = server.asked(watch=True)
    assert request.params["fieldSelector"] == "metadata.name=a"
    assert request.path.endswith("/namespaces/default/things")


async def test_no_rights_are_raised_and_not_waited_for() -> None:
    server = FakeServer()
    things(server)
    server.faults.append(lambda request: status(403, "Forbidden", "no"))
    with pytest.raises(Forbidden):
        await take(watch(Client(server), THING), 1)


async def test_an_unknown_kind_is_raised() -> None:
    server = FakeServer()
    server.collection(CONFIG_MAPS, "ConfigMap")
    with pytest.raises(UnknownKind, match="things"):
        await take(watch(Client(server), THING), 1)
