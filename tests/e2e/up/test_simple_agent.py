"""The README's first example on the embedded cluster: everything a user does with it."""

import json
import subprocess
import urllib.request
from typing import Any

import openai

from tests.e2e.up.program import SIMPLE, Kaos, kubectl

QUESTION = {"model": "assistant", "messages": [{"role": "user", "content": "Hello!"}]}


def post(url: str) -> dict[str, Any]:
    """The README's curl."""
    request = urllib.request.Request(
        f"{url}/v1/chat/completions",
        data=json.dumps(QUESTION).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=120) as response:
        body: dict[str, Any] = json.load(response)
    return body


def assert_completion(body: dict[str, Any]) -> None:
    assert body["object"] == "chat.completion"
    (choice,) = body["choices"]
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"].strip()
    assert body["usage"]["completion_tokens"] > 0


def test_one_command_answers_and_leaves_nothing(kaos: Kaos) -> None:
    done = kaos.run("up", str(SIMPLE), "--ask", "Hello!")
    assert done.returncode == 0, done.stderr + kaos.log()
    assert done.stdout.strip()
    assert "Cluster is up" not in done.stdout
    for line in ("ModelAPI/ollama is ready", "MCPServer/echo-tools is ready"):
        assert line in done.stderr
    assert kaos.left_behind() == []


def test_curl_through_the_gateway(simple: Kaos) -> None:
    assert_completion(post(f"{simple.gateway}/assistant"))
    assert_completion(post(f"{simple.gateway}/default/agent/assistant"))


def test_the_openai_client(simple: Kaos) -> None:
    client = openai.OpenAI(base_url=f"{simple.gateway}/assistant/v1", api_key="none", timeout=120)
    completion = client.chat.completions.create(
        model="assistant", messages=[{"role": "user", "content": "Hello!"}]
    )
    assert (completion.choices[0].message.content or "").strip()
    stream = client.chat.completions.create(
        model="assistant", messages=[{"role": "user", "content": "Hello!"}], stream=True
    )
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    assert len([piece for piece in pieces if piece]) > 1


def test_kubectl_shows_everything(simple: Kaos) -> None:
    shown = simple.kubectl("get", "agents,modelapis,mcpservers,deployments,services,pods")
    for name in (
        "agent.kaos.tools/assistant",
        "modelapi.kaos.tools/ollama",
        "mcpserver.kaos.tools/echo-tools",
        "deployment.apps/assistant",
        "deployment.apps/modelapi-ollama",
        "deployment.apps/mcpserver-echo-tools",
        "service/assistant",
        "pod/assistant-",
    ):
        assert name in shown


def test_kubectl_waits_for_the_pod(simple: Kaos) -> None:
    wait = ("wait", "--for=condition=ready", "pod", "-l", "app=assistant", "--timeout=120s")
    assert "condition met" in simple.kubectl(*wait)


def test_kubectl_forwards_the_service(simple: Kaos) -> None:
    command = [kubectl(), "--kubeconfig", str(simple.kubeconfig)]
    command += ["port-forward", "svc/assistant", ":80"]
    forward = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert forward.stdout is not None
        line = forward.stdout.readline()  # Forwarding from 127.0.0.1:41111 -> 8000
        address = line.split()[2]
        assert_completion(post(f"http://{address}"))
        assert_completion(post(f"http://{address}"))
    finally:
        forward.terminate()
        forward.communicate(timeout=10)


def test_status(simple: Kaos) -> None:
    done = simple.run("status")
    assert done.returncode == 0, done.stdout
    assert "Agent/assistant" in done.stdout
    assert f"process {simple.cluster_pid()}" in done.stdout


def test_logs(simple: Kaos) -> None:
    done = simple.run("logs", "assistant")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    wrong = simple.run("logs", "assistent")
    assert wrong.returncode == 1
    assert "did you mean assistant?" in wrong.stderr


def test_chat(simple: Kaos) -> None:
    done = simple.run("chat", "assistant", "Hello!")
    assert (done.returncode, bool(done.stdout.strip())) == (0, True), done.stderr
    talk = simple.run("chat", "assistant", stdin="Hello!\nAnd again?\n")
    assert talk.returncode == 0, talk.stderr
    assert len(talk.stdout.strip().splitlines()) >= 2
    wrong = simple.run("chat", "assistent", "Hello!")
    assert wrong.returncode == 1
    assert "did you mean assistant?" in wrong.stderr


def test_a_second_up_applies_to_the_first_one_and_returns(simple: Kaos) -> None:
    owner = simple.cluster_pid()
    done = simple.run("up", str(SIMPLE))
    assert done.returncode == 0, done.stderr
    assert "A cluster runs already" in done.stdout
    assert f"{simple.gateway}/assistant/v1/chat/completions" in done.stdout
    assert simple.cluster_pid() == owner
    asked = simple.run("up", str(SIMPLE), "--ask", "Hello!")
    assert (asked.returncode, bool(asked.stdout.strip())) == (0, True), asked.stderr
    assert simple.run("status").returncode == 0
