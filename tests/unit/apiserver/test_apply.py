"""Server-side apply: its laws for any manifests, and what real Kubernetes answered."""

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kaos.local.apiserver.errors import StatusError
from kaos.local.apiserver.fieldset import (
    BuiltinNode,
    Tree,
    applied_fields,
    difference,
    intersection,
    is_member,
    members,
    union,
)
from kaos.local.apiserver.listkeys import SET
from tests.unit.apiserver.support import World, deployment, widget, with_widgets

Object = dict[str, Any]
# Lists are not empty: an empty one is owned by nobody, here as on a real cluster.
words = st.sampled_from(["a", "b", "c"])
specs = st.fixed_dictionaries(
    {"size": st.integers(1, 3)},
    optional={
        "tags": st.lists(words, unique=True, min_size=1),
        "items": st.lists(
            st.fixed_dictionaries({"k": words}, optional={"v": words}),
            unique_by=lambda item: item["k"],
            min_size=1,
        ),
        "free": st.dictionaries(words, st.one_of(words, st.dictionaries(words, words))),
        "mode": st.sampled_from(["a", "b"]),
        "port": st.one_of(st.integers(1, 9), words),
    },
)


def spec_of(world: World, name: str = "w") -> Object:
    found = world.get("test.io/v1", "Widget", name)
    assert found is not None
    spec: Object = found["spec"]
    return spec


def managers(obj: Object) -> dict[tuple[str, str, str], Tree]:
    return {
        (entry["manager"], entry["operation"], entry.get("subresource", "")): entry["fieldsV1"]
        for entry in obj["metadata"].get("managedFields", ())
    }


def includes(whole: Any, part: Any) -> bool:
    """Whether everything that a manifest states holds."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(
            name in whole and includes(whole[name], value) for name, value in part.items()
        )
    if isinstance(part, list):
        return all(any(includes(item, wanted) for item in whole) for wanted in part)
    return bool(whole == part)


# The laws


@settings(max_examples=40, deadline=None)
@given(specs, specs)
def test_applying_twice_changes_nothing(first: Object, second: Object) -> None:
    world = with_widgets()
    for spec in (first, second):
        made = world.apply(widget("w", **copy.deepcopy(spec)), "me")
        assert includes(made.obj["spec"], spec)
        before = world.store.rv
        world.tick()
        again = world.apply(widget("w", **copy.deepcopy(spec)), "me")
        assert world.store.rv == before
        assert again.obj == made.obj


@settings(max_examples=40, deadline=None)
@given(specs, specs)
def test_a_lone_manager_gets_exactly_what_it_applied_last(first: Object, second: Object) -> None:
    world, fresh = with_widgets(), with_widgets()
    world.apply(widget("w", **copy.deepcopy(first)), "me")
    world.apply(widget("w", **copy.deepcopy(second)), "me")
    fresh.apply(widget("w", **copy.deepcopy(second)), "me")
    assert spec_of(world) == spec_of(fresh)


@settings(max_examples=40, deadline=None)
@given(specs, specs)
def test_what_one_manager_drops_the_other_keeps(mine: Object, theirs: Object) -> None:
    world = with_widgets()
    world.apply(widget("w", **copy.deepcopy(mine)), "me", force=True)
    world.apply(widget("w", **copy.deepcopy(theirs)), "they", force=True)
    world.apply(widget("w", size=theirs["size"]), "me", force=True)
    assert includes(spec_of(world), theirs)


@settings(max_examples=40, deadline=None)
@given(specs, specs)
def test_forcing_takes_the_field_and_only_then_is_there_no_conflict(
    mine: Object, theirs: Object
) -> None:
    world = with_widgets()
    world.apply(widget("w", **copy.deepcopy(mine)), "me")
    disputed = {name for name in mine.keys() & theirs.keys() if mine[name] != theirs[name]}
    if disputed & {"size", "mode", "port"}:
        with pytest.raises(StatusError) as caught:
            world.apply(widget("w", **copy.deepcopy(theirs)), "they")
        assert caught.value.code == 409
        lost = {cause["field"] for cause in (caught.value.details or {})["causes"]}
        assert lost >= {f".spec.{name}" for name in disputed & {"size", "mode", "port"}}
        assert includes(spec_of(world), mine)
        made = world.apply(widget("w", **copy.deepcopy(theirs)), "they", force=True).obj
        assert not lost & set(members(managers(made).get(("me", "Apply", ""), {})))
    elif not disputed:
        world.apply(widget("w", **copy.deepcopy(theirs)), "they")
        assert includes(spec_of(world), mine)
    else:
        world.apply(widget("w", **copy.deepcopy(theirs)), "they", force=True)
    assert includes(spec_of(world), theirs)


def test_an_item_that_is_stated_twice_is_refused_in_the_real_servers_words() -> None:
    """It made one of the two of them, and a builder's fault showed on real clusters alone."""
    world = with_widgets()
    body = deployment("web")
    (main,) = body["spec"]["template"]["spec"]["containers"]
    main["env"] = [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]
    told = {
        "Deployment": 'Kind=Deployment): .spec.template.spec.containers[name="c"].env: '
        'duplicate entries for key [name="A"]',
        "Widget": 'Kind=Widget): .spec.tags: duplicate entries for key [="x"]',
    }
    for one in (body, widget("w", tags=["x", "x"])):
        with pytest.raises(StatusError) as caught:
            world.apply(one, "me")
        assert (caught.value.code, caught.value.reason) == (500, "InternalError")
        assert caught.value.message.startswith("failed to create typed patch object (")
        assert caught.value.message.endswith(told[one["kind"]])


trees: st.SearchStrategy[Tree] = st.recursive(
    st.just({}),
    lambda inner: st.dictionaries(
        st.sampled_from(["f:a", "f:b", 'k:{"n":1}', 'v:"x"']), inner, min_size=1
    ).flatmap(lambda tree: st.sampled_from([tree, {".": {}, **tree}])),
    max_leaves=8,
)


@given(trees, trees)
def test_sets_are_sets(left: Tree, right: Tree) -> None:
    left = left if left and not is_member(left) else {"f:root": left}
    right = right if right and not is_member(right) else {"f:root": right}
    mine, theirs = set(members(left)), set(members(right))
    assert set(members(union(left, right))) == mine | theirs
    assert set(members(difference(left, right))) == mine - theirs
    assert set(members(intersection(left, right))) == mine & theirs


# As real Kubernetes 1.34 answered


def test_managed_fields_of_an_apply() -> None:
    world = World()
    made = world.apply({**deployment(), "spec": {**deployment()["spec"], "replicas": 2}}, "me").obj
    port = 'k:{"containerPort":80,"protocol":"TCP"}'
    assert managers(made) == {
        ("me", "Apply", ""): {
            "f:spec": {
                "f:replicas": {},
                "f:selector": {},
                "f:template": {
                    "f:metadata": {"f:labels": {"f:a": {}}},
                    "f:spec": {
                        "f:containers": {
                            'k:{"name":"c"}': {
                                ".": {},
                                "f:image": {},
                                "f:name": {},
                                "f:ports": {port: {".": {}, "f:containerPort": {}}},
                            }
                        }
                    },
                },
            }
        }
    }


def test_managed_fields_of_a_create_and_a_patch() -> None:
    world = World()
    world.config_map("a", {"k": "v"}, labels={"x": "y"})
    made = world.merge("v1", "ConfigMap", "a", {"data": {"k": None, "n": "1"}}, manager="other")
    assert managers(made) == {
        ("tester", "Update", ""): {
            "f:data": {},
            "f:metadata": {"f:labels": {".": {}, "f:x": {}}},
        },
        ("other", "Update", ""): {"f:data": {"f:n": {}}},
    }


def test_a_conflict_names_manager_and_fields() -> None:
    world = World()
    world.create("apps/v1", "Deployment", {**deployment(), "apiVersion": "apps/v1"}, manager="m")
    body = deployment(replicas=5)
    body["spec"]["template"]["spec"]["containers"][0]["image"] = "y"
    with pytest.raises(StatusError) as caught:
        world.apply(body, "ap")
    status = caught.value.to_dict()
    assert status["code"] == 409
    assert status["reason"] == "Conflict"
    assert status["message"] == (
        'Apply failed with 2 conflicts: conflicts with "m" using apps/v1:\n'
        '- .spec.replicas\n- .spec.template.spec.containers[name="c"].image'
    )
    assert status["details"]["causes"][0] == {
        "reason": "FieldManagerConflict",
        "message": 'conflict with "m" using apps/v1',
        "field": ".spec.replicas",
    }


def test_dropping_the_last_label_keeps_the_name() -> None:
    # The root's metadata is in every last set and in no new one: it was pruned whole.
    world = World()
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"x": "1"}}
    world.apply({**body, "metadata": {"name": "a", "labels": {"l": "m"}}}, "me")
    made = world.apply(copy.deepcopy(body), "me").obj
    assert made["metadata"]["name"] == "a"
    assert "labels" not in made["metadata"]


def test_a_dropped_field_with_a_default_goes_back_to_it() -> None:
    world = World()
    world.apply(deployment(replicas=5), "me")
    made = world.apply(deployment(), "me").obj
    assert made["spec"]["replicas"] == 1


def test_an_update_takes_the_field_from_the_applier() -> None:
    world = World()
    world.apply(deployment(replicas=5), "me")
    made = world.merge(
        "apps/v1",
        "Deployment",
        "web",
        {"spec": {"replicas": 2}},
        manager="hpa",
        subresource="scale",
    )
    assert made["spec"]["replicas"] == 2
    live = world.get("apps/v1", "Deployment", "web")
    assert live is not None
    assert managers(live)["hpa", "Update", "scale"] == {"f:spec": {"f:replicas": {}}}
    assert "f:replicas" not in managers(live)["me", "Apply", ""]["f:spec"]
    with pytest.raises(StatusError, match='conflict with "hpa" with subresource "scale" using'):
        world.apply(deployment(replicas=5), "me")


def test_status_is_applied_apart() -> None:
    world = with_widgets()
    world.apply(widget("w", size=1), "me")
    body = {**widget("w", size=9), "status": {"n": 7}}
    made = world.apply(body, "me", subresource="status").obj
    assert made["status"] == {"n": 7}
    assert made["spec"]["size"] == 1
    assert managers(made)["me", "Apply", "status"] == {"f:status": {"f:n": {}}}
    made = world.apply({**widget("w", size=2), "status": {"n": 8}}, "me").obj
    assert made["status"] == {"n": 7}


def test_the_manifests_order_of_items_wins_and_strangers_stay_in_place() -> None:
    world = with_widgets()
    world.apply(widget("w", size=1, items=[{"k": "a"}, {"k": "b"}, {"k": "c"}]), "me")
    world.apply(widget("w", size=1, items=[{"k": "d"}, {"k": "c"}, {"k": "a"}]), "they")
    assert [item["k"] for item in spec_of(world)["items"]] == ["b", "d", "c", "a"]


def test_managed_fields_cannot_be_applied_but_can_be_reset() -> None:
    world = World()
    world.config_map("a", {"k": "v"})
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}
    with pytest.raises(StatusError, match="managedFields must be nil"):
        world.apply({**body, "metadata": {"name": "a", "managedFields": [{}]}}, "me")
    made = world.merge("v1", "ConfigMap", "a", {"metadata": {"managedFields": [{}]}})
    assert "managedFields" not in made["metadata"]


def test_updaters_do_not_pile_up() -> None:
    world = World()
    world.config_map("a")
    for number in range(15):
        world.tick()
        patch = {"data": {f"k{number}": "v"}}
        world.merge("v1", "ConfigMap", "a", patch, manager=f"m{number}")
    live = world.get("v1", "ConfigMap", "a")
    assert live is not None
    found = managers(live)
    assert len(found) == 11
    assert set(members(found["ancient-changes", "Update", ""])) >= {".data.k0", ".data.k4"}


def test_finalizers_are_a_set() -> None:
    assert BuiltinNode(("metadata", "finalizers")).list_type == SET
    fields = applied_fields({"metadata": {"finalizers": ["x.io/y"]}}, BuiltinNode())
    assert fields == {"f:metadata": {"f:finalizers": {'v:"x.io/y"': {}}}}
