"""What every KAOS resource shares: identity, metadata, conditions, and how models map to YAML.

Guarantees: a model reads exactly the camelCase names that users write, and a generated CRD
carries the description of every field. Does not read or write anything: models are plain data.
"""

from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

GROUP = "kaos.tools"
VERSION = "v1alpha1"

Reference = Annotated[
    str,
    Field(
        min_length=1,
        max_length=127,
        pattern=r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?/)?[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
    ),
]
"""A name, or namespace/name, which takes a ReferenceGrant in that namespace."""

References = Annotated[
    list[Reference],
    Field(max_length=64, json_schema_extra={"x-kubernetes-list-type": "set"}),
]
"""A set of references."""


class InvalidSpecError(ValueError):
    """A resource that the API server accepted breaks a rule that only its model knows."""


class Model(BaseModel):
    """A camelCase object of the API; unknown fields are left to the API server to refuse."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore"
    )


class Condition(Model):
    """One observation of the resource's state, in the form of metav1.Condition."""

    type: str = Field(description="Ready, Accepted, DependenciesReady, Available or Routed.")
    status: str = Field(description="True, False or Unknown.")
    reason: str = Field(
        description="One CamelCase word for programs; docs/reference/conditions.md lists them."
    )
    message: str = Field(
        default="", description="What is the case and what can be done, for people."
    )
    observed_generation: int = Field(
        default=0, description="The metadata.generation that this was said of."
    )
    last_transition_time: str = Field(
        default="",
        description="When the status last changed.",
        json_schema_extra={"format": "date-time"},
    )


class Status(Model):
    """What the controller has seen; never read as an instruction."""

    observed_generation: int = Field(
        default=0, description="The metadata.generation that the controller has acted on."
    )
    conditions: list[Condition] = Field(
        default_factory=list,
        description="Ready sums up the others.",
        json_schema_extra={
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
        },
    )
    phase: str = Field(default="", description="Pending, Waiting, Ready, Failed or Suspended.")
    ready: bool = Field(default=False, description="Whether condition Ready is True.")
    message: str = Field(default="", description="The message of condition Ready.")
    endpoint: str = Field(default="", description="The URL by which other pods reach it.")
    replicas: int = Field(default=0, description="Pods that exist.")
    ready_replicas: int = Field(default=0, description="Pods that serve.")


class Metadata(Model):
    """The part of ObjectMeta that reconcilers read."""

    name: str
    namespace: str = "default"
    uid: str = ""
    generation: int = 0
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class PrinterColumn(Model):
    """One column of `kubectl get`."""

    name: str
    type: str
    json_path: str
    priority: int = 0
    description: str = ""


class CustomResource(Model):
    """The base of the three kinds; `kaos.runtime.ResourceType.of` reads the class variables."""

    GROUP: ClassVar[str] = GROUP
    VERSION: ClassVar[str] = VERSION
    KIND: ClassVar[str]
    PLURAL: ClassVar[str]
    SHORT_NAMES: ClassVar[tuple[str, ...]] = ()
    NAMESPACED: ClassVar[bool] = True
    COLUMNS: ClassVar[tuple[PrinterColumn, ...]] = ()
    SCALABLE: ClassVar[bool] = False
    RULES: ClassVar[tuple[tuple[str, str], ...]] = ()
    """Rules in CEL about the spec, and what is said when one is broken."""

    api_version: str = f"{GROUP}/{VERSION}"
    kind: str
    metadata: Metadata

    @property
    def name(self) -> str:
        """metadata.name."""
        return self.metadata.name

    @property
    def namespace(self) -> str:
        """metadata.namespace."""
        return self.metadata.namespace

    @classmethod
    def object_rules(cls) -> tuple[tuple[str, str], ...]:
        """Rules in CEL about the whole object, and what is said when one is broken."""
        return ()

    @classmethod
    def parse(cls, body: dict[str, Any]) -> Self:
        """Read a resource as the API server returned it.

        Raises:
            InvalidSpecError: a rule is broken; the message names the field and the rule.
        """
        try:
            return cls.model_validate(body)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "spec"
            raise InvalidSpecError(
                f"{where}: {first['msg'].removeprefix('Value error, ')}"
            ) from error


def column(
    name: str, path: str, type_: str = "string", *, priority: int = 0, description: str = ""
) -> PrinterColumn:
    """A printer column; priority 1 is shown by `-o wide` only."""
    return PrinterColumn(
        name=name, type=type_, json_path=path, priority=priority, description=description
    )


READY = column("Ready", ".status.ready", "boolean", description="Everything declared works.")
PHASE = column("Phase", ".status.phase")
ENDPOINT = column("Endpoint", ".status.endpoint", priority=1)
MESSAGE = column("Message", ".status.message", priority=1)
AGE = column("Age", ".metadata.creationTimestamp", "date")
