"""The rules of list and watch, on the pure machine: no server, no clock, no tasks."""

import random
from typing import Any

import pytest

from kaos.runtime.codec import Object, Page, WatchEvent
from kaos.runtime.errors import (
    ApiError,
    Gone,
    Invalid,
    NotFound,
    TooManyRequests,
    Unreachable,
    from_status,
)
from kaos.runtime.watcher import (
    BACKOFF_LAST,
    IDLE_TIMEOUT,
    PAGE_SIZE,
    RECONNECT,
    TRIES_BEFORE_LIST,
    UNSERVED,
    Changed,
    Deleted,
    ListPage,
    OpenWatch,
    Progress,
    Replaced,
    Wait,
    Watcher,
)
from tests.unit.runtime.fake import TOO_LARGE


def obj(name: str, version: int | str, **meta: Any) -> Object:
    metadata = {"name": name, "namespace": "ns", "uid": name, "resourceVersion": str(version)}
    return Object.from_dict({"apiVersion": "v1", "kind": "Thing", "metadata": metadata | meta})


def event(kind: str, name: str, version: int | str, **meta: Any) -> WatchEvent:
    return WatchEvent(kind, obj(name, version, **meta))


def failure(error: ApiError) -> WatchEvent:
    return WatchEvent("ERROR", error=error)


def listing(**kwargs: Any) -> Watcher:
    return Watcher(random.Random(1), streaming=False, **kwargs)


def watching(version: str = "10") -> Watcher:
    """A machine that has listed, and whose watch is open since time 0."""
    machine = listing()
    machine.next_action(0)
    machine.on_page(Page([], version))
    machine.next_action(0)
    machine.on_open(0)
    return machine


def skip_wait(machine: Watcher, now: float) -> tuple[float, ListPage | OpenWatch]:
    action = machine.next_action(now)
    while isinstance(action, Wait):
        now += action.seconds
        action = machine.next_action(now)
    return now, action


def test_the_first_list_takes_any_version_in_pages() -> None:
    action = listing().next_action(0)
    assert action == ListPage({"resourceVersion": "0", "limit": str(PAGE_SIZE)})


def test_pages_are_put_together_and_then_watched_from_their_version() -> None:
    machine = listing()
    machine.next_action(0)
    assert machine.on_page(Page([obj("a", 5)], "7", "more")) is None
    assert machine.next_action(0) == ListPage({"limit": "500", "continue": "more"})
    effect = machine.on_page(Page([obj("b", 6)], "7"))
    assert isinstance(effect, Replaced)
    assert [o.name for o in effect.objects] == ["a", "b"]
    action = machine.next_action(0)
    assert isinstance(action, OpenWatch)
    assert action.params["resourceVersion"] == "7"
    assert action.params["allowWatchBookmarks"] == "true"
    assert action.idle == IDLE_TIMEOUT


def test_watches_end_after_a_random_five_to_ten_minutes() -> None:
    timeouts = set()
    for seed in range(50):
        machine = Watcher(random.Random(seed), streaming=False)
        machine.on_page(Page([], "7"))
        action = machine.next_action(0)
        assert isinstance(action, OpenWatch)
        timeouts.add(int(action.params["timeoutSeconds"]))
    assert min(timeouts) >= 300
    assert max(timeouts) <= 600
    assert len(timeouts) > 20


def test_events_become_changes_and_move_the_version() -> None:
    machine = watching()
    assert isinstance(machine.on_event(event("ADDED", "a", 11), 1), Changed)
    assert isinstance(machine.on_event(event("MODIFIED", "a", 12), 1), Changed)
    assert isinstance(machine.on_event(event("DELETED", "a", 13), 1), Deleted)
    assert machine.on_event(event("BOOKMARK", "", 20), 1) == Progress("20")
    machine.on_close(400)
    action = machine.next_action(400)
    assert isinstance(action, OpenWatch)
    assert action.params["resourceVersion"] == "20"


def test_a_clean_close_is_resumed_at_once_at_the_last_version() -> None:
    machine = watching()
    machine.on_event(event("ADDED", "a", 15), 100)
    machine.on_close(300)
    action = machine.next_action(300)
    assert isinstance(action, OpenWatch)
    assert action.params["resourceVersion"] == "15"
    assert "sendInitialEvents" not in action.params


def test_silence_is_resumed_at_once_at_the_last_version() -> None:
    machine = watching("44")
    machine.on_idle()
    action = machine.next_action(90)
    assert isinstance(action, OpenWatch)
    assert action.params["resourceVersion"] == "44"


GONES = [
    pytest.param(Gone(410, "Expired"), id="http"),
    pytest.param(Gone(410, "Gone"), id="gone"),
]


@pytest.mark.parametrize("error", GONES)
def test_410_as_status_leads_to_one_newest_list(error: Gone) -> None:
    machine = watching()
    machine.on_error(error, 5)
    now, action = skip_wait(machine, 5)
    assert now > 5  # never a hot loop
    assert action == ListPage({"limit": "500"})  # no resourceVersion: the newest
    machine.on_page(Page([], "99"))
    again = machine.next_action(now)
    assert isinstance(again, OpenWatch)
    assert again.params["resourceVersion"] == "99"


@pytest.mark.parametrize("error", GONES)
def test_410_as_error_event_leads_to_one_newest_list(error: Gone) -> None:
    machine = watching()
    assert machine.on_event(failure(error), 5) is RECONNECT
    assert skip_wait(machine, 5)[1] == ListPage({"limit": "500"})


@pytest.mark.parametrize(
    "refusal", [Gone(410, "Expired"), Invalid(400, "BadRequest", "continue key is not valid")]
)
def test_a_refused_continue_token_leads_to_a_list_in_one_piece(refusal: ApiError) -> None:
    """One that the server could not read was sent again for ever."""
    machine = listing()
    machine.next_action(0)
    machine.on_page(Page([obj("a", 5)], "7", "more"))
    machine.on_error(refusal, 1)
    _, action = skip_wait(machine, 1)
    assert action == ListPage({})  # neither a token nor pages
    effect = machine.on_page(Page([obj("b", 8)], "9"))
    assert isinstance(effect, Replaced)
    assert [o.name for o in effect.objects] == ["b"]  # nothing of the half list is left


def test_instant_closes_without_410_lead_to_one_list_at_a_bounded_rate() -> None:
    machine = watching()
    now, watches = 0.0, 0
    while True:
        machine.on_close(now)
        watches += 1
        now, action = skip_wait(machine, now)
        if isinstance(action, ListPage):
            break
        machine.on_open(now)
    assert watches == TRIES_BEFORE_LIST
    assert now > 5  # 0.8 + 1.6 + 3.2 + 6.4 s at the least


def test_doubt_leads_to_the_newest_list_at_once_also_from_a_rest() -> None:
    machine = watching()
    for now in range(5):
        machine.on_error(TooManyRequests(429, retry_after=7), now)
    assert isinstance(machine.next_action(5), Wait)
    machine.on_doubt(5)
    assert machine.next_action(5) == ListPage({"limit": str(PAGE_SIZE)})
    machine.on_page(Page([], "20"))
    assert isinstance(machine.next_action(5), OpenWatch)


def test_a_lagging_replica_is_asked_for_the_newest() -> None:
    too_large = from_status(504, TOO_LARGE.body)
    machine = watching()
    machine.on_error(too_large, 1)
    assert skip_wait(machine, 1)[1] == ListPage({"limit": "500"})
    machine = watching()
    assert machine.on_event(failure(too_large), 1) is RECONNECT
    assert skip_wait(machine, 1)[1] == ListPage({"limit": "500"})


@pytest.mark.parametrize(
    "error", [TooManyRequests(429, retry_after=7), Unreachable("GET /", "refused")], ids=str
)
def test_a_busy_or_absent_server_is_watched_again_never_listed(error: Exception) -> None:
    machine = watching()
    now = 0.0
    for _ in range(100):
        machine.on_error(error, now)
        now, action = skip_wait(machine, now)
        assert isinstance(action, OpenWatch)
        assert action.params["resourceVersion"] == "10"


def test_retry_after_is_kept() -> None:
    machine = watching()
    machine.on_error(TooManyRequests(429, retry_after=25), 0)
    assert skip_wait(machine, 0)[0] >= 25


def test_error_events_of_the_server_are_retried_then_listed() -> None:
    machine = watching()
    now = 0.0
    for _ in range(TRIES_BEFORE_LIST - 1):
        assert machine.on_event(failure(ApiError(500, "InternalError")), now) is RECONNECT
        now, action = skip_wait(machine, now)
        assert isinstance(action, OpenWatch)
        machine.on_open(now)
    machine.on_event(failure(ApiError(500, "InternalError")), now)
    assert isinstance(skip_wait(machine, now)[1], ListPage)


def test_backoff_doubles_to_its_limit_and_starts_anew_after_health() -> None:
    machine = watching()
    waits = []
    now = 0.0
    for _ in range(10):
        machine.on_error(Unreachable("GET /", "refused"), now)
        later, _ = skip_wait(machine, now)
        waits.append(later - now)
        now = later
    assert 0.8 <= waits[0] <= 1.6
    assert BACKOFF_LAST <= waits[-1] <= 2 * BACKOFF_LAST
    machine.on_error(Unreachable("GET /", "refused"), now + 121)
    assert skip_wait(machine, now + 121)[0] - now - 121 <= 1.6


def test_a_wait_that_ends_a_rounding_error_early_is_over() -> None:
    """Found by the property test: a wait of 4e-16 s, asked for without end."""
    machine = watching()
    machine.on_error(Unreachable("GET /", "refused"), 0.1)
    action = machine.next_action(0.1)
    assert isinstance(action, Wait)
    assert isinstance(machine.next_action(0.1 + action.seconds - 1e-12), OpenWatch)


def test_streaming_lists_fill_a_buffer_until_their_end_is_marked() -> None:
    machine = Watcher(random.Random(1))
    action = machine.next_action(0)
    assert isinstance(action, OpenWatch)
    assert action.params["sendInitialEvents"] == "true"
    assert action.params["resourceVersionMatch"] == "NotOlderThan"
    machine.on_open(0)
    assert machine.on_event(event("ADDED", "a", 90), 0) is None
    assert machine.on_event(event("ADDED", "b", 5), 0) is None
    assert machine.on_event(event("DELETED", "b", 91), 0) is None
    end = event("BOOKMARK", "", 92, annotations={"k8s.io/initial-events-end": "true"})
    effect = machine.on_event(end, 0)
    assert isinstance(effect, Replaced)
    assert [o.name for o in effect.objects] == ["a"]
    assert machine.resource_version == "92"
    assert isinstance(machine.on_event(event("MODIFIED", "a", 93), 0), Changed)


def test_a_server_without_streaming_lists_is_not_asked_again() -> None:
    machine = Watcher(random.Random(1))
    machine.next_action(0)
    machine.on_error(Invalid(422, "Invalid", "sendInitialEvents is forbidden"), 0)
    assert isinstance(machine.next_action(0), ListPage)  # at once, without a wait
    machine.on_page(Page([], "5"))
    machine.next_action(0)
    machine.on_open(0)
    machine.on_error(Gone(410), 1)
    assert isinstance(skip_wait(machine, 1)[1], ListPage)


@pytest.mark.parametrize("how", ["close", "idle", "error"])
def test_a_streaming_list_that_breaks_off_falls_back_to_a_plain_one_once(how: str) -> None:
    machine = Watcher(random.Random(1))
    machine.next_action(0)
    machine.on_open(0)
    machine.on_event(event("ADDED", "a", 5), 0)
    match how:
        case "close":
            machine.on_close(60)
        case "idle":
            machine.on_idle()
        case _:
            machine.on_error(Unreachable("GET /", "reset"), 60)
    now, action = skip_wait(machine, 60)
    assert isinstance(action, ListPage)
    effect = machine.on_page(Page([], "6"))
    assert effect == Replaced([], "6")
    machine.next_action(now)
    machine.on_open(now)
    machine.on_error(Gone(410), now)
    action = skip_wait(machine, now)[1]
    assert isinstance(action, OpenWatch)
    assert "sendInitialEvents" in action.params


@pytest.mark.parametrize("start", ["", "0"])
def test_synthetic_events_do_not_move_the_version(start: str) -> None:
    machine = watching(start)
    machine.on_event(event("ADDED", "old", 900), 0)
    machine.on_event(event("ADDED", "older", 3), 0)
    assert machine.resource_version == start
    machine.on_event(event("MODIFIED", "old", 901), 0)
    assert machine.resource_version == "901"
    machine.on_event(event("ADDED", "new", 902), 0)
    assert machine.resource_version == "902"


def test_a_kind_that_is_not_served_is_told_at_once_and_polled() -> None:
    machine = Watcher(random.Random(1))
    now = 0.0
    polls = []
    for _ in range(10):
        action = machine.next_action(now)
        assert not isinstance(action, Wait)
        assert machine.on_error(NotFound(404), now) is UNSERVED
        later, _ = skip_wait(machine, now)
        polls.append(later - now)
        now = later
    assert polls[0] == 1
    assert polls[-1] == 10
    machine.on_open(now)
    end = event("BOOKMARK", "", 92, annotations={"k8s.io/initial-events-end": "true"})
    assert isinstance(machine.on_event(end, now), Replaced)


def test_a_short_404_of_a_starting_server_removes_nothing() -> None:
    machine = watching()
    assert machine.on_error(NotFound(404), 0) is None
    now, _ = skip_wait(machine, 0)
    assert machine.on_error(NotFound(404), now) is None
    assert isinstance(machine.on_page(Page([obj("a", 5)], "20")), Replaced)


def test_a_404_that_lasts_removes_the_kind() -> None:
    machine = watching()
    now, told = 0.0, machine.on_error(NotFound(404), 0.0)
    while told is None:
        now, _ = skip_wait(machine, now)
        told = machine.on_error(NotFound(404), now)
    assert told is UNSERVED
    assert 10 <= now <= 20
