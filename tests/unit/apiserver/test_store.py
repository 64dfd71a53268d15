"""The store against a model: a dict, and the history of that dict."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kaos.local.apiserver.store import Event, ExpiredError, FutureError, Record, Store

BUCKETS = ("/pods", "apps/deployments")
Key = tuple[str, str]
State = dict[Key, bytes]
keys = st.tuples(st.sampled_from(["", "a", "ab", "b"]), st.sampled_from("xyz"))


def obj(name: str, value: int = 0) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": {"v": str(value)}}, "value": value}


def state(records: list[Record]) -> State:
    return {record.key: record.raw for record in records}


class StoreMachine(RuleBasedStateMachine):
    """Writes at random; what the store says of any past moment is what was then."""

    def __init__(self) -> None:
        super().__init__()
        self.store = Store(history=4)
        self.now: dict[str, State] = {bucket: {} for bucket in BUCKETS}
        self.past: dict[int, dict[str, State]] = {0: {bucket: {} for bucket in BUCKETS}}
        self.heard: list[Event] = []
        self.store.on_write.append(self.heard.append)

    def note(self) -> None:
        self.past[self.store.rv] = {bucket: dict(held) for bucket, held in self.now.items()}

    @rule(bucket=st.sampled_from(BUCKETS), key=keys, value=st.integers(0, 3))
    def put(self, bucket: str, key: Key, value: int) -> None:
        before = self.store.rv
        record = self.store.put(bucket, *key, obj(key[1], value))
        assert record.rv == self.store.rv == before + 1
        assert record.load()["metadata"]["resourceVersion"] == str(record.rv)
        assert self.heard[-1].type == ("MODIFIED" if key in self.now[bucket] else "ADDED")
        self.now[bucket][key] = record.raw
        self.note()

    @precondition(lambda self: any(self.now.values()))
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        bucket = data.draw(st.sampled_from([b for b in BUCKETS if self.now[b]]))
        key = data.draw(st.sampled_from(sorted(self.now[bucket])))
        record = self.store.delete(bucket, *key)
        assert self.heard[-1].type == "DELETED"
        assert record.rv == self.store.rv
        del self.now[bucket][key]
        self.note()

    @invariant()
    def shows_the_present_in_order(self) -> None:
        for bucket in BUCKETS:
            records = self.store.current(bucket)
            assert state(records) == self.now[bucket]
            assert [r.key for r in records] == sorted(self.now[bucket])
            inside = [r.key for r in self.store.current(bucket, "a")]
            assert inside == sorted(key for key in self.now[bucket] if key[0] == "a")

    @invariant()
    def any_past_it_reaches_is_the_past_and_replays_to_the_present(self) -> None:
        for rv, then in self.past.items():
            for bucket in BUCKETS:
                try:
                    records = self.store.list_at(bucket, rv)
                except ExpiredError:
                    with pytest.raises(ExpiredError):
                        self.store.cursor(bucket, rv)
                    continue
                assert state(records) == then[bucket]
                replayed = state(records)
                events, _ = self.store.read(bucket, self.store.cursor(bucket, rv))
                last = rv
                for event in events:
                    assert event.record.rv > last
                    last = event.record.rv
                    if event.type == "DELETED":
                        del replayed[event.record.key]
                    else:
                        assert (event.record.key in replayed) == (event.type == "MODIFIED")
                        replayed[event.record.key] = event.record.raw
                assert replayed == self.now[bucket]

    @invariant()
    def the_last_events_are_always_there(self) -> None:
        # The promise is per bucket: at least ``history`` events back.
        for bucket in BUCKETS:
            mine = [event.record.rv for event in self.heard if event.bucket == bucket]
            if len(mine) >= 4:
                assert len(self.store.read(bucket, self.store.cursor(bucket, mine[-4]))[0]) == 3

    @invariant()
    def the_future_is_refused(self) -> None:
        with pytest.raises(FutureError):
            self.store.cursor(BUCKETS[0], self.store.rv + 1)


StoreMachine.TestCase.settings = settings(max_examples=20, stateful_step_count=20, deadline=None)
test_store_is_what_the_model_says = StoreMachine.TestCase


def test_a_reader_that_fell_behind_is_told() -> None:
    store = Store(history=2)
    cursor = store.cursor("b")
    for value in range(6):
        store.put("b", "", "x", obj("x", value))
    with pytest.raises(ExpiredError, match="fell behind by"):
        store.read("b", cursor)


def test_a_revision_cannot_be_changed_by_who_reads_it() -> None:
    store = Store()
    store.put("b", "", "x", obj("x"))
    record = store.get("b", "", "x")
    assert record is not None
    record.load()["value"] = "spoiled"
    assert record.load()["value"] == 0


@given(st.lists(keys, unique=True))
def test_load_gives_back_what_was_stored(some: list[Key]) -> None:
    first = Store()
    for key in some:
        first.put("b", *key, obj(key[1]))
    second = Store(start=first.rv + 100)
    second.load(("b", *record.key, record.rv, record.raw) for record in first.current("b"))
    assert state(second.current("b")) == state(first.current("b"))
    with pytest.raises(ExpiredError):
        second.cursor("b", first.rv)
