"""A tool call and a delegation, for sure: the model is scripted, all else is real."""

import json
import urllib.request
from typing import Any

from tests.e2e.scenarios.client import ask
from tests.e2e.scenarios.manifests import agent, as_list, echo_server, proxy, scripted_model
from tests.e2e.scenarios.targets import Target, eventually


def requests_to(target: Target, namespace: str, model: str = "scripted") -> list[dict[str, Any]]:
    """The requests that the scripted model has received."""
    with (
        target.port_forward(f"svc/{model}", 8000, namespace) as url,
        urllib.request.urlopen(f"{url}/requests", timeout=10) as response,
    ):
        found: list[dict[str, Any]] = json.load(response)
        return found


def calls(name: str, **arguments: str) -> dict[str, Any]:
    return {"tool_calls": [{"name": name, "arguments": arguments}]}


def test_the_echo_tools_result_reaches_the_model(target: Target, namespace: str) -> None:
    conversation = {
        "when": "parrot",
        "by": "step",
        "turns": [calls("echo", message="polly-42"), {"text": "It said: {last}"}],
    }
    target.kubectl(
        *("apply", "-n", namespace, "-f", "-"),
        stdin=as_list(
            *scripted_model("scripted", conversation),
            proxy("model", "scripted"),
            echo_server(),
            agent("parrot", mcpServers=["echo-tools"], config={"instructions": "parrot"}),
        ),
    )
    target.wait_ready("agent", "parrot", namespace)
    with target.port_forward("svc/parrot", 80, namespace) as url:
        assert "polly-42" in ask(url, "say it")
    last = requests_to(target, namespace)[-1]["body"]["messages"]
    assert any(m["role"] == "tool" and "polly-42" in str(m["content"]) for m in last)


def test_a_delegation_goes_to_the_peer_its_tool_and_back(target: Target, namespace: str) -> None:
    """The coordinator is created first; its peer only when it already answers."""
    script = [
        {
            "when": "You coordinate",
            "by": "step",
            "turns": [calls("delegate_to_researcher", task="find X"), {"text": "Peer: {last}"}],
        },
        {
            "when": "You research",
            "by": "step",
            "turns": [calls("echo", message="found-X-77"), {"text": "I found {last}"}],
        },
    ]
    target.kubectl(
        *("apply", "-n", namespace, "-f", "-"),
        stdin=as_list(
            *scripted_model("scripted", *script),
            proxy("model", "scripted"),
            echo_server(),
            agent(
                "coordinator",
                config={"instructions": "You coordinate"},
                agentNetwork={"access": ["researcher"]},
            ),
        ),
    )

    def waits() -> bool:
        conditions = target.get("agent", "coordinator", namespace).get("status", {})
        return 'Agent "researcher" does not exist' in conditions.get("message", "")

    eventually("the coordinator says whom it misses", waits)
    researcher = agent(
        "researcher", mcpServers=["echo-tools"], config={"instructions": "You research"}
    )
    target.kubectl("apply", "-n", namespace, "-f", "-", stdin=as_list(researcher))
    target.wait_ready("agent", "coordinator", namespace)
    pods = target.names("pods", namespace, "app=coordinator")
    with target.port_forward("svc/coordinator", 80, namespace) as url:
        assert "found-X-77" in ask(url, "go")
    assert target.names("pods", namespace, "app=coordinator") == pods, "the peer needed a rollout"
