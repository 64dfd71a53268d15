"""The registry of runtimes: names of images, in one place, watched."""

from functools import partial
from typing import Any

import pytest
import yaml

from kaos import api
from kaos.api import InvalidSpecError, MCPServer
from kaos.reconcilers.children.mcpserver import mcpserver_children
from kaos.reconcilers.runtimes import KEY, NAME, resolved
from kaos.reconcilers.settings import Settings
from kaos.runtime import CONFIG_MAP, DEPLOYMENT, Object
from tests.unit.reconcilers.harness import ECHO, Cluster, says
from tests.unit.reconcilers.resources import body, by_kind, env_of

SLACK = {
    "type": "node",
    "image": "corp/slack-mcp:1.4.2",
    "command": ["node", "main.js"],
    "args": ["--transport", "http"],
    "paramsEnvVar": "SLACK_CHANNELS",
    "transport": "http",
    "requiredEnv": ["SLACK_BOT_TOKEN"],
    "env": [{"name": "LOG", "value": "info"}, {"name": "MODE", "value": "safe"}],
}


def registry(text: str | dict[str, Any]) -> dict[str, Any]:
    data = text if isinstance(text, str) else yaml.safe_dump({"runtimes": text})
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": NAME},
        "data": {KEY: data},
    }


def server(**spec: Any) -> MCPServer:
    return MCPServer.parse(body("MCPServer", "x", spec))


def made(server: MCPServer, entries: str | dict[str, Any]) -> dict[str, Any]:
    one = resolved(server, Object.from_dict(registry(entries)))
    return by_kind(mcpserver_children(one, Settings(), routes=False))["Deployment"]


def test_a_name_is_an_image_with_its_words_and_variables() -> None:
    env = [{"name": "SLACK_BOT_TOKEN", "value": "t"}, {"name": "MODE", "value": "mine"}]
    one = server(runtime="slack", params="$(a) 'b'", config={"env": env})
    deployment = made(one, {"slack": SLACK})
    (main,) = deployment["spec"]["template"]["spec"]["containers"]
    assert main["image"] == "corp/slack-mcp:1.4.2"
    assert (main["command"], main["args"]) == (["node", "main.js"], ["--transport", "http"])
    found = env_of(deployment)
    assert found["SLACK_CHANNELS"] == "$$(a) 'b'"
    assert (found["LOG"], found["MODE"]) == ("info", "mine")


def test_what_the_server_says_of_its_container_wins() -> None:
    wish = {"image": "other:1", "args": ["x"], "env": [{"name": "SLACK_BOT_TOKEN", "value": "t"}]}
    (main,) = made(server(runtime="slack", container=wish), {"slack": SLACK})["spec"]["template"][
        "spec"
    ]["containers"]
    assert (main["image"], main["command"], main["args"]) == ("other:1", ["node", "main.js"], ["x"])


@pytest.mark.parametrize("type_", ["python-runtime", "node-runtime"])
def test_our_own_types_may_have_another_image_and_keep_our_command(type_: str) -> None:
    one = server(type=type_, config={"mcp": "test-mcp-echo-server"})
    (main,) = made(one, {type_: {"image": "corp/kaos:9"}})["spec"]["template"]["spec"]["containers"]
    assert main["image"] == "corp/kaos:9"
    assert main["command"] == ["python", "-m", "kaos.toolserver"]


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        (
            {"jira": SLACK},
            r'"slack" is not known \(known: custom, jira, python-string\); add it to',
        ),
        ({"slack": {}}, 'runtime "slack": image: Field required'),
        ({"slack": {**SLACK, "transport": "stdio"}}, 'transport "stdio" is not served'),
        # W12: the earlier KAOS had slack's arguments there, and its pod could not start.
        ({"slack": {**SLACK, "command": ["--transport"]}}, "starts with the option '--transport'"),
        ({"slack": SLACK}, r"spec\.config\.env: the runtime needs SLACK_BOT_TOKEN"),
        ("runtimes: [", r"runtimes\.yaml cannot be used: while parsing"),
        ("runtimes: [a]", "cannot be used"),
        ("just text", "cannot be used"),
        ("!!python/object/apply:os.system [id]", "cannot be used: could not determine"),
    ],
)
def test_what_cannot_be_used_is_told(entries: Any, words: str) -> None:
    with pytest.raises(InvalidSpecError, match=words):
        made(server(runtime="slack"), entries)


def test_without_a_registry_only_our_own_are_known() -> None:
    with pytest.raises(InvalidSpecError, match=r"\(known: custom, python-string\)"):
        resolved(server(runtime="slack"), None)
    assert resolved(server(**ECHO), None).spec == server(**ECHO).spec


async def test_a_late_entry_starts_the_server_and_a_changed_image_rolls_it(
    cluster: Cluster,
) -> None:
    await cluster.apply("MCPServer", "tools", {"runtime": "search"})
    found = await cluster.eventually(api.MCPServer, "tools", says("Accepted", "InvalidSpec"))
    assert '"search" is not known' in found.status["message"]

    for tag in ("corp/search:1", "corp/search:2"):
        await cluster.put(registry({"search": {"image": tag}}))
        await cluster.eventually(DEPLOYMENT, "mcpserver-tools", partial(runs, tag))
    await cluster.eventually(api.MCPServer, "tools", says("Accepted", "SpecValid"))
    await cluster.delete(CONFIG_MAP, NAME)


def runs(image: str, deployment: Object) -> bool:
    return bool(deployment.spec["template"]["spec"]["containers"][0]["image"] == image)
