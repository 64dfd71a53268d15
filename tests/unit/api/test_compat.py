"""Every spelling in docs/reference/compat.md is accepted and means what the table says."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kaos.api import Agent, InvalidSpecError, MCPServer, ModelAPI, ServerType
from kaos.reconcilers.agent import asked_model
from kaos.reconcilers.children.agent import agent_children
from kaos.reconcilers.children.mcpserver import mcpserver_children
from kaos.reconcilers.children.modelapi import modelapi_children
from kaos.reconcilers.runtimes import KEY, NAME, resolved
from kaos.reconcilers.settings import Settings
from kaos.runtime import Object
from tests.unit.reconcilers.resources import by_kind, env_of

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "compat.md"
SOURCE = "def f() -> str:\n    return 'x'\n"


def body(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": "x", "namespace": "default", "uid": "u"}
    return {"apiVersion": "kaos.tools/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}


def server(**spec: Any) -> MCPServer:
    return MCPServer.parse(body("MCPServer", spec))


def agent(**spec: Any) -> Agent:
    return Agent.parse(body("Agent", {"modelAPI": "ollama", **spec}))


def hosted(model: str = "smollm2:135m") -> ModelAPI:
    return ModelAPI.parse(
        body("ModelAPI", {"mode": "Hosted", "hostedConfig": {"model": model}}),
    )


def model_in_a_variable() -> None:
    env = [{"name": "MODEL_NAME", "value": "smollm2:135m"}]
    assert asked_model(agent(config={"env": env}), hosted()) == "smollm2:135m"
    assert asked_model(agent(model="smollm2:135m"), hosted()) == "smollm2:135m"


def model_with_a_prefix() -> None:
    assert asked_model(agent(model="ollama/smollm2:135m"), hosted()) == "smollm2:135m"
    assert hosted("ollama/smollm2:135m").spec.models == hosted().spec.models


def python_string() -> None:
    new = server(type="python-runtime", config={"tools": {"fromString": SOURCE}})
    old = server(runtime="python-string", params=SOURCE)
    children = [mcpserver_children(s, Settings(), routes=False) for s in (old, new)]
    assert children[0] == children[1]


def custom() -> None:
    old = server(runtime="custom", container={"image": "i"})
    assert old.spec.type is ServerType.CUSTOM
    assert old.spec == server(type="custom", container={"image": "i"}).spec


def registered() -> None:
    entries = {"slack": {"image": "corp/slack:1", "paramsEnvVar": "CHANNELS"}}
    registry = Object.from_dict(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": NAME},
            "data": {KEY: json.dumps({"runtimes": entries})},
        }
    )
    old = resolved(server(runtime="slack", params="a"), registry)
    env = [{"name": "CHANNELS", "value": "a"}]
    new = server(
        type="custom", container={"image": "corp/slack:1", "args": []}, config={"env": env}
    )
    children = [mcpserver_children(s, Settings(), routes=False) for s in (old, new)]
    assert children[0] == children[1]


def proxy_key() -> None:
    text = "model_list: [{model_name: m, litellm_params: {api_key: os.environ/PROXY_API_KEY}}]"
    config = {"models": ["m"], "apiKey": {"value": "k"}, "configYaml": {"fromString": text}}
    api = ModelAPI.parse(body("ModelAPI", {"mode": "Proxy", "proxyConfig": config}))
    pod = env_of(by_kind(modelapi_children(api, Settings(), routes=False))["Deployment"])
    assert pod["PROXY_API_KEY"] == "k"


def container_env() -> None:
    env = [{"name": "A", "value": "1"}]
    variants: list[dict[str, Any]] = [{"container": {"env": env}}, {"config": {"env": env}}]
    old, new = (agent_children(agent(**v), "m", Settings(), routes=False) for v in variants)
    assert old == new


ROWS: dict[str, Callable[[], None]] = {
    "Agent, `config.env` with `MODEL_NAME`": model_in_a_variable,
    "Agent or ModelAPI, a hosted model as `ollama/smollm2:135m`": model_with_a_prefix,
    "MCPServer, `runtime: python-string` with `params`": python_string,
    "MCPServer, `runtime: custom` with `container.image`": custom,
    "MCPServer, `runtime` and `params` of the registry `kaos-mcp-runtimes`": registered,
    "ModelAPI, `os.environ/PROXY_API_KEY` in `configYaml`": proxy_key,
    "any kind, `container.env`": container_env,
}


@pytest.mark.parametrize("row", ROWS)
def test_the_spelling_means_what_the_table_says(row: str) -> None:
    ROWS[row]()


def test_the_table_and_the_tests_are_one() -> None:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")][1:]
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines] == list(ROWS)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"runtime": "slack", "url": "http://x"}, "are for type remote, not runtime slack"),
        ({"runtime": "python-string"}, "needs params"),
        ({"runtime": "custom", "type": "custom"}, "one of type and runtime"),
        ({"type": "custom", "params": "x"}, "params belongs to runtime"),
        ({}, "set type"),
    ],
)
def test_a_mixture_is_refused(spec: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidSpecError, match=says):
        server(**spec)
