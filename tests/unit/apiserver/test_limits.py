"""What is too much, or badly named, is refused here as on a real cluster, before it gets there."""

import base64
from typing import Any

import pytest

from kaos.local.apiserver.errors import StatusError
from tests.unit.apiserver.support import World

MEBIBYTE = 1024 * 1024


@pytest.mark.parametrize(
    ("kind", "fields", "cause"),
    [
        ("ConfigMap", {"data": {"a": "é" * (MEBIBYTE // 2), "b": "x"}}, "[]: Too long"),
        ("Secret", {"stringData": {"a": "x" * (MEBIBYTE + 1)}}, "data: Too long"),
        ("ConfigMap", {"data": {"a b": ""}}, 'data[a b]: Invalid value: "a b": a valid config'),
        ("ConfigMap", {"binaryData": {"..x": ""}}, "binaryData[..x]: Invalid value"),
        ("Secret", {"stringData": {"a/b": ""}}, "data[a/b]: Invalid value"),
        (
            "ConfigMap",
            {"metadata": {"annotations": {"a": "x" * (MEBIBYTE // 4)}}},
            "metadata.annotations: Too long: may not be more than 262144 bytes",
        ),
    ],
)
def test_data_that_a_real_cluster_refuses_is_refused(
    kind: str, fields: dict[str, Any], cause: str
) -> None:
    metadata = {"name": "x", **fields.get("metadata", {})}
    with pytest.raises(StatusError) as caught:
        World().create("v1", kind, {**fields, "metadata": metadata})
    assert caught.value.code == 422
    assert f'{kind} "x" is invalid: {cause}' in caught.value.message


def test_data_just_within_the_limits_is_kept() -> None:
    world = World()
    world.config_map("x", {"a": "x" * MEBIBYTE})
    world.config_map("y", annotations={"a": "x" * (MEBIBYTE // 4 - 1)})
    whole = base64.b64encode(b"x" * MEBIBYTE).decode()
    world.create("v1", "Secret", {"metadata": {"name": "x"}, "data": {"a": whole}})
