"""A document of a user's never costs more than it is long; ordinary anchors are followed."""

import pytest

from kaos.api import InvalidSpecError, MCPServer
from kaos.reconcilers.children.modelapi import modelapi_children
from kaos.reconcilers.children.proxy import own_upstreams
from kaos.reconcilers.children.user_yaml import DEPTH, NODES, UserYamlError, load
from kaos.reconcilers.runtimes import KEY, NAME, resolved
from kaos.reconcilers.settings import Settings
from kaos.runtime import Object
from tests.unit.reconcilers.resources import body, proxy

ANCHORS = """
defaults: &defaults {api_base: "http://vllm.models.svc:8000/v1", timeout: 600}
model_list:
  - model_name: small
    litellm_params: {<<: *defaults, model: openai/small}
  - model_name: big
    litellm_params: {<<: *defaults, model: openai/big}
"""


def bomb(levels: int, item: str) -> str:
    """Each level has ten times the one before."""
    lines = ["a0: &a0 {x: 1, y: 2}"]
    for level in range(1, levels):
        aliases = ",".join([f"*a{level - 1}"] * 10)
        lines.append(f"a{level}: &a{level} " + item.replace("ALL", f"[{aliases}]"))
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (bomb(10, "ALL"), f"more than {NODES} nodes"),
        (bomb(10, "{<<: ALL}"), f"more than {NODES} nodes"),
        ("[" + "1," * NODES + "]", f"more than {NODES} nodes"),
        ("[" * (DEPTH + 1) + "]" * (DEPTH + 1), f"deeper than {DEPTH} levels"),
        ("[" * 200_000, f"deeper than {DEPTH} levels"),
        ("a: &a {<<: *a}", "alias [*]a stands before the end"),
        ("a: &a 1\nb: &a [*a]", "found duplicate anchor"),
        ("1" + ":1" * 100_000, "a number has more than"),
        ("9" * 5_000, "a number has more than"),
        ("a: [", "expected"),
        ("when: 2026-99-99", "month must be in"),
    ],
)
def test_a_document_that_means_more_than_it_says_is_refused(text: str, words: str) -> None:
    """One small ModelAPI took the controller's event loop for minutes, and gigabytes."""
    with pytest.raises(UserYamlError, match=words) as caught:
        load(text)
    assert "\n" not in str(caught.value)


def test_anchors_as_people_use_them_are_followed() -> None:
    config = proxy("small", "big", configYaml={"fromString": ANCHORS}).spec.proxy_config
    assert config is not None
    bases = [entry["api_base"] for entry in own_upstreams(config)]
    assert bases == ["http://vllm.models.svc:8000/v1"] * 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (bomb(9, "ALL"), f"fromString: with its aliases it has more than {NODES} nodes"),
        ("model_list: [{model_name: m, litellm_params: {api_base: [x]}}]", "api_base must be a te"),
        ("model_list: [{model_name: {}}]", "model_name must be a text, not dict"),
        ("models: [{name: 4}]", "name must be a text, not int"),
        ("models: [{name: m, api_base: 1}]", "api_base must be a text, not int"),
    ],
)
def test_a_gateways_configuration_that_is_not_as_it_must_be_is_an_invalid_spec(
    text: str, words: str
) -> None:
    api = proxy("m", configYaml={"fromString": text})
    with pytest.raises(InvalidSpecError, match=words):
        modelapi_children(api, Settings(), routes=False)


def test_the_registry_of_runtimes_is_read_as_carefully() -> None:
    slack = MCPServer.parse(body("MCPServer", "x", {"runtime": "slack"}))
    registry = Object.from_dict({"metadata": {"name": NAME}, "data": {KEY: bomb(9, "ALL")}})
    with pytest.raises(InvalidSpecError, match="cannot be used: with its aliases"):
        resolved(slack, registry)
