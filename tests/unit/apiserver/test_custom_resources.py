"""Custom resources: definitions, pruning, defaults, and what is wrong by its path."""

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kaos.local.apiserver.errors import StatusError
from kaos.local.apiserver.negotiation import STRATEGIC_PATCH
from kaos.local.apiserver.options import WriteOptions
from kaos.local.apiserver.schema import StructuralSchema
from tests.unit.apiserver.support import (
    WIDGET_SCHEMA,
    World,
    definition,
    widget,
    with_widgets,
)

CRD = ("apiextensions.k8s.io/v1", "CustomResourceDefinition")


def make(world: World, /, **spec: Any) -> dict[str, Any]:
    return world.create("test.io/v1", "Widget", widget("w", **spec))


def causes(world: World, /, **spec: Any) -> dict[str, str]:
    with pytest.raises(StatusError) as caught:
        make(world, **spec)
    assert caught.value.code == 422
    found = (caught.value.details or {})["causes"]
    return {cause["field"]: cause["message"] for cause in found}


def test_a_definition_is_served_as_soon_as_it_is_stored() -> None:
    world = World()
    generation = world.registry.generation
    made = world.create(*CRD, definition(), namespace="")
    assert world.registry.generation > generation
    assert world.kind("test.io/v1", "Widget").plural == "widgets"
    conditions = {c["type"]: c["status"] for c in made["status"]["conditions"]}
    assert conditions == {"NamesAccepted": "True", "Established": "True"}
    assert made["status"]["storedVersions"] == ["v1"]
    assert made["spec"]["names"]["listKind"] == "WidgetList"


def test_definitions_are_served_again_after_a_restart() -> None:
    world = with_widgets()
    assert World(world.store).kind("test.io/v1", "Widget").crd == "widgets.test.io"


def test_unknown_fields_are_dropped_defaults_filled_in() -> None:
    world = with_widgets()
    made = make(world, size=1, foo=1, free={"any": {"thing": 1}}, items=[{"k": "a", "zz": 1}])
    assert made["spec"] == {
        "size": 1,
        "mode": "a",
        "free": {"any": {"thing": 1}},
        "items": [{"k": "a"}],
    }


def test_unknown_fields_are_told_or_refused() -> None:
    world = with_widgets()
    kind = world.kind("test.io/v1", "Widget")
    body = widget("w", size=1, foo=1)
    written = world.resources.create(kind, "default", copy.deepcopy(body), WriteOptions())
    assert written.warnings == ('unknown field "spec.foo"',)
    strict = WriteOptions(validation="Strict")
    with pytest.raises(StatusError, match=r'strict decoding error: unknown field "spec\.foo"'):
        world.resources.create(kind, "default", {**body, "metadata": {"name": "v"}}, strict)


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
        ({}, "spec.size", "Required value"),
        ({"size": 0}, "spec.size",
         "Invalid value: 0: spec.size in body should be greater than or equal to 1"),
        ({"size": 10}, "spec.size",
         "Invalid value: 10: spec.size in body should be less than or equal to 9"),
        ({"size": "1"}, "spec.size",
         'Invalid value: "string": spec.size in body must be of type integer: "string"'),
        ({"size": 1, "mode": "z"}, "spec.mode",
         'Unsupported value: "z": supported values: "a", "b"'),
        ({"size": 1, "name": "abcdef"}, "spec.name", "Too long: may not be more than 4 bytes"),
        ({"size": 1, "name": "y"}, "spec.name",
         'Invalid value: "y": spec.name in body should be at least 2 chars long'),
        ({"size": 1, "name": "yy"}, "spec.name",
         "Invalid value: \"yy\": spec.name in body should match '^x'"),
        ({"size": 1, "port": True}, "spec.port",
         'Invalid value: "boolean": spec.port in body must be of type integer,string: "boolean"'),
        ({"size": 1, "items": [{"v": "x"}]}, "spec.items[0].k", "Required value"),
        ({"size": 1, "items": [{"k": "1"}, {"k": "1"}]}, "spec.items[1]",
         'Duplicate value: {"k":"1"}'),
        ({"size": 1, "tags": ["a", "a"]}, "spec.tags[1]", 'Duplicate value: "a"'),
        ({"size": 1, "tags": "no"}, "spec.tags",
         'Invalid value: "string": spec.tags in body must be of type array: "string"'),
    ],
)  # fmt: skip
def test_faults_in_the_words_of_kubernetes(spec: dict[str, Any], field: str, message: str) -> None:
    assert causes(with_widgets(), **spec) == {field: message}


@pytest.mark.parametrize("spec", [{"port": 1}, {"port": "p"}, {"opt": None}, {"mode": None}])
def test_what_is_allowed(spec: dict[str, Any]) -> None:
    made = make(with_widgets(), size=1, **spec)
    assert made["spec"]["mode"] == "a", "a null where none may be is as good as absent"


def test_a_null_without_a_default_is_dropped_and_not_refused() -> None:
    """As by a real server: `tags:` with nothing behind it, as templates write it, was a 422."""
    made = make(with_widgets(), size=1, tags=None, items=[{"k": "1", "v": None}], opt=None)
    assert "tags" not in made["spec"]
    assert made["spec"]["items"] == [{"k": "1"}]
    assert made["spec"]["opt"] is None, "where it may be, it stays"
    assert causes(with_widgets(), size=None) == {"spec.size": "Required value"}


def test_strategic_merge_is_not_for_custom_resources() -> None:
    world = with_widgets()
    make(world, size=1)
    kind = world.kind("test.io/v1", "Widget")
    with pytest.raises(StatusError) as caught:
        world.resources.patch(kind, "default", "w", STRATEGIC_PATCH, {}, WriteOptions())
    assert caught.value.code == 415


def test_another_version_shows_the_same_object() -> None:
    world = World()
    body = definition()
    old = {**body["spec"]["versions"][0], "name": "v1beta1", "storage": False}
    body["spec"]["versions"].append(old)
    world.create(*CRD, body, namespace="")
    world.create("test.io/v1beta1", "Widget", {"metadata": {"name": "w"}, "spec": {"size": 1}})
    stored = world.get("test.io/v1", "Widget", "w")
    assert stored is not None
    assert stored["apiVersion"] == "test.io/v1"
    shown = world.merge("test.io/v1beta1", "Widget", "w", {"spec": {"size": 2}})
    assert shown["apiVersion"] == "test.io/v1beta1"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"group": "other.io"}, "metadata.name"),
        ({"versions": []}, "spec.versions"),
        ({"scope": "Both"}, "spec.scope"),
        ({"conversion": {"strategy": "Webhook"}}, "spec.conversion.strategy"),
    ],
)
def test_definitions_that_cannot_be_served(change: dict[str, Any], field: str) -> None:
    body = definition()
    body["spec"].update(change)
    with pytest.raises(StatusError) as caught:
        World().create(*CRD, body, namespace="")
    assert field in [cause["field"] for cause in (caught.value.details or {})["causes"]]


def test_a_schema_must_be_structural() -> None:
    body = definition()
    body["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = {
        "type": "object",
        "properties": {"a": {"items": {}}},
    }
    with pytest.raises(StatusError, match=r"properties\[a\].type: Required value"):
        World().create(*CRD, body, namespace="")


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 15), st.sampled_from(["a", "xy", ""])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["size", "mode", "items", "k", "tags", "zz"]), inner),
    ),
    max_leaves=10,
)


@settings(max_examples=150, deadline=None)
@given(json_values)
def test_no_value_breaks_the_schema(value: Any) -> None:
    schema = StructuralSchema(WIDGET_SCHEMA)
    obj = {"apiVersion": "test.io/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": value}
    schema.prune(obj)
    schema.default(obj)
    once = copy.deepcopy(obj)
    assert schema.prune(obj) == []
    schema.default(obj)
    assert obj == once, "pruning and defaulting twice is as good as once"
    for cause in schema.validate(obj):
        assert cause.field.startswith("spec")


RULE = {"rule": "self.size < 3", "message": "too big"}


def tighten(world: World, change: dict[str, Any]) -> None:
    """Let a later version of the definition forbid what is stored."""
    newer = copy.deepcopy(definition())
    schema = newer["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"]["spec"] = {**schema["properties"]["spec"], **change}
    world.merge(*CRD, newer["metadata"]["name"], {"spec": newer["spec"]}, namespace="")


@pytest.mark.parametrize(
    "change",
    [
        {"required": ["size", "news"]},
        {"maxProperties": 1},
        {"x-kubernetes-validations": [RULE]},
    ],
)
def test_an_object_that_a_newer_definition_forbids_can_still_be_worked_on_and_deleted(
    change: dict[str, Any],
) -> None:
    world = with_widgets()
    body = widget("w", size=5, name="xx", tags=["a"])
    body["metadata"]["finalizers"] = ["test.io/f"]
    world.create("test.io/v1", "Widget", body)
    tighten(world, change)
    kept = world.merge("test.io/v1", "Widget", "w", {"status": {"n": 1}}, subresource="status")
    assert kept["status"] == {"n": 1}
    with pytest.raises(StatusError) as caught:
        world.merge("test.io/v1", "Widget", "w", {"spec": {"size": 6}})
    assert caught.value.code == 422
    assert not world.delete("test.io/v1", "Widget", "w")
    world.merge("test.io/v1", "Widget", "w", {"metadata": {"finalizers": None}})
    assert world.get("test.io/v1", "Widget", "w") is None


def test_a_forbidden_value_that_stays_lets_its_neighbours_change() -> None:
    world = with_widgets()
    make(world, size=5, tags=["a", "b"])
    tags = {"type": "array", "items": {"type": "string", "enum": ["b"]}}
    size = {"type": "integer", "maximum": 3}
    tighten(world, {"properties": {"size": size, "tags": tags, "name": {"type": "string"}}})
    world.merge("test.io/v1", "Widget", "w", {"spec": {"name": "xx"}})
    with pytest.raises(StatusError, match=r"spec\.tags\[0\]"):
        world.merge("test.io/v1", "Widget", "w", {"spec": {"tags": ["a"]}})
    with pytest.raises(StatusError, match=r"spec\.size"):
        world.merge("test.io/v1", "Widget", "w", {"spec": {"size": 4}})
