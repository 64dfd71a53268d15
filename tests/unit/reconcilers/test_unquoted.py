"""W13: no text of a spec is read by a shell, a template or Kubernetes' expansion of $(NAME).

Whatever a user writes, the processes see exactly that: the builders' output is read here as a
kubelet reads it. `config.env`, `container` and `podSpec` are a pod's own fields, where `$(NAME)`
means what it means in any pod.
"""

import json
import re
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from kaos.api import MCPServer
from kaos.reconcilers.children.agent import agent_children
from kaos.reconcilers.children.mcpserver import mcpserver_children
from kaos.reconcilers.children.modelapi import modelapi_children
from kaos.reconcilers.settings import Settings
from tests.unit.reconcilers.resources import agent, body, by_kind, env_of, hosted, proxy, server

PIECES = [
    "$(HOME)",
    "$$(A)",
    "$",
    "`id`",
    "; rm -rf /",
    "'",
    '"',
    "\n",
    "{{x}}",
    "${y}",
    "\\",
    "$(",
]
texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=8), min_size=1, max_size=6).map("".join)
nonempty = texts.filter(str.strip)
names = st.from_regex(r"[a-z]([a-z0-9-]{0,30}[a-z0-9])?", fullmatch=True)
SHELLS = re.compile(r"(^|/)(ba|da|z)?sh$")


def expanded(text: str, env: dict[str, Any]) -> str:
    """As a kubelet does it: `$(NAME)` by its value if there is one, `$$` is a dollar."""

    def one(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        value = env.get(match[1])
        return value if isinstance(value, str) else match[0]

    return re.sub(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_]*)\)", one, text)


def seen(children: list[dict[str, Any]]) -> dict[str, str]:
    """The variables that the main container's process sees; also checks that no shell is run."""
    deployment = by_kind(children)["Deployment"]
    for container in deployment["spec"]["template"]["spec"]["containers"]:
        words = [*container.get("command", ()), *container["args"]]
        assert not any(SHELLS.search(word) for word in words[:1])
        assert "-c" not in words[:2]
    env = env_of(deployment) | {"HOME": "/root"}
    return {name: expanded(v, env) for name, v in env.items() if isinstance(v, str)}


@given(names, texts, texts)
def test_an_agents_words(name: str, description: str, instructions: str) -> None:
    one = agent(name, config={"description": description, "instructions": instructions})
    env = seen(agent_children(one, "m", Settings(), routes=True))
    assert env["AGENT_DESCRIPTION"] == description
    assert env["AGENT_INSTRUCTIONS"] == instructions
    assert env["AGENT_NAME"] == name


@given(texts)
def test_a_models_name(model: str) -> None:
    env = seen(agent_children(agent(), model, Settings(), routes=False))
    assert env["MODEL_NAME"] == model


@given(nonempty)
def test_the_source_of_tools(source: str) -> None:
    env = seen(mcpserver_children(server(tools={"fromString": source}), Settings(), routes=False))
    assert env["MCP_TOOLS_STRING"] == source


paths = texts.map(lambda text: "".join(c for c in text if "!" <= c <= "~" and c != "\\"))


@given(paths.map(lambda path: f"https://up.test/{path}"))
def test_the_address_of_a_remote_server(url: str) -> None:
    header = {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
    spec = {"type": "remote", "url": url, "headers": [header]}
    one = MCPServer.parse(body("MCPServer", "x", spec))
    assert seen(mcpserver_children(one, Settings(), routes=False))["MCP_URL"] == url


@given(nonempty, st.lists(nonempty, min_size=1, max_size=3, unique=True))
def test_a_proxys_key_and_configuration(key: str, models: list[str]) -> None:
    api = proxy(*models, apiBase="https://up.test", apiKey={"value": key})
    children = modelapi_children(api, Settings(), routes=False)
    assert seen(children)["PROXY_API_KEY"] == key
    document = json.loads(by_kind(children)["ConfigMap"]["data"]["config.json"])
    assert [entry["name"] for entry in document["models"]] == models


@given(st.dictionaries(nonempty, nonempty, min_size=1, max_size=3))
def test_a_configuration_is_the_users_bytes(params: dict[str, str]) -> None:
    document = {"model_list": [{"model_name": "m", "litellm_params": params}]}
    text = yaml.safe_dump(document)
    api = proxy("m", configYaml={"fromString": text})
    children = modelapi_children(api, Settings(), routes=False)
    assert by_kind(children)["ConfigMap"]["data"] == {"config.yaml": text}


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,60}", fullmatch=True))
def test_a_hosted_models_name_is_one_argument(model: str) -> None:
    children = modelapi_children(hosted(model=model), Settings(), routes=False)
    seen(children)
    pod = by_kind(children)["Deployment"]["spec"]["template"]["spec"]
    assert pod["containers"][1]["args"][:3] == ["pull", "--model", model.removeprefix("ollama/")]
