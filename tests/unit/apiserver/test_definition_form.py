"""Definitions that cannot be read are refused: a stored one kept the server from starting."""

from typing import Any

import pytest

from kaos.local.apiserver.errors import StatusError
from tests.unit.apiserver.support import World, definition, widget

CRD = ("apiextensions.k8s.io/v1", "CustomResourceDefinition")


def refused(change: dict[str, Any], *, of_version: bool = False) -> StatusError:
    body = definition()
    (body["spec"]["versions"][0] if of_version else body["spec"]).update(change)
    world = World()
    with pytest.raises(StatusError) as caught:
        world.create(*CRD, body, namespace="")
    assert world.names(*CRD) == []
    return caught.value


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"subresources": {"scale": "x"}}, "subresources.scale"),
        (
            {"subresources": {"scale": {"specReplicasPath": 1}}},
            "subresources.scale.specReplicasPath",
        ),
        ({"additionalPrinterColumns": ["name"]}, "additionalPrinterColumns[0]"),
        ({"schema": {"openAPIV3Schema": "x"}}, "schema.openAPIV3Schema"),
    ],
)
def test_a_version_of_another_form_is_refused_with_its_place(
    change: dict[str, Any], where: str
) -> None:
    error = refused(change, of_version=True)
    assert error.code == 400
    assert f"spec.versions[0].{where}: " in error.message


def test_short_names_are_a_list() -> None:
    names = {**definition()["spec"]["names"], "shortNames": "wd"}
    assert "spec.names.shortNames: " in refused({"names": names}).message


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ({"type": "int"}, 'type: Unsupported value: "int": supported values: "array", "boolean"'),
        ({"type": "string", "pattern": "["}, "openAPIV3Schema: Invalid value"),
    ],
)
def test_a_schema_that_no_object_could_be_checked_by_is_refused(
    field: dict[str, Any], reason: str
) -> None:
    schema = {"type": "object", "properties": {"spec": field}}
    error = refused({"schema": {"openAPIV3Schema": schema}}, of_version=True)
    assert error.code == 422
    assert reason in error.message


def test_a_definition_may_spell_out_its_nulls() -> None:
    body = definition()
    body["spec"]["names"]["categories"] = None
    body["spec"]["versions"][0]["additionalPrinterColumns"] = None
    world = World()
    world.create(*CRD, body, namespace="")
    world.create("test.io/v1", "Widget", widget("w", size=1))
