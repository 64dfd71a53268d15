"""An agent is scaled by its runs under way, from when to when the cluster has metrics of pods."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kaos.local import certificate
from tests.e2e.scenarios.client import ask, load
from tests.e2e.scenarios.manifests import Manifest, agent, as_list, proxy, scripted_model
from tests.e2e.scenarios.targets import IMAGE, Embedded, Target, eventually

PROGRAM = Path(__file__).with_name("pod_metrics.py")
NAME = "pod-metrics"
EXTENSION = "v1beta2.custom.metrics.k8s.io"
SLOW = {"turns": [{"text": "scripted answer", "delay": 3}], "repeat": True}


def adapter(namespace: str, folder: Path) -> list[Manifest]:
    """The adapter, its way in, and what it may."""
    cert, key = folder / "tls.crt", folder / "tls.key"
    certificate.create(cert, key)
    labels = {"app": NAME}
    container = {
        "name": "adapter",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "/program/pod_metrics.py", "/tls/tls.crt", "/tls/tls.key"],
        "volumeMounts": [
            {"name": "program", "mountPath": "/program"},
            {"name": "tls", "mountPath": "/tls"},
        ],
        "readinessProbe": {"tcpSocket": {"port": 8443}, "periodSeconds": 1},
    }
    volumes = [
        {"name": "program", "configMap": {"name": NAME}},
        {"name": "tls", "secret": {"secretName": NAME}},
    ]
    port = {"port": 443, "targetPort": 8443}
    spec = {"serviceAccountName": NAME, "containers": [container], "volumes": volumes}
    account = {"kind": "ServiceAccount", "name": NAME, "namespace": namespace}
    rbac = "rbac.authorization.k8s.io"

    def made(kind: str, api_version: str, **fields: Any) -> Manifest:
        return {"apiVersion": api_version, "kind": kind, "metadata": {"name": NAME}, **fields}

    return [
        made("ConfigMap", "v1", data={PROGRAM.name: PROGRAM.read_text()}),
        made("Secret", "v1", stringData={"tls.crt": cert.read_text(), "tls.key": key.read_text()}),
        made("ServiceAccount", "v1"),
        made(
            "Role",
            f"{rbac}/v1",
            rules=[{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}],
        ),
        made(
            "RoleBinding",
            f"{rbac}/v1",
            roleRef={"apiGroup": rbac, "kind": "Role", "name": NAME},
            subjects=[account],
        ),
        made(
            "Deployment",
            "apps/v1",
            spec={
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": spec},
            },
        ),
        made("Service", "v1", spec={"selector": labels, "ports": [port]}),
    ]


def extension(namespace: str) -> Manifest:
    """How the API server learns of the adapter."""
    return {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": EXTENSION},
        "spec": {
            "group": "custom.metrics.k8s.io",
            "version": "v1beta2",
            "service": {"name": NAME, "namespace": namespace},
            "insecureSkipTLSVerify": True,
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
        },
    }


@pytest.fixture
def without_metrics(target: Target) -> Iterator[Target]:
    if isinstance(target, Embedded):
        pytest.skip("the embedded cluster keeps autoscalers and does not run them")
    if target.kubectl("get", "apiservice", EXTENSION, "-o", "name", check=False):
        pytest.skip("this cluster has metrics of pods of its own")
    yield target
    target.kubectl("delete", "apiservice", EXTENSION, "--ignore-not-found")


def test_runs_under_way_scale_an_agent(
    without_metrics: Target, namespace: str, tmp_path: Path
) -> None:
    target = without_metrics

    def apply(*manifests: Manifest) -> None:
        target.kubectl("apply", "-n", namespace, "-f", "-", stdin=as_list(*manifests))

    def metrics() -> list[str]:
        found = target.get("hpa", "busy", namespace).get("spec", {}).get("metrics", ())
        return [metric["type"] for metric in found]

    def says() -> str:
        conditions = target.get("agent", "busy", namespace)["status"]["conditions"]
        return next(str(c["message"]) for c in conditions if c["type"] == "Available")

    from_adapter = {"from": [{"podSelector": {"matchLabels": {"app": NAME}}}]}
    auto = {"maxReplicas": 3, "targetRunsPerPod": 2, "targetCPUUtilizationPercentage": 1000}
    apply(
        *scripted_model("scripted", SLOW),
        proxy("model", "scripted"),
        agent("busy", autoscaling=auto, network={"ingress": [from_adapter]}),
        *adapter(namespace, tmp_path),
    )
    target.wait_ready("agent", "busy", namespace)
    target.kubectl("rollout", "status", f"deployment/{NAME}", "-n", namespace, "--timeout=120s")
    assert metrics() == ["Resource"]
    assert "nobody serves custom.metrics.k8s.io" in says()

    apply(extension(namespace))
    eventually("the metric of runs", lambda: metrics() == ["Resource", "Pods"])
    eventually("no more excuse", lambda: "nobody serves" not in says())
    url = f"{target.gateway}/{namespace}/agent/busy"
    eventually("the route", lambda: _answers(url))
    with load(url, "work", threads=8, pause=0):

        def replicas() -> int:
            return int(target.get("deployment", "busy", namespace)["spec"]["replicas"])

        eventually("three pods for eight runs", lambda: replicas() == 3, 180, 2)

    target.kubectl("delete", "apiservice", EXTENSION)
    eventually("what can be had without it", lambda: metrics() == ["Resource"])


def _answers(url: str) -> bool:
    try:
        return bool(ask(url, "there?"))
    except Exception:  # noqa: BLE001 - whatever it is, it is not there yet
        return False
