"""The definitions are structural, described, small, and what manifests/crds holds."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kaos.api import MODELS, CustomResource, crd
from kaos.api.__main__ import render
from kaos.api.reference import reference

ROOT = Path(__file__).parents[3]
CRDS = ROOT / "manifests" / "crds"
by_kind = pytest.mark.parametrize("model", MODELS, ids=lambda model: model.KIND)


def nodes(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            yield from nodes(node[key], f"{path}[]")


def schema(model: type[CustomResource]) -> dict[str, Any]:
    version = crd(model)["spec"]["versions"][0]
    found: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return found


@by_kind
def test_every_node_is_structural(model: type[CustomResource]) -> None:
    for path, node in nodes(schema(model)):
        assert "type" in node or node.get("x-kubernetes-int-or-string"), path
        assert not {"$ref", "anyOf", "allOf", "oneOf", "title", "const"} & set(node), path


@by_kind
def test_every_field_is_described(model: type[CustomResource]) -> None:
    for part in ("spec", "status"):
        for path, node in nodes(schema(model)["properties"][part], part):
            assert path.endswith("[]") or node.get("description"), path


@by_kind
def test_kubectl_knows_each_kind_by_short_words_and_shows_what_matters(
    model: type[CustomResource],
) -> None:
    spec = crd(model)["spec"]
    (version,) = spec["versions"]
    assert spec["names"]["categories"] == ["kaos"]
    known = {spec["names"]["singular"], *spec["names"]["shortNames"]}
    assert known & {"agent", "api", "mcp"}
    columns = {column["name"]: column for column in version["additionalPrinterColumns"]}
    assert {"Ready", "Phase", "Endpoint", "Age"} <= columns.keys()
    assert columns.keys() & {"Model", "Models", "Type"}
    assert version["subresources"]["scale"]["specReplicasPath"] == ".spec.replicas"
    assert "status" in version["subresources"]


@by_kind
def test_status_has_no_defaults(model: type[CustomResource]) -> None:
    for path, node in nodes(schema(model)["properties"]["status"]):
        assert "default" not in node, path


@by_kind
def test_the_manifest_is_the_models(model: type[CustomResource]) -> None:
    manifest = crd(model)
    file = CRDS / f"{manifest['metadata']['name']}.yaml"
    assert file.read_text() == render(manifest), "stale: run `nox -s manifests`"
    assert file.stat().st_size < 60_000  # client-side apply keeps it in an annotation


def test_the_reference_page_is_the_models() -> None:
    page = ROOT / "docs" / "reference" / "resources.md"
    assert page.read_text() == reference(MODELS), "stale: run `nox -s manifests`"
