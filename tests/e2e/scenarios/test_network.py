"""The derived NetworkPolicies, by traffic: what is declared is reached, what is not is refused."""

import pytest

from tests.e2e.scenarios.client import ask
from tests.e2e.scenarios.manifests import (
    Manifest,
    agent,
    as_list,
    echo_server,
    proxy,
    scripted_model,
)
from tests.e2e.scenarios.targets import Embedded, Target, eventually

ECHO = {"turns": [{"text": "scripted answer"}], "repeat": True}
CONNECT = "import socket,sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)"


@pytest.fixture
def enforced(target: Target) -> Target:
    if isinstance(target, Embedded):
        pytest.skip("the embedded cluster keeps NetworkPolicies and does not enforce them")
    return target


def apply(target: Target, namespace: str, *manifests: Manifest) -> None:
    target.kubectl("apply", "-n", namespace, "-f", "-", stdin=as_list(*manifests))


def reaches(target: Target, namespace: str, source: str, host: str, port: int) -> bool:
    """Whether a pod of this Deployment gets a connection."""
    out = target.kubectl(
        *("exec", "-n", namespace, f"deployment/{source}", "--"),
        *("python", "-c", f"{CONNECT}\nprint('connected')", host, str(port)),
        check=False,
    )
    return "connected" in out


def test_an_agent_reaches_what_it_declares_and_is_refused_the_rest(
    enforced: Target, namespace: str
) -> None:
    apply(
        enforced,
        namespace,
        *scripted_model("scripted", ECHO),
        proxy("model", "scripted"),
        echo_server("mine"),
        echo_server("other"),
        agent("peer"),
        agent("stranger"),
        agent("boss", mcpServers=["mine"], agentNetwork={"access": ["peer"]}),
    )
    for name in ("peer", "stranger", "boss"):
        enforced.wait_ready("agent", name, namespace)
    enforced.wait_ready("mcpserver", "other", namespace)

    allowed = [("modelapi-model", 8000), ("mcpserver-mine", 8000), ("peer", 80)]
    for host, port in allowed:
        assert reaches(enforced, namespace, "boss", host, port), host
    pod = enforced.get("endpoints", "scripted", namespace)
    address = pod["subsets"][0]["addresses"][0]["ip"]
    refused = [
        ("mcpserver-other", 8000),
        ("stranger", 80),
        (address, 8000),  # a pod that nobody declares
        ("kubernetes.default", 443),
        ("192.0.2.1", 443),
    ]
    for host, port in refused:
        assert not reaches(enforced, namespace, "boss", host, port), host
    assert not reaches(enforced, namespace, "peer", "boss", 80), "access goes one way"

    patch = '{"spec": {"network": {"policy": "none"}}}'
    for name in ("boss", "stranger"):
        enforced.kubectl("patch", "agent", name, "-n", namespace, "--type=merge", "-p", patch)
    eventually("the open way", lambda: reaches(enforced, namespace, "boss", "stranger", 80))


def test_the_gateway_reaches_an_agent_and_a_pod_of_nobodys_does_not(
    enforced: Target, namespace: str
) -> None:
    apply(
        enforced,
        namespace,
        *scripted_model("scripted", ECHO),
        proxy("model", "scripted"),
        agent("open"),
    )
    enforced.wait_ready("agent", "open", namespace)

    def answers() -> bool:
        try:
            return ask(f"{enforced.gateway}/{namespace}/agent/open", "hello") == "scripted answer"
        except Exception:  # noqa: BLE001 - whatever it is, it is not there yet
            return False

    eventually("an answer through the gateway", answers)
    # The scripted model is a pod like any other: nobody declared that it calls the agent.
    assert not reaches(enforced, namespace, "scripted", "open", 80)
    assert not reaches(enforced, namespace, "scripted", "modelapi-model", 8000)
