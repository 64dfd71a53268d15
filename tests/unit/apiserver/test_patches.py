"""Patches: the examples of the RFCs, and strategic merges as real Kubernetes did them."""

import copy
from typing import Any

import pytest

from kaos.local.apiserver.errors import StatusError
from kaos.local.apiserver.patches import json_patch, merge_patch
from kaos.local.apiserver.strategic import strategic_patch


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_rfc_7386(target: Any, patch: Any, result: Any) -> None:
    before = copy.deepcopy(target)
    assert merge_patch(target, patch) == result
    assert target == before


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"foo": "bar"}, [{"op": "add", "path": "/baz", "value": "q"}], {"foo": "bar", "baz": "q"}),
        ({"a": [1, 3]}, [{"op": "add", "path": "/a/1", "value": 2}], {"a": [1, 2, 3]}),
        ({"a": [1]}, [{"op": "add", "path": "/a/-", "value": 2}], {"a": [1, 2]}),
        ({"a": 1, "b": 2}, [{"op": "remove", "path": "/a"}], {"b": 2}),
        ({"a": [1, 2, 3]}, [{"op": "remove", "path": "/a/1"}], {"a": [1, 3]}),
        ({"a": [1, 2]}, [{"op": "replace", "path": "/a/0", "value": 9}], {"a": [9, 2]}),
        ({"a": {"b": 1}}, [{"op": "move", "from": "/a/b", "path": "/c"}], {"a": {}, "c": 1}),
        ({"a": [1, 2, 3]}, [{"op": "move", "from": "/a/0", "path": "/a/2"}], {"a": [2, 3, 1]}),
        ({"a": {}}, [{"op": "copy", "from": "/a", "path": "/c"}], {"a": {}, "c": {}}),
        ({"/": 9, "~1": 10}, [{"op": "test", "path": "/~01", "value": 10}], {"/": 9, "~1": 10}),
        ({"m": {"a/b": 1}}, [{"op": "remove", "path": "/m/a~1b"}], {"m": {}}),
        ({"a": 1}, [{"op": "replace", "path": "", "value": {"b": 2}}], {"b": 2}),
        ({"": 1}, [{"op": "replace", "path": "/", "value": 2}], {"": 2}),
    ],
)  # fmt: skip
def test_rfc_6902(target: Any, patch: Any, result: Any) -> None:
    before = copy.deepcopy(target)
    assert json_patch(target, patch) == result
    assert target == before


@pytest.mark.parametrize(
    ("patch", "code"),
    [
        ([{"op": "test", "path": "/a", "value": 2}], 422),
        ([{"op": "test", "path": "/a", "value": True}], 422),
        ([{"op": "remove", "path": "/zz"}], 422),
        ([{"op": "replace", "path": "/zz", "value": 1}], 422),
        ([{"op": "add", "path": "/l/9", "value": 1}], 422),
        ([{"op": "add", "path": "/l/01", "value": 1}], 422),
        ([{"op": "add", "path": "/x/y", "value": 1}], 422),
        ([{"op": "move", "from": "/l", "path": "/l/0"}], 422),
        ([{"op": "frob", "path": "/a"}], 422),
        ([{"op": "add", "path": "a", "value": 1}], 400),
        ([{"op": "add", "path": "/a"}], 400),
        ([5], 400),
        ({"op": "add"}, 400),
    ],
)
def test_json_patches_that_do_not_fit(patch: Any, code: int) -> None:
    with pytest.raises(StatusError) as caught:
        json_patch({"a": 1, "l": []}, patch)
    assert caught.value.code == code


def containers(**more: Any) -> dict[str, Any]:
    return {"spec": {"template": {"spec": {"containers": [{"name": "c", **more}]}}}}


def env(*names: str) -> list[dict[str, str]]:
    return [{"name": name, "value": name.lower()} for name in names]


def patched_env(live: list[Any], patch: dict[str, Any]) -> list[str]:
    done = strategic_patch(containers(env=live), containers(**patch))
    return [item["name"] for item in done["spec"]["template"]["spec"]["containers"][0]["env"]]


def test_items_merge_by_their_key() -> None:
    live = containers(image="x", env=env("A", "B"))
    change = containers(env=[{"name": "B", "value": "new"}])
    done = strategic_patch(live, change)["spec"]["template"]["spec"]["containers"][0]
    assert done["image"] == "x"
    assert done["env"] == [{"name": "A", "value": "a"}, {"name": "B", "value": "new"}]
    assert live == containers(image="x", env=env("A", "B"))


def test_a_new_item_comes_before_those_the_patch_does_not_name() -> None:
    assert patched_env(env("A"), {"env": env("B")}) == ["B", "A"]


def test_items_go_by_directive() -> None:
    assert patched_env(env("A", "B"), {"env": [{"name": "A", "$patch": "delete"}]}) == ["B"]
    assert patched_env(env("A"), {"env": [{"$patch": "replace"}, *env("C")]}) == ["C"]


def test_the_order_asked_for() -> None:
    order = [{"name": name} for name in "CA"]
    patch = {"$setElementOrder/env": order, "env": env("C")}
    assert patched_env(env("A", "B"), patch) == ["C", "A", "B"]


def test_sets_and_primitive_lists() -> None:
    live = {"metadata": {"finalizers": ["a", "b"]}}
    patch = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]}}
    assert strategic_patch(live, patch) == {"metadata": {"finalizers": ["b", "c"]}}
    assert strategic_patch({"args": ["a"]}, {"args": ["b"]}) == {"args": ["b"]}


def test_retain_keys_and_whole_objects() -> None:
    live = {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}
    patch = {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}
    assert strategic_patch(live, patch) == {"strategy": {"type": "Recreate"}}
    assert strategic_patch({"a": {"b": 1}}, {"a": {"$patch": "delete"}}) == {}
    assert strategic_patch({"a": {"b": 1}}, {"a": {"$patch": "replace", "c": 2}}) == {"a": {"c": 2}}


@pytest.mark.parametrize(
    "patch",
    [
        [],
        {"$patch": "frob"},
        {"$patch": []},
        {"env": [{"value": "no name"}]},
        {"$setElementOrder/env": 1},
        {"$retainKeys": None},
        {"$deleteFromPrimitiveList/env": 1},
    ],
)
def test_malformed_strategic_patches(patch: Any) -> None:
    with pytest.raises(StatusError) as caught:
        strategic_patch({"env": env("A")}, patch)
    assert caught.value.code == 400
