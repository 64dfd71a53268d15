"""Every sort of pod runs where the `restricted` Pod Security level is enforced."""

import pytest

from tests.e2e.scenarios.manifests import as_list, echo_server
from tests.e2e.scenarios.targets import ROOT, Target, eventually

SAMPLES = ROOT / "manifests" / "samples"
LEVEL = "pod-security.kubernetes.io/enforce=restricted"


@pytest.mark.parametrize(
    ("sample", "agents"),
    [
        ("simple-agent.yaml", ["assistant"]),
        ("multi-agent-gateway.yaml", ["coordinator", "researcher", "analyst"]),
    ],
)
def test_a_restricted_namespace_runs_the_samples(
    target: Target, namespace: str, sample: str, agents: list[str]
) -> None:
    target.kubectl("label", "namespace", namespace, LEVEL)
    target.kubectl("apply", "-n", namespace, "-f", str(SAMPLES / sample))
    for name in agents:
        target.wait_ready("agent", name, namespace)


def test_a_proxy_with_a_key_runs_restricted_and_a_rotated_key_rolls_it(
    target: Target, namespace: str
) -> None:
    target.kubectl("label", "namespace", namespace, LEVEL)
    target.kubectl(
        *("create", "secret", "generic", "upstream", "-n", namespace),
        "--from-literal=token=old",
    )
    key = {"valueFrom": {"secretKeyRef": {"name": "upstream", "key": "token"}}}
    config = {"models": ["m"], "apiBase": "http://nobody:8000/v1", "apiKey": key}
    api = {
        "apiVersion": "kaos.tools/v1alpha1",
        "kind": "ModelAPI",
        "metadata": {"name": "proxy"},
        "spec": {"mode": "Proxy", "proxyConfig": config},
    }
    manifests = as_list(api, echo_server())
    target.kubectl("apply", "-n", namespace, "-f", "-", stdin=manifests)
    target.wait_ready("modelapi", "proxy", namespace)
    target.wait_ready("mcpserver", "echo-tools", namespace)

    def told() -> bool:
        status = target.get("mcpserver", "echo-tools", namespace)["status"]
        return "echo" in status.get("availableTools", [])

    eventually("the server tells its tools", told)
    (before,) = target.names("pods", namespace, "app=proxy")

    target.kubectl(
        *("patch", "secret", "upstream", "-n", namespace, "--type=merge"),
        *("-p", '{"stringData": {"token": "new"}}'),
    )

    def rolled() -> bool:
        pods = target.names("pods", namespace, "app=proxy")
        return len(pods) == 1 and before not in pods

    eventually("a new pod with the new key", rolled, 120)
    target.wait_ready("modelapi", "proxy", namespace)
