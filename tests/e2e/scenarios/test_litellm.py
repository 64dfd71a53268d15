"""A ModelAPI with LiteLLM's own configuration, from the spec and from a Secret."""

import importlib.util
from typing import Any

import pytest

from tests.e2e.scenarios.client import ask
from tests.e2e.scenarios.manifests import Manifest, agent, as_list, scripted_model
from tests.e2e.scenarios.targets import Embedded, Target

LEVEL = "pod-security.kubernetes.io/enforce=restricted"
CONFIG = """
model_list:
  - model_name: routed/*
    litellm_params:
      model: openai/*
      api_base: os.environ/UPSTREAM
      api_key: os.environ/PROXY_API_KEY
"""


def model_api(name: str, source: Manifest) -> Manifest:
    config: dict[str, Any] = {
        "models": ["routed/scripted"],
        "configYaml": source,
        "apiKey": {"value": "a key"},
        "env": [{"name": "UPSTREAM", "value": "http://scripted:8000/v1"}],
    }
    return {
        "apiVersion": "kaos.tools/v1alpha1",
        "kind": "ModelAPI",
        "metadata": {"name": name},
        # Of a configuration in a Secret nobody knows whom it leads to.
        "spec": {
            "mode": "Proxy",
            "proxyConfig": config,
            "network": {
                "egress": [{"to": [{"podSelector": {"matchLabels": {"app": "scripted"}}}]}]
            },
        },
    }


def test_litellm_routes_by_its_own_configuration(target: Target, namespace: str) -> None:
    if isinstance(target, Embedded) and importlib.util.find_spec("litellm") is None:
        pytest.skip("the embedded cluster runs LiteLLM of this environment, which has none")
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "config"},
        "stringData": {"yaml": CONFIG},
    }
    sources: dict[str, Manifest] = {
        "spec": {"fromString": CONFIG},
        "secret": {"fromSecretKeyRef": {"name": "config", "key": "yaml"}},
    }
    conversation = {"when": "", "by": "step", "turns": [{"text": "routed"}]}
    target.kubectl(
        *("apply", "-n", namespace, "-f", "-"),
        stdin=as_list(*scripted_model("scripted", conversation), secret),
    )
    target.kubectl("rollout", "status", "deployment/scripted", "-n", namespace, "--timeout=120s")
    target.kubectl("label", "namespace", namespace, LEVEL)
    apis = [model_api(name, source) for name, source in sources.items()]
    agents = [agent(f"asks-{name}", name) for name in sources]
    target.kubectl("apply", "-n", namespace, "-f", "-", stdin=as_list(*apis, *agents))
    for name in sources:
        target.wait_ready("agent", f"asks-{name}", namespace)
        with target.port_forward(f"svc/asks-{name}", 80, namespace) as url:
            assert ask(url, "hi") == "routed"
