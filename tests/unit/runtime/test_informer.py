"""Whose change is it? Only what is proven to be our own may cause no reconcile."""

from collections.abc import Mapping
from typing import Any

import pytest

from kaos.runtime.client import Client, Origin, Write
from kaos.runtime.codec import Object
from kaos.runtime.informer import Informer
from kaos.runtime.resources import Request
from kaos.runtime.store import Change
from kaos.runtime.watcher import Changed, Deleted, Replaced
from tests.unit.runtime.fake import FakeServer
from tests.unit.runtime.support import THING

KEY = Request("ns", "a")
ME: Origin = ("me", KEY)
OTHER: Origin = ("other", KEY)


def obj(version: int, **fields: Any) -> Object:
    metadata = {"name": "a", "namespace": "ns", "uid": "a", "resourceVersion": str(version)}
    return Object.from_dict(
        {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": metadata, **fields}
    )


class Bench:
    """An informer that is told by hand, and whom it held responsible for each change."""

    def __init__(self) -> None:
        self.informer = Informer(Client(FakeServer()), THING)
        self.scope = self.informer._scopes[""]
        self.told: list[tuple[int, Origin | None]] = []
        self.watch(Replaced([obj(10, data={"n": 1})], "10"))
        self.informer.add_handler(self._note)
        self.told.clear()

    def _note(self, change: Change, who: Origin | None) -> None:
        self.told.append((change.latest.version, who))

    def watch(self, effect: Changed | Deleted | Replaced) -> None:
        self.informer.effect(effect, self.scope)

    def write(
        self,
        answer: Object | None,
        *,
        who: Origin = ME,
        based_on: str = "",
        merge: Mapping[str, Any] | None = None,
        created: bool = False,
        meanwhile: Object | None = None,
    ) -> None:
        write = Write(THING, KEY, who, based_on, merge)
        self.informer.write_started(write)
        if meanwhile is not None:
            self.watch(Changed(meanwhile))
        self.informer.write_ended(write, answer, created=created)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_conditional_write_that_moved_the_version_is_ours(bench: Bench) -> None:
    bench.write(obj(12), based_on="10")
    bench.watch(Changed(obj(12)))
    assert bench.told == [(12, ME)]


def test_a_conditional_write_that_changed_nothing_claims_nothing(bench: Bench) -> None:
    """Its answer names a version that somebody else made, which the watch may not have told."""
    bench.informer.store.written(obj(11))
    bench.write(obj(11), based_on="11")
    bench.watch(Changed(obj(11)))
    assert bench.told == [(11, None)]


def test_a_creation_is_ours(bench: Bench) -> None:
    bench.write(obj(12), created=True)
    bench.watch(Changed(obj(12)))
    assert bench.told == [(12, ME)]


def test_an_unconditional_write_is_in_doubt_and_counts_as_foreign(bench: Bench) -> None:
    bench.write(obj(12))
    bench.watch(Changed(obj(12)))
    assert bench.told == [(12, None)]


def test_a_merge_patch_that_explains_every_difference_is_ours(bench: Bench) -> None:
    bench.write(obj(12, data={"n": 2}), merge={"data": {"n": 2}})
    bench.watch(Changed(obj(12, data={"n": 2})))
    assert bench.told == [(12, ME)]


def test_a_merge_patch_whose_answer_holds_somebody_elses_change_is_not(bench: Bench) -> None:
    both = obj(12, data={"n": 2, "edited": True})
    bench.write(both, merge={"data": {"n": 2}})
    bench.watch(Changed(obj(11, data={"n": 1, "edited": True})))
    bench.watch(Changed(both))
    assert bench.told == [(11, None), (12, None)]


def test_a_merge_patch_that_changed_nothing_does_not_take_another_ones_write(bench: Bench) -> None:
    """Two controllers: the second writes what is there already, and is answered the first's."""
    bench.write(obj(12, data={"n": 2}), who=OTHER, merge={"data": {"n": 2}})
    bench.write(obj(12, data={"n": 2}), who=ME, merge={"data": {"n": 2}})
    bench.watch(Changed(obj(12, data={"n": 2})))
    assert bench.told == [(12, OTHER)]


def test_a_list_that_skipped_versions_calls_nothing_ours(bench: Bench) -> None:
    """An edit at 11 and our write at 12 arrive as one difference: the edit must count."""
    bench.write(obj(12), based_on="11")
    bench.watch(Replaced([obj(12)], "12"))
    assert bench.told == [(12, None)]


def test_changes_are_held_back_while_a_write_is_under_way(bench: Bench) -> None:
    bench.write(obj(12), based_on="10", meanwhile=obj(12))
    assert bench.told == [(12, ME)]


def test_a_failed_write_releases_what_was_held_back(bench: Bench) -> None:
    bench.write(None, meanwhile=obj(12))
    assert bench.told == [(12, None)]


def test_nothing_is_kept_of_own_writes_that_the_watch_will_not_tell(bench: Bench) -> None:
    """The removal of a finalizer, which deletes, was remembered until the next list."""
    bench.write(obj(12), based_on="10")
    bench.watch(Deleted(obj(12)))
    assert bench.told == [(12, None)]
    assert bench.informer.pending == 0


def test_an_own_successor_of_what_is_deleted_is_still_known_for_ours(bench: Bench) -> None:
    bench.write(obj(14), created=True)
    bench.watch(Deleted(obj(12)))
    assert bench.informer.pending == 2  # a write laid over the watch, and its echo to come
    bench.watch(Changed(obj(14)))
    assert bench.told == [(12, None), (14, ME)]
    assert bench.informer.pending == 0


def test_a_generated_name_is_held_back_by_its_prefix(bench: Bench) -> None:
    key = Request("ns", "job-*")
    write = Write(THING, key, ME)
    bench.informer.write_started(write)
    metadata = {
        "name": "job-x7",
        "generateName": "job-",
        "namespace": "ns",
        "uid": "x7",
        "resourceVersion": "12",
    }
    made = Object.from_dict({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": metadata})
    bench.watch(Changed(made))
    assert bench.told == []
    bench.informer.write_ended(write, made, created=True)
    assert bench.told == [(12, ME)]


def test_a_late_handler_is_told_what_is_there(bench: Bench) -> None:
    told: list[Change] = []
    bench.informer.add_handler(lambda change, _: told.append(change))
    assert [(c.old, c.initial) for c in told] == [(None, True)]
