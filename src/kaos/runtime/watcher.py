"""The rules of list and watch as a pure state machine: no I/O, no clock, no tasks.

Its driver (`Reflector`) asks `next_action`, does it, and tells what happened; the machine answers
with what that means for the store. All times are given by the driver.

Guarantees: whatever the server does (close, go silent, forget history, lag behind, refuse), the
store ends up equal to the server's state, and requests stay bounded by the backoff.

The rules, with the failures that taught them:

* The first list takes resourceVersion 0 (any state, cheap); later ones the last version seen, so a
  lagging replica cannot take us back in time; after "too old" or "too large" the newest ("").
* Streaming lists (`sendInitialEvents`) are tried first, and given up for plain lists when refused.
* A watch ends after a random 5 to 10 minutes (so that load spreads) and is guarded against silence:
  a half-dead connection is otherwise waited for until the process is restarted (client-go#374).
* "Too old" comes in four forms: HTTP 410, an ERROR event, a refused continue token, and a server
  that closes at once without a word (kubernetes#137089); each leads to exactly one new list.
* 429 and connection failures say nothing about our history: watch again later, never list.
* Events of a watch from version "" or "0" come in no order of versions: only later ones count.
* Who begins to lead lists the newest state first: a watch that lags (it rests after failures, or
  its silence is not noticed yet) shows less than the last leader knew, so its work looks wrong.
* 404 means the kind is not served. A server that is starting may say so for a moment, so a kind
  that was served is given up only when that lasts.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, TypeAlias

from kaos.runtime.codec import Object, Page, WatchEvent
from kaos.runtime.errors import ApiError, Gone, Invalid, NotFound
from kaos.runtime.resources import Request

PAGE_SIZE = 500
IDLE_TIMEOUT = 90.0
BACKOFF_FIRST = 0.8
BACKOFF_LAST = 30.0
BACKOFF_RESET = 120.0
TIMEOUTS = (300, 600)
SHORT_WATCH = 1.0
_CLOCK_STEP = 0.001
TRIES_BEFORE_LIST = 5
UNSERVED_FIRST = 1.0
UNSERVED_LAST = 10.0
UNSERVED_AFTER = 10.0
_INITIAL_EVENTS_END = "k8s.io/initial-events-end"


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing for so long."""

    seconds: float


@dataclass(frozen=True, slots=True)
class ListPage:
    """Get a page of a list."""

    params: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class OpenWatch:
    """Open a watch, and give up when nothing comes for `idle` seconds."""

    params: Mapping[str, str]
    idle: float = IDLE_TIMEOUT


Action: TypeAlias = Wait | ListPage | OpenWatch


@dataclass(slots=True)
class Replaced:
    """The complete state; what the store has beyond it is gone."""

    objects: list[Object]
    resource_version: str


@dataclass(slots=True)
class Listed:
    """A part of the first list: more follows, and at last a `Progress` that is `complete`."""

    objects: list[Object]
    resource_version: str


@dataclass(slots=True)
class Changed:
    """An object was created or changed."""

    obj: Object


@dataclass(slots=True)
class Deleted:
    """An object is gone; `obj` is its last state."""

    obj: Object


@dataclass(slots=True)
class Progress:
    """Nothing else happened up to this version; `complete` when that makes the first list whole."""

    resource_version: str
    complete: bool = False


class Signal(Enum):
    """What an input means beyond a change of the store."""

    RECONNECT = auto()
    """End this watch and ask for the next action."""
    UNSERVED = auto()
    """The kind is not served (any more): nothing of it exists."""


RECONNECT: Final = Signal.RECONNECT
UNSERVED: Final = Signal.UNSERVED
Effect: TypeAlias = Replaced | Listed | Changed | Deleted | Progress | Signal


class Watcher:
    """Keeps one collection in step with the server; see the module for the rules.

    Attributes:
        known: Gives the object that is kept already for one of a new list, so that what has not
            changed is not in memory twice while the list comes in.
    """

    def __init__(self, rng: random.Random | None = None, *, streaming: bool = True) -> None:
        self.known: Callable[[Object], Object] = _itself
        self._rng = rng or random.Random()  # noqa: S311 - jitter
        self._streaming = streaming
        self._fell_back = False
        self._watching = False
        self._version = ""
        self._list_version = "0"
        self._in_one_piece = False
        self._continue = ""
        self._pages: list[Object] = []
        self._initial: dict[Request, Object] | None = None
        self._unordered = False
        self._opened = 0.0
        self._quiet = True
        self._failures = 0
        self._not_before = 0.0
        self._delay = BACKOFF_FIRST
        self._last_failure = float("-inf")
        self._missing_since: float | None = None
        self._missing_delay = UNSERVED_FIRST
        self._known = False

    @property
    def resource_version(self) -> str:
        """The version up to which the store is known to be right; "" before the first list."""
        return self._version

    def next_action(self, now: float) -> Action:
        """What to do now."""
        left = self._not_before - now
        if left > _CLOCK_STEP:  # a sleep may end a rounding error early: do not ask for the rest
            return Wait(left)
        if self._watching:
            return OpenWatch(self._watch_params(self._version))
        if self._streaming and not self._fell_back:
            return OpenWatch(
                self._watch_params(self._list_version)
                | {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
            )
        if self._continue:
            return ListPage({"limit": str(PAGE_SIZE), "continue": self._continue})
        params = {"resourceVersion": self._list_version} if self._list_version else {}
        if self._list_version in ("", "0") and not self._in_one_piece:
            # With any other version, paging would pass the server's watch cache by.
            params["limit"] = str(PAGE_SIZE)
        return ListPage(params)

    def on_page(self, page: Page) -> Effect | None:
        """A page came."""
        self._pages += map(self.known, page.items)
        self._continue = page.continue_token
        if self._continue:
            return None
        objects, self._pages = self._pages, []
        return self._synced(objects, page.resource_version)

    def on_open(self, now: float) -> None:
        """The watch was accepted."""
        self._opened = now
        self._quiet = True
        self._initial = None if self._watching else {}
        self._unordered = self._watching and self._version in ("", "0")

    def on_event(self, event: WatchEvent, now: float) -> Effect | None:
        """A line came."""
        kind, obj = event.type, event.obj
        if obj is None:
            return self._on_error_event(event, now)
        self._quiet = False
        self._failures = 0
        if self._initial is not None:
            return self._on_initial(kind, obj, self._initial)
        version = obj.metadata.resource_version
        if not self._unordered or kind != "ADDED":
            self._unordered = False
            self._version = version
        if kind == "DELETED":
            return Deleted(obj)
        if kind == "BOOKMARK":
            return Progress(version)
        return Changed(obj)

    def on_close(self, now: float) -> None:
        """The server ended the watch, as it does when its time is up."""
        if self._initial is not None:
            self._fall_back()
            self._back_off(now)
        elif self._quiet and now - self._opened < SHORT_WATCH:
            self._failed_watch(now)

    def on_idle(self) -> None:
        """Nothing came for too long: the connection is taken for dead."""
        if self._initial is not None:
            self._fall_back()

    def on_doubt(self, now: float) -> None:
        """What we know may be older than what others acted on: list the newest state at once."""
        self._list_again("")
        self._initial = None
        self._not_before = now

    def on_error(self, error: Exception, now: float) -> Effect | None:
        """A list or watch was refused, failed, or broke off."""
        if isinstance(error, NotFound):
            return self._on_missing(now)
        syncing = not self._watching
        streamed = syncing and self._streaming and not self._fell_back
        if streamed:
            self._initial = None
            if isinstance(error, Invalid):
                # An older server: it will not change its mind while it runs.
                self._streaming = False
                return None
            self._fall_back()
        if isinstance(error, Gone) or (isinstance(error, Invalid) and self._continue):
            # A list that cannot be finished before its token expires is fetched in one piece; so is
            # one whose token the server cannot read (400): it may be another server's by now.
            self._in_one_piece = bool(self._continue)
            self._list_again("")
        elif _is_too_large(error):
            self._list_again("")
        elif isinstance(error, ApiError) and error.retry_after:
            self._back_off(now, at_least=error.retry_after)
            return None
        self._back_off(now)
        return None

    def _on_error_event(self, event: WatchEvent, now: float) -> Effect | None:
        error = event.error or ApiError(500, message="an ERROR event without a Status")
        if error.status >= 500 and not _is_too_large(error) and self._watching:
            self._failed_watch(now)
            return RECONNECT
        return self.on_error(error, now) or RECONNECT

    def _on_initial(self, kind: str, obj: Object, initial: dict[Request, Object]) -> Effect | None:
        if kind == "DELETED":
            initial.pop(obj.key, None)
        elif kind != "BOOKMARK":
            initial[obj.key] = self.known(obj)
        elif obj.metadata.annotations_.get(_INITIAL_EVENTS_END) == "true":
            self._initial = None
            return self._synced(list(initial.values()), obj.metadata.resource_version)
        return None

    def _synced(self, objects: list[Object], resource_version: str) -> Replaced:
        self._version = self._list_version = resource_version
        self._watching = True
        self._known = True
        self._fell_back = False
        self._in_one_piece = False
        self._failures = 0
        self._missing_since = None
        self._missing_delay = UNSERVED_FIRST
        return Replaced(objects, resource_version)

    def _on_missing(self, now: float) -> Effect | None:
        self._not_before = now + self._missing_delay
        self._missing_delay = min(self._missing_delay * 2, UNSERVED_LAST)
        if self._missing_since is None:
            self._missing_since = now
        self._fell_back = False
        self._initial = None
        self._list_again("")
        if self._known and now - self._missing_since < UNSERVED_AFTER:
            return None
        self._known = False
        return UNSERVED

    def _failed_watch(self, now: float) -> None:
        self._failures += 1
        if self._failures >= TRIES_BEFORE_LIST:
            self._list_again("")
        self._back_off(now)

    def _fall_back(self) -> None:
        self._initial = None
        self._fell_back = True

    def _list_again(self, version: str) -> None:
        self._watching = False
        self._list_version = version
        self._continue = ""
        self._pages = []
        self._failures = 0

    def _back_off(self, now: float, at_least: float = 0.0) -> None:
        if now - self._last_failure > BACKOFF_RESET:
            self._delay = BACKOFF_FIRST
        wait = max(self._delay * (1 + self._rng.random()), at_least)
        self._delay = min(self._delay * 2, BACKOFF_LAST)
        self._not_before = self._last_failure = now + wait

    def _watch_params(self, version: str) -> dict[str, str]:
        return {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(self._rng.randint(*TIMEOUTS)),
        }


def _itself(obj: Object) -> Object:
    return obj


def _is_too_large(error: Exception) -> bool:
    """Whether the server has not seen the version we have: a replica that lags behind."""
    if not isinstance(error, ApiError) or error.status != 504:
        return False
    named = any(cause.reason == "ResourceVersionTooLarge" for cause in error.causes)
    return named or "Too large resource version" in error.message
