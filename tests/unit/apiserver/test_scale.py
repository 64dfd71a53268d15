"""The scale subresource: the selector as text, numbers where the definition says."""

from typing import Any

import pytest

from kaos.local.apiserver.errors import StatusError
from kaos.local.apiserver.registry import Scale
from kaos.local.apiserver.scale import get_scale, set_scale
from tests.unit.apiserver.support import World, definition, widget


def scaled() -> World:
    world = World()
    crd = definition()
    version = crd["spec"]["versions"][0]
    version["subresources"]["scale"] = {
        "specReplicasPath": ".spec.size",
        "statusReplicasPath": ".status.n",
        "labelSelectorPath": ".spec.free.selector",
    }
    world.create("apiextensions.k8s.io/v1", "CustomResourceDefinition", crd, namespace="")
    return world


def test_a_custom_resource_scales_where_its_definition_says() -> None:
    world = scaled()
    body = widget("w", size=1, free={"selector": "a=b"})
    world.create("test.io/v1", "Widget", body)
    kind = world.kind("test.io/v1", "Widget")
    assert kind.scale == Scale(("spec", "size"), ("status", "n"), ("spec", "free", "selector"))
    scale = world.merge("test.io/v1", "Widget", "w", {"spec": {"replicas": 4}}, subresource="scale")
    assert scale["apiVersion"] == "autoscaling/v1"
    assert scale["spec"] == {"replicas": 4}
    assert scale["status"] == {"replicas": 0, "selector": "a=b"}
    stored = world.get("test.io/v1", "Widget", "w")
    assert stored is not None
    assert stored["spec"]["size"] == 4
    with pytest.raises(StatusError, match="less than or equal to 9"):
        world.merge("test.io/v1", "Widget", "w", {"spec": {"replicas": 40}}, subresource="scale")


def test_a_selector_as_text() -> None:
    terms = [
        {"key": "b", "operator": "In", "values": ["1", "2"]},
        {"key": "c", "operator": "NotIn", "values": ["3"]},
        {"key": "d", "operator": "Exists"},
        {"key": "e", "operator": "DoesNotExist"},
    ]
    obj: dict[str, Any] = {
        "metadata": {"name": "w"},
        "spec": {"selector": {"matchLabels": {"a": "x"}, "matchExpressions": terms}},
    }
    scale = get_scale(World().kind("apps/v1", "Deployment"), obj)
    assert scale["status"]["selector"] == "a=x,b in (1,2),c notin (3),d,!e"


@pytest.mark.parametrize(
    ("scale", "code"),
    [
        ([], 400),
        ({"spec": 5}, 400),
        ({"spec": {"replicas": -1}}, 422),
        ({"spec": {"replicas": "many"}}, 422),
        ({"metadata": {"resourceVersion": "1"}, "spec": {"replicas": 1}}, 409),
    ],
)
def test_scales_that_are_refused(scale: Any, code: int) -> None:
    obj = {"metadata": {"name": "w", "resourceVersion": "7"}, "spec": {}}
    with pytest.raises(StatusError) as caught:
        set_scale(World().kind("apps/v1", "Deployment"), obj, scale)
    assert caught.value.code == code


def test_a_kind_without_scale_has_none() -> None:
    with pytest.raises(StatusError) as caught:
        get_scale(World().kind("v1", "Pod"), {"metadata": {"name": "p"}})
    assert caught.value.code == 404
