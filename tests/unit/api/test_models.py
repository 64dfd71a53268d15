"""The resources read what users write, and refuse what makes no sense with the field's name."""

from typing import Any

import pytest

from kaos.api import MODELS, Agent, InvalidSpecError, MCPServer, ModelAPI


def body(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "kaos.tools/v1alpha1",
        "kind": kind,
        "metadata": {"name": "x", "namespace": "default", "uid": "u"},
        "spec": spec,
    }


def test_an_agent_needs_no_more_than_its_model_api() -> None:
    agent = Agent.parse(body("Agent", {"modelAPI": "ollama"}))

    assert agent.spec.mcp_servers == []
    assert agent.spec.agent_network.expose is True
    assert agent.spec.replicas == 1
    assert agent.spec.wait_for_dependencies is True


@pytest.mark.parametrize(
    ("kind", "spec", "says"),
    [
        ("Agent", {}, "modelAPI"),
        ("Agent", {"modelAPI": "Not A Name"}, "modelAPI"),
        ("Agent", {"modelAPI": "a", "config": {"reasoningLoopMaxSteps": 0}}, "MaxSteps"),
        ("Agent", {"modelAPI": "a", "gatewayRoute": {"timeout": "soon"}}, "timeout"),
        ("ModelAPI", {"mode": "Hosted"}, "mode Hosted needs hostedConfig"),
        ("ModelAPI", {"mode": "Proxy"}, "mode Proxy needs proxyConfig"),
        ("ModelAPI", {"mode": "Proxy", "proxyConfig": {"models": ["m"]}}, "set apiBase"),
        ("ModelAPI", {"mode": "Hosted", "hostedConfig": {"model": "a; rm -rf /"}}, "model"),
        ("MCPServer", {"type": "python-runtime", "config": {}}, "exactly one of mcp and tools"),
        (
            "MCPServer",
            {"type": "python-runtime", "config": {"mcp": "a", "tools": {"fromString": "x"}}},
            "exactly one of mcp and tools",
        ),
        (
            "MCPServer",
            {"type": "python-runtime", "config": {"tools": {}}},
            "exactly one of fromString",
        ),
        (
            "MCPServer",
            {
                "type": "python-runtime",
                "config": {
                    "mcp": "a",
                    "env": [{"name": "A", "value": "1", "valueFrom": {}}],
                },
            },
            "variable A sets both value and valueFrom",
        ),
    ],
)
def test_a_broken_spec_is_refused_in_words_that_name_the_field(
    kind: str, spec: dict[str, Any], says: str
) -> None:
    model = {m.KIND: m for m in MODELS}[kind]
    with pytest.raises(InvalidSpecError, match=says):
        model.parse(body(kind, spec))


def test_the_two_spellings_of_a_hosted_model_are_one() -> None:
    for name in ("smollm2:135m", "ollama/smollm2:135m"):
        api = ModelAPI.parse(body("ModelAPI", {"mode": "Hosted", "hostedConfig": {"model": name}}))
        assert api.spec.models == ["smollm2:135m"]


def test_fields_of_a_later_version_are_left_alone() -> None:
    server = MCPServer.parse(
        body("MCPServer", {"type": "python-runtime", "config": {"mcp": "a"}, "later": 1})
    )
    assert server.spec.config.mcp == "a"
