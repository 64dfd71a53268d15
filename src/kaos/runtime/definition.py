"""Custom resources as pydantic models, and the CustomResourceDefinition of each.

Guarantees: the definition's schema is the model's, so the two cannot differ; every kind has a
status subresource, with a schema when the model has a `status` field.
Does not: several versions of a kind, and conversion between them: write that manifest by hand.
"""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from kaos.runtime.resources import CUSTOM_RESOURCE_DEFINITION
from kaos.schema import structural


class CustomResource(BaseModel):
    """The base of a kind's model: give it a `spec`, and a `status` if you like.

    Attributes:
        GROUP: The API group, a domain name of yours.
        VERSION: e.g. ``v1``.
        KIND: e.g. ``Website``.
        PLURAL: e.g. ``websites``.
        NAMESPACED: Whether its objects live in namespaces.
        SHORT_NAMES: What `kubectl get` understands, too.
    """

    GROUP: ClassVar[str]
    VERSION: ClassVar[str]
    KIND: ClassVar[str]
    PLURAL: ClassVar[str]
    NAMESPACED: ClassVar[bool] = True
    SHORT_NAMES: ClassVar[tuple[str, ...]] = ()

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")


def crd(model: type[CustomResource]) -> dict[str, Any]:
    """The CustomResourceDefinition of a kind; raises ValueError when its schema is not structural.

    Args:
        model: The kind.
    """
    schema = structural(model)
    properties = {
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        **schema.get("properties", {}),
        # A model may have these to be written as a whole; an API server lets nobody define them.
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
    }
    # A status says what was seen: a default there would be said by nobody.
    properties["status"] = _without_defaults(properties["status"])
    schema["properties"] = properties
    return {
        "apiVersion": CUSTOM_RESOURCE_DEFINITION.api_version,
        "kind": CUSTOM_RESOURCE_DEFINITION.kind,
        "metadata": {"name": f"{model.PLURAL}.{model.GROUP}"},
        "spec": {
            "group": model.GROUP,
            "names": {
                "kind": model.KIND,
                "listKind": f"{model.KIND}List",
                "plural": model.PLURAL,
                "singular": model.KIND.lower(),
                "shortNames": list(model.SHORT_NAMES),
            },
            "scope": "Namespaced" if model.NAMESPACED else "Cluster",
            "versions": [
                {
                    "name": model.VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                    "subresources": {"status": {}},
                }
            ],
        },
    }


def _without_defaults(node: Any) -> Any:
    if isinstance(node, dict):
        return {k: _without_defaults(v) for k, v in node.items() if k != "default"}
    return node
