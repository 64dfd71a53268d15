"""Manifests of the scenarios: a scripted model in a pod, and resources around it."""

import json
from typing import Any

from tests.e2e.scenarios.targets import IMAGE

Manifest = dict[str, Any]


def scripted_model(name: str, *conversations: Manifest) -> list[Manifest]:
    """A model that says what is written here, in a pod of the KAOS image, behind a Service."""
    script = json.dumps({"conversations": list(conversations)})
    labels = {"app": name}
    container = {
        "name": "model",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-m", "kaos.testing.model"],
        "args": ["--script", "/script/script.json"],
        "env": [{"name": "KAOS_LISTEN", "value": "0.0.0.0:8000"}],
        "ports": [{"name": "http", "containerPort": 8000}],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 1},
        "volumeMounts": [{"name": "script", "mountPath": "/script"}],
    }
    template = {
        "metadata": {"labels": labels},
        "spec": {
            "containers": [container],
            "volumes": [{"name": "script", "configMap": {"name": name}}],
        },
    }
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name},
            "data": {"script.json": script},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name},
            "spec": {"selector": {"matchLabels": labels}, "template": template},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name},
            "spec": {"selector": labels, "ports": [{"port": 8000, "targetPort": "http"}]},
        },
    ]


def proxy(name: str, upstream: str) -> Manifest:
    """A ModelAPI in front of the scripted model of that name in the same namespace."""
    config = {"models": ["scripted"], "apiBase": f"http://{upstream}:8000/v1"}
    return _resource("ModelAPI", name, {"mode": "Proxy", "proxyConfig": config})


def echo_server(name: str = "echo-tools") -> Manifest:
    """The built-in echo server."""
    spec = {"type": "python-runtime", "config": {"mcp": "test-mcp-echo-server"}}
    return _resource("MCPServer", name, spec)


def agent(name: str, model_api: str = "model", **spec: Any) -> Manifest:
    """An agent."""
    return _resource("Agent", name, {"modelAPI": model_api, **spec})


def _resource(kind: str, name: str, spec: Manifest) -> Manifest:
    return {
        "apiVersion": "kaos.tools/v1alpha1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    }


def as_list(*manifests: Manifest) -> str:
    """What `kubectl apply -f -` reads."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(manifests)})
