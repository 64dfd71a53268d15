"""Random writes of ours and of others, answers and events in any order: what readers see.

The server's events come in order, now or later; a new list may cut them short; the answers to our
own writes come at any time, or never. At every moment a read shows each write of ours that was
answered (or what the watch has told since); when all has been told, nothing is laid over the watch
any more, and of each own deletion that readers saw at once the handlers have been told.
"""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from kaos.runtime.codec import Object
from kaos.runtime.resources import Request
from kaos.runtime.store import Change, Store

names = st.sampled_from(["a", "b"])
steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["put", "write", "delete", "own delete", "no-op"]), names),
        st.tuples(st.sampled_from(["answer", "answer", "answer", "lost"]), st.integers(0, 2)),
        st.tuples(st.sampled_from(["event", "event", "list", "bookmark"]), st.integers(0, 2)),
    ),
    max_size=60,
)


def obj(name: str, uid: str, version: int) -> Object:
    meta = {"name": name, "namespace": "ns", "uid": uid, "resourceVersion": str(version)}
    return Object.from_dict({"apiVersion": "v1", "kind": "Thing", "metadata": meta})


@dataclass
class World:
    """A server, our store, and what is on the way between them."""

    store: Store = field(default_factory=Store)
    version: int = 10
    live: dict[str, Object] = field(default_factory=dict)
    log: list[tuple[int, str, Object]] = field(default_factory=list)
    told: int = 10
    answers: list[tuple[str, Object]] = field(default_factory=list)
    known: dict[Request, str] = field(default_factory=dict)
    promised: dict[Request, tuple[str, Object]] = field(default_factory=dict)
    untold: set[Request] = field(default_factory=set)

    def change(self, name: str, *, uid: str = "") -> Object:
        self.version += 1
        uid = uid or (self.live[name].uid if name in self.live else f"u{self.version}")
        made = self.live[name] = obj(name, uid, self.version)
        self.log.append((self.version, "put", made))
        return made

    def delete(self, name: str) -> Object | None:
        gone = self.live.pop(name, None)
        if gone is not None:
            self.version += 1
            gone = obj(name, gone.uid, self.version)
            self.log.append((self.version, "delete", gone))
        return gone

    def answer(self, number: int) -> None:
        what, answered = self.answers.pop(number % len(self.answers))
        known = self.store.get(answered.key)
        if what == "deleted":
            self.store.deleted(answered.key, answered.uid)
            if known is None or known.uid != answered.uid:
                return  # whom the cache does not know, it need not hide
            self.untold.add(answered.key)
        else:
            self.store.written(answered)
        _, before = self.promised.get(answered.key, ("", None))
        if before is None or before.version < answered.version:
            self.promised[answered.key] = what, answered

    def check(self) -> None:
        """What was answered can be read, until the watch has told as much."""
        for key, (what, answered) in self.promised.items():
            seen = self.store.get(key)
            if answered.version <= self.told:
                continue
            if what == "deleted":
                assert seen is None or seen.uid != answered.uid
            else:
                assert seen is not None
                assert seen.version >= answered.version

    def event(self) -> None:
        """Tell the next event."""
        version, what, told = next(entry for entry in self.log if entry[0] > self.told)
        self.told = version
        self.store.seen(version)
        self.add_up(self.store.put(told) if what == "put" else self.store.remove(told))

    def relist(self, version: int) -> None:
        """A list as of a version that is not behind what was told."""
        self.told = version
        there: dict[str, Object] = {}
        for at, what, told in self.log:
            if at <= version:
                there.pop(told.name, None)
                if what == "put":
                    there[told.name] = told
        self.add_up(self.store.replace(list(there.values()), str(version)))

    def bookmark(self) -> None:
        self.add_up(self.store.progress(str(self.told)))

    def add_up(self, changes: list[Change]) -> None:
        for change in changes:
            self.untold.discard(change.latest.key)
            if change.new is None:
                self.known.pop(change.latest.key, None)
            else:
                self.known[change.latest.key] = change.new.uid

    def step(self, what: str, how: str | int) -> None:
        match what, how:
            case "put", str(name):
                self.change(name)
            case "write", str(name):
                self.answers.append(("written", self.change(name)))
            case "no-op", str(name) if name in self.live:
                self.answers.append(("written", self.live[name]))
            case "delete", str(name):
                self.delete(name)
            case "own delete", str(name):
                if (gone := self.delete(name)) is not None:
                    self.answers.append(("deleted", gone))
            case "answer", int(number) if self.answers:
                self.answer(number)
            case "lost", int(number) if self.answers:
                self.answers.pop(number % len(self.answers))
            case "event", _ if self.told < self.version:
                self.event()
            case "list", int(number):
                self.relist(max(self.told, self.version - number))
            case "bookmark", _:
                self.bookmark()


@settings(max_examples=300, deadline=None)
@given(steps, st.booleans())
def test_own_writes_are_read_at_once_and_laid_over_no_longer_than_needed(
    plan: list[tuple[str, str | int]], answers_last: bool
) -> None:
    world = World()
    world.store.replace([], "10")
    for what, how in plan:
        world.step(what, how)
        world.check()
    while world.answers and not answers_last:
        world.answer(0)
    while world.told < world.version:
        world.event()
    while world.answers:
        world.answer(0)
    assert world.store.overlaid == 0
    assert world.untold == set()
    expected = {o.key: (o.uid, o.version) for o in world.live.values()}
    assert {o.key: (o.uid, o.version) for o in world.store} == expected
    assert world.known == {key: uid for key, (uid, _) in expected.items()}
