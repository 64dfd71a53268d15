"""CustomResourceDefinitions from the models, so that the two can never differ.

Guarantees: the schema is structural (no $ref, no anyOf but int-or-string, every node typed) and
carries the models' descriptions and defaults. `nox -s manifests` writes the result to
manifests/crds; a test fails when that folder is stale.
"""

from typing import Any

from kaos.api.meta import CustomResource
from kaos.schema import structural


def crd(model: type[CustomResource]) -> dict[str, Any]:
    """The CustomResourceDefinition manifest of a kind."""
    version: dict[str, Any] = {
        "name": model.VERSION,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": [
            column.model_dump(by_alias=True, exclude_defaults=True) for column in model.COLUMNS
        ],
        "schema": {"openAPIV3Schema": _schema(model)},
        "subresources": {"status": {}},
    }
    if model.SCALABLE:
        version["subresources"]["scale"] = {
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{model.PLURAL}.{model.GROUP}"},
        "spec": {
            "group": model.GROUP,
            "names": {
                "kind": model.KIND,
                "listKind": f"{model.KIND}List",
                "plural": model.PLURAL,
                "singular": model.KIND.lower(),
                "shortNames": [name for name in model.SHORT_NAMES if name != model.KIND.lower()],
                "categories": ["kaos"],
            },
            "scope": "Namespaced" if model.NAMESPACED else "Cluster",
            "versions": [version],
        },
    }


def _schema(model: type[CustomResource]) -> dict[str, Any]:
    properties = structural(model)["properties"]
    parts = {name: properties[name] for name in ("spec", "status")}
    parts["status"] = _without_defaults(parts["status"])
    if model.RULES:
        parts["spec"]["x-kubernetes-validations"] = _validations(model.RULES)
    schema: dict[str, Any] = {
        "type": "object",
        "description": (model.__doc__ or "").strip(),
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            **parts,
        },
    }
    if rules := model.object_rules():
        schema["x-kubernetes-validations"] = _validations(rules)
    return schema


def _validations(rules: tuple[tuple[str, str], ...]) -> list[dict[str, str]]:
    return [{"rule": rule, "message": message} for rule, message in rules]


def _without_defaults(node: Any) -> Any:
    """A status says what was seen; a default there would be said by nobody."""
    if isinstance(node, dict):
        return {k: _without_defaults(v) for k, v in node.items() if k != "default"}
    return node
