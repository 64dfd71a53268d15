"""Resources for the reconcilers' tests, as short as they can be."""

from typing import Any

from kaos.api import Agent, MCPServer, ModelAPI


def body(kind: str, name: str, spec: dict[str, Any], namespace: str = "default") -> dict[str, Any]:
    return {
        "apiVersion": "kaos.tools/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace, "uid": f"uid-{name}"},
        "spec": spec,
    }


def agent(name: str = "assistant", **spec: Any) -> Agent:
    return Agent.parse(body("Agent", name, {"modelAPI": "ollama", **spec}))


def hosted(name: str = "ollama", model: str = "smollm2:135m", **config: Any) -> ModelAPI:
    spec = {"mode": "Hosted", "hostedConfig": {"model": model, **config}}
    return ModelAPI.parse(body("ModelAPI", name, spec))


def proxy(*models: str, **config: Any) -> ModelAPI:
    spec = {"mode": "Proxy", "proxyConfig": {"models": list(models), **config}}
    return ModelAPI.parse(body("ModelAPI", "proxy", spec))


def server(**config: Any) -> MCPServer:
    return MCPServer.parse(
        body("MCPServer", "echo-tools", {"type": "python-runtime", "config": config})
    )


def env_of(deployment: dict[str, Any], container: int = 0) -> dict[str, Any]:
    listed = deployment["spec"]["template"]["spec"]["containers"][container]["env"]
    names = [entry["name"] for entry in listed]
    assert len(names) == len(set(names)), f"a variable is set twice: {names}"
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in listed}


def by_kind(children: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    found = {child["kind"]: child for child in children}
    assert len(found) == len(children)
    return found


def foreign_kind(group: str, version: str, kind: str, scope: str = "Namespaced") -> dict[str, Any]:
    """A definition of somebody else's kind, that takes anything."""
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    plural = f"{kind.lower()}s"
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": scope,
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
            },
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": anything},
                }
            ],
        },
    }
