"""What readers see, what handlers are told, and how own writes lie over the watch."""

from typing import Any

import pytest

from kaos.runtime.codec import Object
from kaos.runtime.resources import Request
from kaos.runtime.store import Change, Index, Store

A = Request("ns", "a")


def obj(name: str, version: int, *, uid: str = "", **fields: Any) -> Object:
    meta = {"name": name, "namespace": "ns", "uid": uid or name, "resourceVersion": str(version)}
    meta |= fields.pop("meta", {})
    return Object.from_dict({"apiVersion": "v1", "kind": "Thing", "metadata": meta, **fields})


def told(changes: list[Change]) -> list[tuple[str | None, str | None]]:
    """Versions before and after."""
    return [
        (
            c.old.metadata.resource_version if c.old else None,
            c.new.metadata.resource_version if c.new else None,
        )
        for c in changes
    ]


@pytest.fixture
def store() -> Store:
    made = Store()
    made.replace([obj("a", 10), obj("b", 11)], "20")
    return made


def test_a_list_tells_what_it_has_and_what_is_missing(store: Store) -> None:
    changes = store.replace([obj("a", 10), obj("c", 25)], "30")
    assert told(changes) == [("11", None), (None, "25")]
    assert not any(c.initial for c in changes)
    assert {o.name for o in store} == {"a", "c"}


def test_the_first_list_is_marked() -> None:
    assert all(c.initial for c in Store().replace([obj("a", 1)], "1"))


def test_a_name_with_another_uid_is_a_deletion_and_a_creation(store: Store) -> None:
    changes = store.put(obj("a", 21, uid="other"))
    assert told(changes) == [("10", None), (None, "21")]


def test_the_same_version_again_is_no_change(store: Store) -> None:
    assert store.put(obj("a", 10)) == []


def test_namespaces_are_listed_apart() -> None:
    store = Store()
    store.replace([obj("a", 1)], "5", scope="ns")
    changes = store.replace([], "6", scope="other")
    assert changes == []
    assert len(store) == 1


def test_an_own_write_is_read_at_once_and_told_when_watched(store: Store) -> None:
    store.written(obj("a", 30))
    found = store.get(A)
    assert found is not None
    assert found.version == 30
    assert told(store.put(obj("a", 30))) == [("10", "30")]
    assert store.overlaid == 0


def test_an_older_event_does_not_hide_the_own_write_but_is_told(store: Store) -> None:
    store.written(obj("a", 30))
    assert told(store.put(obj("a", 25))) == [("10", "25")]
    found = store.get(A)
    assert found is not None
    assert found.version == 30
    assert told(store.put(obj("a", 30))) == [("25", "30")]


def test_a_watch_that_was_faster_than_the_answer_wins(store: Store) -> None:
    store.seen(40)
    store.put(obj("a", 40))
    store.written(obj("a", 30))
    found = store.get(A)
    assert found is not None
    assert found.version == 40
    assert store.overlaid == 0


def test_an_own_creation_that_was_deleted_before_its_answer_came_is_no_ghost(store: Store) -> None:
    store.seen(31)  # ADDED 30 and DELETED 31 were told already
    store.written(obj("new", 30))
    assert store.get(Request("ns", "new")) is None


def test_a_ghost_goes_when_the_watch_has_passed_its_version(store: Store) -> None:
    store.written(obj("ghost", 30))
    assert store.get(Request("ns", "ghost")) is not None
    changes = store.progress("31")
    assert told(changes) == [("30", None)]
    assert store.get(Request("ns", "ghost")) is None


def test_a_list_older_than_the_own_write_keeps_it(store: Store) -> None:
    store.written(obj("new", 30))
    store.replace([obj("a", 10)], "25")
    assert store.get(Request("ns", "new")) is not None
    store.replace([obj("a", 10)], "35")
    assert store.get(Request("ns", "new")) is None


def test_nothing_is_left_of_a_kind_that_is_not_served(store: Store) -> None:
    """Own writes stayed visible when their CRD was deleted, and again when it came back."""
    store.written(obj("new", 30))
    store.deleted(A, "a")
    assert len(store.replace([], "")) == 3  # two were watched, one was only ours
    store.written(obj("late", 40))
    assert (len(store), store.overlaid) == (0, 0)
    store.replace([], "50")
    store.written(obj("new", 51, uid="another"))
    assert len(store) == 1


def test_an_own_deletion_hides_the_object_until_it_is_told(store: Store) -> None:
    store.deleted(A, "a")
    assert store.get(A) is None
    assert told(store.put(obj("a", 21))) == [("10", "21")]  # an echo of the past
    assert store.get(A) is None
    assert told(store.remove(obj("a", 22))) == [("22", None)]
    assert store.overlaid == 0


def test_an_own_deletion_of_another_uid_hides_nothing(store: Store) -> None:
    store.deleted(A, "somebody else")
    assert store.get(A) is not None


def test_an_own_creation_and_deletion_that_the_watch_shows_later_stay_hidden(store: Store) -> None:
    key = Request("ns", "new")
    store.written(obj("new", 30))
    store.deleted(key, "new")
    assert told(store.put(obj("new", 30))) == [(None, "30")]
    assert store.get(key) is None
    assert told(store.remove(obj("new", 31))) == [("31", None)]
    assert store.overlaid == 0


def test_an_own_creation_and_deletion_between_two_lists_are_told_as_an_end(store: Store) -> None:
    """Who waited for a deletion of its own waited for ever."""
    store.written(obj("new", 30))
    store.deleted(Request("ns", "new"), "new")
    assert told(store.replace([obj("a", 10), obj("b", 11)], "35")) == [("30", None)]
    assert store.overlaid == 0


def test_a_write_answered_after_the_deletion_that_followed_it_is_no_ghost(store: Store) -> None:
    store.deleted(A, "a")
    store.written(obj("a", 30))
    assert store.get(A) is None


def test_a_name_taken_again_after_an_own_deletion_is_visible(store: Store) -> None:
    store.deleted(A, "a")
    changes = store.put(obj("a", 25, uid="new"))
    assert told(changes) == [("10", None), (None, "25")]
    found = store.get(A)
    assert found is not None
    assert found.uid == "new"


def test_the_end_of_the_old_one_does_not_remove_the_own_new_one(store: Store) -> None:
    store.written(obj("a", 30, uid="new"))
    assert told(store.remove(obj("a", 29))) == [("29", None)]
    found = store.get(A)
    assert found is not None
    assert found.uid == "new"


def test_versions_that_are_no_numbers_lay_nothing_over() -> None:
    store = Store()
    store.replace([Object.from_dict(obj("a", 1).to_dict())], "x")
    odd = obj("a", 1, meta={"resourceVersion": "etcd-is-gone"})
    store.written(odd)
    assert store.overlaid == 0


def test_indexes_follow_reads_and_not_the_watch(store: Store) -> None:
    store.add_index("colour", lambda o: [o.metadata.labels.get("colour", "none")])
    assert len(store.find("colour", "none")) == 2
    store.written(obj("a", 30, meta={"labels": {"colour": "red"}}))
    assert [o.name for o in store.find("colour", "red")] == ["a"]
    store.remove(obj("a", 31))
    assert store.find("colour", "red") == []
    assert len(store.find("colour", "none")) == 1


def test_an_index_that_raises_finds_nothing_and_stops_nothing(store: Store) -> None:
    store.add_index("broken", lambda o: [o.spec["missing"]])
    assert told(store.put(obj("a", 21))) == [("10", "21")]
    assert store.find("broken", "x") == []


def test_owners_and_namespaces_are_indexed(store: Store) -> None:
    owner = {"apiVersion": "v1", "kind": "X", "name": "x", "uid": "u1", "controller": True}
    store.put(obj("child", 21, meta={"ownerReferences": [owner]}))
    assert [o.name for o in store.find("owner", "u1")] == ["child"]
    assert len(store.select("ns")) == 3
    assert store.select("other") == []


def test_selection_by_labels(store: Store) -> None:
    store.put(obj("c", 21, meta={"labels": {"app": "x", "tier": "web"}}))
    assert [o.name for o in store.select("ns", {"app": "x"})] == ["c"]
    assert store.select("", {"app": "y"}) == []


def test_an_index_that_gives_a_key_twice_loses_its_object_once() -> None:
    """The second time was a KeyError in the watch, which ended the program."""
    index = Index("names", lambda _: ["x", "y", "x"])
    index.put(A, obj("a", 1))
    assert list(index.find("x")) == [A]
    index.remove(A)
    assert not list(index.find("x"))
