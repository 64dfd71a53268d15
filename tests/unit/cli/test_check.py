"""Checks before anything starts."""

from pathlib import Path

import pytest

from kaos.cli.check import check, nearest
from kaos.cli.errors import UsageError
from kaos.cli.manifests import load, parse

SAMPLES = Path(__file__).parents[3] / "manifests" / "samples"


def problems(text: str) -> list[str]:
    with pytest.raises(UsageError) as caught:
        check(parse("f.yaml", text))
    return str(caught.value).splitlines()


def agent(spec: str) -> str:
    return f"apiVersion: kaos.tools/v1alpha1\nkind: Agent\nmetadata: {{name: a}}\nspec:\n{spec}"


@pytest.mark.parametrize("name", ["simple-agent.yaml", "multi-agent-gateway.yaml"])
def test_the_samples_pass(name: str) -> None:
    check(load([str(SAMPLES / name)]))


def test_an_unknown_field_is_told_with_path_line_and_nearest_name() -> None:
    assert problems(agent("  modelApi: x\n")) == [
        "f.yaml:5:3: Agent has no field spec.modelApi (did you mean modelAPI?)"
    ]
    found = problems(agent("  modelAPI: x\n  config:\n    env:\n    - {nam: A, value: b}\n"))
    assert found == ["f.yaml:8:8: Agent has no field spec.config.env[0].nam (did you mean name?)"]


def test_all_problems_are_told_at_once() -> None:
    text = agent("  modelAPI: x\n  one: 1\n  two: 2\n")
    assert len(problems(text)) == 2


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("  config: {}\n", "f.yaml:4:1: Agent a: spec.modelAPI is required"),
        ("  modelAPI: Not_A_Name\n", "f.yaml:5:3: Agent a: spec.modelAPI: String should match"),
        ("  modelAPI: x\n  replicas: many\n", "f.yaml:6:3: Agent a: spec.replicas: Input should"),
    ],
)
def test_a_refused_value_is_told_with_its_place(spec: str, message: str) -> None:
    (problem,) = problems(agent(spec))
    assert problem.startswith(message)


def test_a_rule_of_the_whole_object_is_told_without_an_empty_path() -> None:
    (problem,) = problems(agent("  modelAPI: m\n").replace("name: a", "name: A_b"))
    assert problem.startswith("f.yaml:1:1: Agent A_b: metadata.name: ")


def test_a_rule_over_several_fields_is_told_too() -> None:
    text = agent("  mode: Hosted\n").replace("Agent", "ModelAPI")
    assert problems(text) == ["f.yaml:4:1: ModelAPI a: spec: mode Hosted needs hostedConfig"]


@pytest.mark.parametrize(
    ("api_version", "kind", "message"),
    [
        ("kaos.tools/v1alpha1", "Agnet", "f.yaml:2:1: unknown kind Agnet (did you mean Agent?)"),
        ("v1", "Podd", "f.yaml:2:1: unknown kind Podd (did you mean Pod?)"),
        ("kaos.tools/v1", "Agent", "f.yaml:1:1: Agent has apiVersion kaos.tools/v1alpha1, not"),
        ("v1", "Deployment", "f.yaml:1:1: Deployment has apiVersion apps/v1, not v1"),
    ],
)
def test_an_unknown_kind_is_told_with_the_nearest(
    api_version: str, kind: str, message: str
) -> None:
    text = f"apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: a}}\n"
    (problem,) = problems(text)
    assert problem.startswith(message)


@pytest.mark.parametrize(
    ("api_version", "kind"), [("v1", "ConfigMap"), ("example.org/v1", "Website")]
)
def test_kinds_of_others_are_left_to_the_server(api_version: str, kind: str) -> None:
    check(parse("f.yaml", f"apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: a}}\n"))


def test_the_same_object_twice_is_told_with_both_places() -> None:
    one = agent("  modelAPI: x\n")
    (problem,) = problems(f"{one}---\n{one}")
    assert problem == "f.yaml:7:1: Agent a is defined a second time; the first is at f.yaml:1:1"


def test_nearest_names_one_or_lists_all() -> None:
    assert nearest("statsu", ["status", "spec"]) == " (did you mean status?)"
    assert nearest("zzz", ["b", "a"]) == " (there are: a, b)"
    assert nearest("zzz", []) == ""
