"""Writes that read first, and the span around a reconcile."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from kaos.runtime import (
    CONFIG_MAP,
    Client,
    Conflict,
    Controller,
    create_or_update,
    retry_on_conflict,
    tracing,
)
from tests.unit.runtime.fake import FakeServer
from tests.unit.runtime.support import (
    THING,
    Recorder,
    config_maps,
    manager,
    running,
    settle,
    things,
)

pytestmark = pytest.mark.looptime


async def test_a_conflict_is_tried_again_from_the_newest_state() -> None:
    server = FakeServer()
    maps = config_maps(server)
    maps.put("a", data={"n": 0, "theirs": 0})
    changes = 0

    def change(body: dict[str, Any]) -> None:
        nonlocal changes
        changes += 1
        if changes == 1:  # somebody writes between our read and our write
            maps.put("a", data={"n": 0, "theirs": 1})
        body["data"]["n"] = 1

    _, done = await create_or_update(Client(server), CONFIG_MAP, "a", "default", change)
    assert (done, changes) == ("updated", 2)
    assert maps.objects["default", "a"]["data"] == {"n": 1, "theirs": 1}


async def test_a_conflict_that_lasts_is_raised() -> None:
    tries = 0

    async def attempt() -> None:
        nonlocal tries
        tries += 1
        raise Conflict(409)

    with pytest.raises(Conflict):
        await retry_on_conflict(attempt, tries=3)
    assert tries == 3


async def test_a_reconcile_is_a_span_when_tracing_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spans: list[tuple[str, Mapping[str, str]]] = []

    @contextmanager
    def start(name: str, attributes: Mapping[str, str]) -> Iterator[None]:
        spans.append((name, attributes))
        yield

    monkeypatch.setattr(tracing, "_starter", lambda: start)
    server = FakeServer()
    things(server).put("a", spec={})
    made = manager(server)
    made.add(Controller("c", Recorder(), for_=THING))
    async with running(made):
        await settle()
    ((name, attributes),) = spans
    assert name == "reconcile c"
    assert "a" in attributes.values()
