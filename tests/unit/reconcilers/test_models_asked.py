"""Which model an agent asks for, and whether its ModelAPI has it."""

from typing import Any

import pytest

from kaos.api import ModelAPI
from kaos.reconcilers.agent import accept, asked_model, serves
from tests.unit.reconcilers.resources import agent, hosted, proxy

ENV: dict[str, Any] = {"config": {"env": [{"name": "MODEL_NAME", "value": "ollama/smollm2:135m"}]}}


@pytest.mark.parametrize(
    ("spec", "api", "model"),
    [
        ({}, hosted(), "smollm2:135m"),
        ({"model": "ollama/smollm2:135m"}, hosted(), "smollm2:135m"),
        (ENV, hosted(), "smollm2:135m"),
        ({**ENV, "model": "other"}, hosted(), "smollm2:135m"),
        (ENV, proxy("*", apiBase="http://up"), "ollama/smollm2:135m"),
        ({}, proxy("gpt-x", "y", apiBase="http://up"), "gpt-x"),
        ({}, proxy("*", apiBase="http://up"), ""),
        ({}, None, ""),
        ({"model": "m"}, None, "m"),
    ],
)
def test_asked_model(spec: dict[str, Any], api: ModelAPI | None, model: str) -> None:
    assert asked_model(agent(**spec), api) == model


@pytest.mark.parametrize(
    ("patterns", "model", "served"),
    [
        (["a"], "a", True),
        (["a"], "b", False),
        (["*"], "anything", True),
        (["nebius/*"], "nebius/x", True),
        (["nebius/*"], "nebius", False),
        (["gpt-*"], "gpt-5", True),
        (["gpt-*"], "gpt-", False),
        (["*-mini"], "gpt-5-mini", True),
        (["a*a"], "a", False),
    ],
)
def test_serves(patterns: list[str], model: str, served: bool) -> None:
    assert serves(proxy(*patterns, apiBase="http://up"), model) is served


def test_a_model_that_is_not_served_is_refused_with_what_is() -> None:
    finding = accept(agent(model="gpt-x"), hosted())
    assert not finding.ok
    assert finding.reason == "ModelNotServed"
    assert "smollm2:135m" in finding.message


def test_a_model_that_is_named_by_a_variable_is_looked_for_as_well() -> None:
    """The agent was Ready, and each of its answers was a 404."""
    finding = accept(agent(**ENV), hosted(model="llama3.2"))
    assert (finding.ok, finding.reason) == (False, "ModelNotServed")
    assert "change MODEL_NAME in spec.config.env or the ModelAPI" in finding.message
    assert accept(agent(**ENV, model="other"), hosted()).ok  # it wins over spec.model


def test_an_agent_without_a_model_is_told_to_name_one_where_there_are_patterns_alone() -> None:
    """It had no pods, and was Accepted: nothing said why."""
    finding = accept(agent(), proxy("gpt-*", "local/*", apiBase="http://up"))
    assert (finding.ok, finding.reason) == (False, "ModelNotServed")
    assert "serves any model that fits gpt-*, local/*" in finding.message
    assert "spec.model" in finding.message
    assert accept(agent(), proxy("gpt-*", "gpt-5", apiBase="http://up")).ok
    assert accept(agent(model="gpt-5"), proxy("gpt-*", apiBase="http://up")).ok
    assert accept(agent(), None).ok
