"""Watches: what is told, when, and how a watch ends. Time is virtual."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kaos.local.apiserver.errors import StatusError
from kaos.local.apiserver.listing import selection
from kaos.local.apiserver.store import Store
from kaos.local.apiserver.watch import WatchHub, WatchOptions, WatchResponse
from tests.unit.apiserver.support import World, widget, with_widgets

pytestmark = pytest.mark.looptime
Told = tuple[str, str, int]


def watching(world: World, hub: WatchHub, **query: str) -> AsyncIterator[bytes]:
    kind = world.kind("v1", "ConfigMap")
    return WatchResponse(
        world.store,
        hub,
        kind,
        selection(kind, query, query.get("namespace", "")),
        WatchOptions.of(query, world.store.rv),
        lambda record: record.raw,
    ).frames()


def parse(chunk: bytes) -> list[dict[str, Any]]:
    return [msgspec.json.decode(line) for line in chunk.splitlines()]


def short(event: dict[str, Any]) -> Told:
    metadata = event["object"]["metadata"]
    return event["type"], metadata.get("name", ""), int(metadata["resourceVersion"])


async def told(frames: AsyncIterator[bytes]) -> list[Told]:
    return [short(event) async for chunk in frames for event in parse(chunk)]


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def hub(world: World) -> WatchHub:
    return WatchHub(world.store)


async def test_from_nowhere_tells_the_present_then_what_happens(
    world: World, hub: WatchHub
) -> None:
    world.config_map("a")
    frames = watching(world, hub, timeoutSeconds="5")
    assert [short(event) for event in parse(await anext(frames))] == [("ADDED", "a", 2)]
    world.config_map("b")
    world.delete("v1", "ConfigMap", "a")
    assert await told(frames) == [("ADDED", "b", 3), ("DELETED", "a", 4)]


async def test_from_a_version_tells_what_came_after(world: World, hub: WatchHub) -> None:
    world.config_map("a")
    world.config_map("b")
    world.merge("v1", "ConfigMap", "a", {"data": {"k": "v"}})
    frames = watching(world, hub, resourceVersion="2", timeoutSeconds="1")
    assert await told(frames) == [("ADDED", "b", 3), ("MODIFIED", "a", 4)]


async def test_streaming_list_ends_the_present_with_a_marked_bookmark(
    world: World, hub: WatchHub
) -> None:
    world.config_map("a")
    frames = watching(
        world,
        hub,
        sendInitialEvents="true",
        resourceVersionMatch="NotOlderThan",
        allowWatchBookmarks="true",
        timeoutSeconds="1",
    )
    events = [event async for chunk in frames for event in parse(chunk)]
    assert [short(event) for event in events] == [("ADDED", "a", 2), ("BOOKMARK", "", 2)]
    marked = events[-1]["object"]["metadata"]["annotations"]
    assert marked == {"k8s.io/initial-events-end": "true"}


async def test_a_change_while_the_present_is_told_is_not_lost(world: World, hub: WatchHub) -> None:
    for number in range(600):
        world.config_map(f"n{number:03}")
    frames = watching(world, hub, timeoutSeconds="1")
    first = parse(await anext(frames))
    assert len(first) == 500
    world.delete("v1", "ConfigMap", "n000")
    rest = await told(frames)
    assert len(rest) == 101
    assert rest[-1][:2] == ("DELETED", "n000")


async def test_bookmarks_come_when_it_is_quiet(world: World, hub: WatchHub) -> None:
    frames = watching(
        world, hub, resourceVersion="1", allowWatchBookmarks="true", timeoutSeconds="150"
    )
    asyncio.get_running_loop().call_later(
        30, lambda: world.create("v1", "Secret", {"metadata": {"name": "s"}})
    )
    assert await told(frames) == [("BOOKMARK", "", 2), ("BOOKMARK", "", 2)]
    assert asyncio.get_running_loop().time() == pytest.approx(150, abs=1)


async def test_entering_and_leaving_the_selection(world: World, hub: WatchHub) -> None:
    world.config_map("a", labels={"x": "1"})
    frames = watching(world, hub, resourceVersion="2", labelSelector="x=1", timeoutSeconds="9")
    for labels in ({"x": "2"}, {"x": "1"}, {"y": "1"}):
        world.merge("v1", "ConfigMap", "a", {"metadata": {"labels": labels}})
    world.merge("v1", "ConfigMap", "a", {"metadata": {"labels": {"x": "2"}}})
    world.delete("v1", "ConfigMap", "a")
    events = [event async for chunk in frames for event in parse(chunk)]
    assert [short(event)[::2] for event in events] == [
        ("DELETED", 3),
        ("ADDED", 4),
        ("MODIFIED", 5),
        ("DELETED", 6),
    ]
    assert events[0]["object"]["metadata"]["labels"] == {"x": "1"}, "as it was last selected"


async def test_one_namespace_and_one_name(world: World, hub: WatchHub) -> None:
    world.create("v1", "Namespace", {"metadata": {"name": "ns"}}, namespace="")
    start = str(world.store.rv)
    world.create("v1", "ConfigMap", {"metadata": {"name": "a"}}, namespace="ns")
    world.config_map("a")
    world.config_map("b")
    frames = watching(
        world,
        hub,
        namespace="default",
        fieldSelector="metadata.name=a",
        resourceVersion=start,
        timeoutSeconds="1",
    )
    assert await told(frames) == [("ADDED", "a", 4)]


@pytest.mark.parametrize("version", ["1", "99"])
async def test_a_version_out_of_reach_is_expired(version: str) -> None:
    world = World(Store(history=2))
    for number in range(8):
        world.config_map(f"n{number}")
    hub = WatchHub(world.store)
    frames = watching(world, hub, resourceVersion=version, timeoutSeconds="1")
    events = [event async for chunk in frames for event in parse(chunk)]
    assert [event["type"] for event in events] == ["ERROR"]
    assert events[0]["object"]["code"] == 410
    assert events[0]["object"]["reason"] == "Expired"


async def test_who_reads_too_slowly_is_cut_off() -> None:
    world = World(Store(history=2))
    hub = WatchHub(world.store)
    frames = watching(world, hub, timeoutSeconds="60", resourceVersion=str(world.store.rv))
    world.config_map("first")
    assert parse(await anext(frames))[0]["type"] == "ADDED"
    for number in range(8):  # the client does not take its next chunk meanwhile
        world.config_map(f"n{number}")
    assert parse(await anext(frames))[0]["object"]["code"] == 410
    with pytest.raises(StopAsyncIteration):
        await anext(frames)


async def test_closing_ends_all_watches(world: World, hub: WatchHub) -> None:
    waiting = asyncio.create_task(told(watching(world, hub, resourceVersion="1")))
    await asyncio.sleep(1)
    hub.close()
    assert await asyncio.wait_for(waiting, 1) == []


async def test_a_watch_ends_with_its_kind() -> None:
    world = with_widgets()
    hub = WatchHub(world.store)
    kind = world.kind("test.io/v1", "Widget")
    response = WatchResponse(
        world.store,
        hub,
        kind,
        selection(kind, {}, ""),
        WatchOptions.of({}, world.store.rv),
        lambda record: record.raw,
        lambda: world.registry.find("test.io", "v1", "widgets") is not None,
    )
    waiting = asyncio.create_task(told(response.frames()))
    await asyncio.sleep(1)
    world.create("test.io/v1", "Widget", widget("w", size=1))
    crd = ("apiextensions.k8s.io/v1", "CustomResourceDefinition", "widgets.test.io")
    world.delete(*crd, namespace="")
    world.collector.work()
    events = await asyncio.wait_for(waiting, 1)
    assert [sort for sort, *_ in events] == ["ADDED", "DELETED"]


async def test_a_client_that_goes_ends_its_watch(world: World, hub: WatchHub) -> None:
    kind = world.kind("v1", "ConfigMap")
    options = WatchOptions.of({"resourceVersion": "1"}, 1)
    response = WatchResponse(
        world.store, hub, kind, selection(kind, {}, ""), options, lambda record: record.raw
    )
    gone = asyncio.Event()

    async def receive() -> dict[str, Any]:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(_: Any) -> None:
        pass

    serving = asyncio.create_task(response({}, receive, send))
    await asyncio.sleep(1)
    assert not serving.done()
    gone.set()
    await asyncio.wait_for(serving, 1)


@pytest.mark.parametrize(
    "query",
    [
        {"sendInitialEvents": "true"},
        {"resourceVersionMatch": "NotOlderThan"},
        {"resourceVersion": "x"},
        {"timeoutSeconds": "soon"},
    ],
)
def test_options_that_make_no_sense(query: dict[str, str]) -> None:
    with pytest.raises(StatusError) as caught:
        WatchOptions.of(query, 5)
    assert caught.value.code in {400, 422}


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["0", "1", None])), max_size=12),
    st.integers(0, 12),
)
def test_any_selected_watch_replays_to_the_selected_present(
    writes: list[tuple[str, str | None]], skip: int
) -> None:
    async def run() -> None:
        world = World()
        hub = WatchHub(world.store)
        kind = world.kind("v1", "ConfigMap")
        picked = selection(kind, {"labelSelector": "x=1"}, "")
        seen: dict[str, str] = {}
        start = world.store.rv
        for number, (name, label) in enumerate(writes):
            if number == skip:
                start = world.store.rv
                chosen = [r for r in world.store.current(kind.bucket) if r.labels.get("x") == "1"]
                seen = {record.key[1]: str(record.rv) for record in chosen}
            here = world.store.get(kind.bucket, "default", name) is not None
            if label is None and here:
                world.delete("v1", "ConfigMap", name)
            elif label is not None and here:
                world.merge("v1", "ConfigMap", name, {"metadata": {"labels": {"x": label}}})
            elif label is not None:
                world.config_map(name, labels={"x": label})
        response = WatchResponse(
            world.store,
            hub,
            kind,
            picked,
            WatchOptions.of({"resourceVersion": str(start)}, world.store.rv),
            lambda record: record.raw,
        )
        frames = response.frames()
        asyncio.get_running_loop().call_later(0.001, hub.close)
        for event in [event async for chunk in frames for event in parse(chunk)]:
            sort, name, rv = short(event)
            assert (sort == "ADDED") == (name not in seen)
            if sort == "DELETED":
                del seen[name]
            else:
                seen[name] = str(rv)
        now = [r for r in world.store.current(kind.bucket) if r.labels.get("x") == "1"]
        assert seen == {record.key[1]: str(record.rv) for record in now}

    asyncio.run(run())
