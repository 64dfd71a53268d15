"""What the controllers make of every sample, as a whole: a change of a builder shows here.

After a change that is meant: `KAOS_UPDATE_GOLDEN=1 pytest tests/unit/reconcilers/test_golden.py`,
and read the difference.
"""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from kaos.api import MODELS, Agent, MCPServer, ModelAPI, Workload, crd
from kaos.api.__main__ import render
from kaos.local.apiserver.schema import StructuralSchema
from kaos.reconcilers.agent import asked_model
from kaos.reconcilers.children.agent import agent_children
from kaos.reconcilers.children.mcpserver import mcpserver_children, remote_url
from kaos.reconcilers.children.modelapi import modelapi_children
from kaos.reconcilers.children.scaling import scaled, scaling_children
from kaos.reconcilers.settings import Settings

HERE = Path(__file__).parent / "golden"
SAMPLES = Path(__file__).parents[3] / "manifests" / "samples"
INPUTS = [*sorted(SAMPLES.glob("*.yaml")), HERE / "everything.input.yaml"]
SETTINGS = Settings(image="kaos/kaos:test", ollama_image="ollama/ollama:test")
by_name = pytest.mark.parametrize("path", INPUTS, ids=lambda path: path.name)


def bodies(path: Path) -> list[dict[str, Any]]:
    found = [body for body in yaml.safe_load_all(path.read_text()) if body]
    for body in found:
        body["metadata"].setdefault("namespace", "default")
    return found


def resources(path: Path) -> list[Workload]:
    models: dict[str, type[Any]] = {model.KIND: model for model in MODELS}
    return [models[body["kind"]].parse(body) for body in bodies(path)]


def children(resource: Workload, others: list[Workload]) -> list[dict[str, Any]]:
    named = {(type(o), o.name): o for o in others}
    match resource:
        case Agent():
            api = named.get((ModelAPI, resource.spec.model_api))
            assert isinstance(api, ModelAPI)
            servers = [named[MCPServer, name] for name in resource.spec.mcp_servers]
            agents = [o for o in others if isinstance(o, Agent)]
            access = resource.spec.agent_network.access
            urls = {s.name: remote_url(s) for s in servers if isinstance(s, MCPServer)}
            made = agent_children(
                resource,
                asked_model(resource, api),
                SETTINGS,
                routes=True,
                remotes={name: url for name, url in urls.items() if url},
                callers=[
                    f"{a.namespace}/{a.name}"
                    for a in agents
                    if resource.name in a.spec.agent_network.access
                ],
                guarded=[a.name for a in agents if a.name in access and a.spec.auth],
            )
        case MCPServer():
            made = mcpserver_children(resource, SETTINGS, routes=True)
        case ModelAPI():
            made = modelapi_children(resource, SETTINGS, routes=True)
        case _:
            raise AssertionError(resource)
    if made:
        made += scaling_children(resource, pod_metrics=True)
    return [scaled(c, resource, None) if c["kind"] == "Deployment" else c for c in made]


@by_name
def test_the_children_of_every_sample_are_the_golden_ones(path: Path) -> None:
    found = resources(path)
    made = "---\n".join(
        render(child).partition("\n")[2] for one in found for child in children(one, found)
    )
    golden = HERE / f"{path.name.removesuffix('.yaml').removesuffix('.input')}.yaml"
    if os.environ.get("KAOS_UPDATE_GOLDEN"):
        golden.write_text(made)
    assert made == golden.read_text(), f"{golden.name} differs; see this module's docstring"


@by_name
def test_the_definitions_accept_every_sample(path: Path) -> None:
    schemas = {
        model.KIND: StructuralSchema(crd(model)["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
        for model in MODELS
    }
    for body in bodies(path):
        schema = schemas[body["kind"]]
        assert schema.prune(body) == []
        schema.default(body)
        assert schema.validate(body) == []


@by_name
def test_w16_no_child_runs_an_image_of_no_fixed_version(path: Path) -> None:
    found = resources(path)
    for child in (c for one in found for c in children(one, found)):
        pod = child["spec"].get("template", {}).get("spec", {}) if "spec" in child else {}
        for container in pod.get("containers", ()):
            tag = container["image"].rpartition(":")[2]
            assert tag not in ("latest", "main", container["image"]), container["image"]
    for image in (Settings().image, Settings().ollama_image):
        assert image.rpartition(":")[2][0].isdigit(), image
