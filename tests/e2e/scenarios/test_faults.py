"""Parts die under load: what does not need them goes on, and they come back by themselves."""

import json

import pytest

from tests.e2e.scenarios.client import load
from tests.e2e.scenarios.manifests import (
    Manifest,
    agent,
    as_list,
    echo_server,
    proxy,
    scripted_model,
)
from tests.e2e.scenarios.targets import IMAGE, Target, eventually
from tests.e2e.scenarios.test_lifecycle import _answers


@pytest.fixture
def url(target: Target, namespace: str) -> str:
    """An agent with a tool server, answering through the gateway."""
    call = {"tool_calls": [{"name": "echo", "arguments": {"message": "hi"}}]}
    script: list[Manifest] = [
        {"when": "use the tool", "by": "step", "turns": [call, {"text": "{last}"}]},
        {"turns": [{"text": "plain"}], "repeat": True},
    ]
    target.kubectl(
        *("apply", "-n", namespace, "-f", "-"),
        stdin=as_list(
            *scripted_model("scripted", *script),
            proxy("model", "scripted"),
            echo_server(),
            agent("worker", mcpServers=["echo-tools"]),
        ),
    )
    target.wait_ready("agent", "worker", namespace)
    found = f"{target.gateway}/{namespace}/agent/worker"
    eventually("the route", lambda: _answers(found))
    return found


def test_the_tool_servers_pod_is_killed(target: Target, namespace: str, url: str) -> None:
    with load(url, "no tool needed") as plain:
        plain.wait_for(3)
        (pod,) = target.names("pods", namespace, "app=echo-tools")
        target.kubectl(
            *("delete", "pod", pod, "-n", namespace, "--force", "--grace-period=0"), "--wait=false"
        )
        eventually(
            "the agent's word on it",
            lambda: target.get("agent", "worker", namespace)["status"]["ready"] is False,
            30,
        )
        target.wait_ready("mcpserver", "echo-tools", namespace)
        target.wait_ready("agent", "worker", namespace)
        plain.wait_for(3)
    assert not plain.failures
    with load(url, "use the tool", threads=1) as tools:
        eventually("its tools", lambda: any("hi" in answer for answer in tools.answers), 60)


ASKER = """
import json, time, urllib.request
ok, failures, end = 0, [], time.monotonic() + 25
body = json.dumps({"messages": [{"role": "user", "content": "no tool needed"}]}).encode()
while time.monotonic() < end:
    request = urllib.request.Request("http://worker/v1/chat/completions", body)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            ok += json.load(response)["choices"][0]["message"]["content"] == "plain"
    except Exception as error:
        failures.append(repr(error))
    time.sleep(0.1)
print(json.dumps({"ok": ok, "failures": failures}))
"""


@pytest.mark.usefixtures("url")
def test_the_api_server_is_killed(target: Target, namespace: str) -> None:
    """Asked from a pod: a port-forward would go through the API server itself."""
    if not target.can_restart_api_server:
        pytest.skip("here the API server shares its process with the node, or may not be killed")
    # By the label it may: else the agent's NetworkPolicy would refuse it.
    label = f"--labels=agent.uses.kaos.tools/worker={namespace}"
    run = ("run", "asker", "-n", namespace, f"--image={IMAGE}", "--restart=Never", label)
    target.kubectl(
        *run, "--image-pull-policy=IfNotPresent", "--command", "--", "python", "-c", ASKER
    )
    target.kubectl("wait", "--for=condition=Ready", "pod/asker", "-n", namespace, "--timeout=30s")
    target.restart_api_server()
    done = "--for=jsonpath={.status.phase}=Succeeded"
    target.kubectl("wait", done, "pod/asker", "-n", namespace, "--timeout=90s")
    result = json.loads(target.kubectl("logs", "asker", "-n", namespace))
    assert result["failures"] == []
    assert result["ok"] > 50
