"""Names and labels of children: the contract that users see (docs/reference/names.md)."""

from typing import NamedTuple

from kaos.api import Agent, CustomResource

PART_OF = "kaos"
KIND_LABEL = "kaos.tools/kind"
NAME_LABEL = "kaos.tools/name"
HTTP_PORT = 8000
OLLAMA_PORT = 11434


class Ref(NamedTuple):
    """A resource that another one names."""

    namespace: str
    name: str

    def seen_from(self, namespace: str) -> str:
        """How it is called in that namespace: by its name, or namespace/name elsewhere."""
        return self.name if self.namespace == namespace else f"{self.namespace}/{self.name}"


def ref(text: str, namespace: str) -> Ref:
    """What a `name` or `namespace/name` in a resource of that namespace means."""
    other, _, name = text.rpartition("/")
    return Ref(other or namespace, name)


def kind_word(resource: CustomResource) -> str:
    """The kind as it stands in labels and paths: agent, modelapi, mcpserver."""
    return resource.KIND.lower()


def child_name(resource: CustomResource) -> str:
    """The name of the resource's Deployment, Service and routes."""
    if isinstance(resource, Agent):
        return resource.name
    return f"{kind_word(resource)}-{resource.name}"


def service_name(model: type[CustomResource], name: str) -> str:
    """The name of the Service of a resource that may not exist yet."""
    return name if model is Agent else f"{model.KIND.lower()}-{name}"


def selector(resource: CustomResource) -> dict[str, str]:
    """The labels that select the resource's pods, and nothing of anybody else's."""
    return {KIND_LABEL: kind_word(resource), NAME_LABEL: resource.name}


def labels(resource: CustomResource) -> dict[str, str]:
    """The labels of every child and pod."""
    return {
        "app": resource.name,
        "app.kubernetes.io/name": kind_word(resource),
        "app.kubernetes.io/instance": resource.name,
        "app.kubernetes.io/part-of": PART_OF,
        "app.kubernetes.io/managed-by": "kaos",
        **selector(resource),
    }


def env_name(name: str) -> str:
    """A resource's name as part of an environment variable's name."""
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in name).upper()
