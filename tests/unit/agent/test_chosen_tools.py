"""An Agent's `tools`, from the manifest through the pod's variables to what its model sees."""

from typing import Any

import pytest

from kaos.agent.settings import Settings
from kaos.api import Agent
from kaos.reconcilers.children.agent import agent_children
from kaos.reconcilers.settings import Settings as ControllerSettings
from kaos.testing.model import ScriptedModel, tool_call


def told(**spec: Any) -> Settings:
    """What an agent's process reads of the variables that the controller gives it."""
    body = {
        "metadata": {"name": "assistant"},
        "kind": "Agent",
        "spec": {"modelAPI": "ollama", "mcpServers": ["tools"], **spec},
    }
    made = agent_children(Agent.parse(body), "m", ControllerSettings(), routes=False)
    (pod,) = (c["spec"]["template"]["spec"] for c in made if c["kind"] == "Deployment")
    env = {v["name"]: v["value"].replace("$$", "$") for v in pod["containers"][0]["env"]}
    return Settings.from_env(env)


@pytest.mark.parametrize(
    ("choice", "offered"),
    [
        ({}, {"echo", "fail"}),
        ({"allow": ["echo"]}, {"echo"}),
        ({"rename": {"echo": "parrot"}}, {"parrot", "fail"}),
        ({"allow": ["echo"], "rename": {"echo": "parrot"}}, {"parrot"}),
        ({"allow": ["nothing-of-that-name"]}, set()),
    ],
)
async def test_the_model_is_offered_what_the_manifest_allows_under_the_names_it_gives(
    start_agent: Any,
    ask: Any,
    model: ScriptedModel,
    tool_server: str,
    choice: dict[str, Any],
    offered: set[str],
) -> None:
    settings = told(tools=[{"server": "tools", **choice}])
    agent = await start_agent(mcp_servers={"tools": tool_server}, mcp_tools=settings.mcp_tools)
    model.say(tool_call("parrot", text="hello"), "{last}")
    _, body = await ask(agent)
    assert {t["function"]["name"] for t in model.requests[0].body.get("tools") or ()} == offered
    answer = body["choices"][0]["message"]["content"]
    assert ("echo: hello" in answer) == ("parrot" in offered)
