"""The fields of built-in kinds: which do not exist, and what schemas say of them."""

from typing import Any

import pytest

from kaos.local.apiserver.builtin_types import (
    parts_of,
    properties_of,
    unknown_fields,
    wrong_type,
)

GOOD: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "d", "labels": {"any.key": "x"}, "annotations": {"spec.x": "y"}},
    "spec": {
        "replicas": 1,
        "selector": {"matchLabels": {"app": "d"}},
        "template": {
            "spec": {
                "serviceAccount": "old",
                "containers": [
                    {
                        "name": "a",
                        "resources": {"limits": {"example.com/gpu": 1}},
                        "livenessProbe": {"httpGet": {"port": "http"}, "periodSeconds": 3},
                    }
                ],
                "volumes": [{"name": "v", "emptyDir": {}}],
            }
        },
    },
}


def test_an_object_of_known_fields_has_no_unknown_ones() -> None:
    assert unknown_fields("apps/v1", "Deployment", GOOD) == []
    assert wrong_type("apps/v1", "Deployment", GOOD) == ""


@pytest.mark.parametrize(
    ("kind", "obj", "message"),
    [
        ("ConfigMap", {"data": {"on": True}}, "data.on: expected string, found boolean"),
        ("ConfigMap", {"data": ["a"]}, "data: expected object, found array"),
        ("ConfigMap", {"immutable": "yes"}, "immutable: expected boolean, found string"),
        ("Secret", {"stringData": {"a": 5}}, "stringData.a: expected string, found number"),
        (
            "Pod",
            {"spec": {"containers": [{"env": [{"name": "A", "value": 5}]}]}},
            "spec.containers[0].env[0].value: expected string, found number",
        ),
        (
            "Pod",
            {"spec": {"containers": [{"command": ["sleep", 100]}]}},
            "spec.containers[0].command[1]: expected string, found number",
        ),
        (
            "Pod",
            {"spec": {"containers": [{"ports": [{"containerPort": "x"}]}]}},
            "spec.containers[0].ports[0].containerPort: expected number, found string",
        ),
        ("Pod", {"spec": "x"}, "spec: expected object, found string"),
        ("Pod", {"spec": None, "metadata": {"creationTimestamp": None}}, ""),
        ("HTTPRoute", {"spec": 1}, ""),
    ],
)
def test_a_value_of_another_type_is_named_with_its_place(
    kind: str, obj: dict[str, Any], message: str
) -> None:
    """YAML makes `true` and `5` of what was meant as text; real servers refuse that."""
    assert wrong_type("v1", kind, obj) == message


@pytest.mark.parametrize(
    ("kind", "obj", "paths"),
    [
        ("Pod", {"speck": {}}, ["speck"]),
        ("Pod", {"spec": {"containers": [{}, {"imagee": 1}]}}, ["spec.containers[1].imagee"]),
        ("Pod", {"metadata": {"lables": {}}}, ["metadata.lables"]),
        ("Pod", {"spec": {"volumes": [{"emptyDirr": {}}]}}, ["spec.volumes[0].emptyDirr"]),
        (
            "Pod",
            {"spec": {"containers": [{"livenessProbe": {"handler": {}}}]}},
            ["spec.containers[0].livenessProbe.handler"],
        ),
        ("Pod", {"spec": "text", "status": None}, []),
        ("Pod", {"spec": {"containers": {"a": 1}, "nodeSelector": [1]}}, []),
        ("Pod", {f"x{n}": n for n in range(99)}, [f"x{n}" for n in range(20)]),
        ("Nothing", {"anything": 1}, []),
    ],
)
def test_unknown_fields_are_named(kind: str, obj: dict[str, Any], paths: list[str]) -> None:
    assert unknown_fields("v1", kind, obj) == paths


def test_schemas_tell_types_and_lead_on() -> None:
    properties = properties_of("core.Container", {"core.Probe": "#/probe"})
    assert properties["name"] == {"type": "string"}
    assert properties["livenessProbe"] == {"allOf": [{"$ref": "#/probe"}]}
    assert properties["env"] == {
        "type": "array",
        "items": {"$ref": "#/components/schemas/io.k8s.api.core.EnvVar"},
    }
    probe = properties_of("core.Probe", {})
    assert "httpGet" in probe
    assert "" not in probe


def test_parts_are_all_that_a_kind_is_made_of() -> None:
    parts = parts_of("apps.Deployment")
    assert {"core.Container", "core.EnvVarSource", "meta.ObjectMeta"} <= parts
    assert "core.ServiceSpec" not in parts
