"""What all three kinds share: a Deployment of their own, and what a user may say about its pods.

Guarantees: a field here means the same on Agent, ModelAPI and MCPServer.

Does not: know the whole of a PodSpec. Embedding it made each CRD of the earlier KAOS 580 KB (too
big for a client-side apply) and `containers` a required field of every patch. Here the parts that
are set often are typed, and `podSpec` is kept as it is and checked when it is put to use.
"""

import re
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from kaos.api.meta import CustomResource, Model, Status
from kaos.api.pod import EnvVars, GatewayRoute, Resources

Words = Annotated[list[str], Field(max_length=256)]

PRESERVE: dict[str, Any] = {"x-kubernetes-preserve-unknown-fields": True}

PodSpecPatch = Annotated[dict[str, Any], Field(json_schema_extra=PRESERVE)]


BOUNDS_RULE = (
    "!has(self.autoscaling) || self.autoscaling.minReplicas <= self.autoscaling.maxReplicas"
)
NAME_PATTERN = "^[a-z]([-a-z0-9]*[a-z0-9])?$"


def name_rule(length: int) -> str:
    """What a name must be like, in words."""
    return (
        "a Service is named after it, so it must be lower-case letters, digits and dashes, start "
        f"with a letter, and have at most {length} characters"
    )


class Container(Model):
    """What is to be different in the main container; what is absent stays as it is."""

    image: str | None = Field(
        default=None, min_length=1, max_length=1024, description="Another image."
    )
    command: Words | None = Field(default=None, description="Instead of its command.")
    args: Words | None = Field(default=None, description="Instead of its arguments.")
    env: EnvVars = Field(
        default_factory=list, description="Variables; they win over all others of the same name."
    )
    resources: Resources = Field(
        default_factory=Resources, description="What it asks of the node; wins over spec.resources."
    )


class NetworkMode(StrEnum):
    """Whether a NetworkPolicy is made."""

    DERIVED = "derived"
    NONE = "none"


Rules = Annotated[
    list[Annotated[dict[str, Any], Field(json_schema_extra=PRESERVE)]], Field(max_length=64)
]


class Network(Model):
    """Whom its pods may reach, and who may reach them."""

    policy: NetworkMode = Field(
        default=NetworkMode.DERIVED,
        description="derived: a NetworkPolicy that allows what specs declare. none: no policy.",
    )
    egress: Rules = Field(
        default_factory=list,
        description="What they may reach besides, as egress rules of a NetworkPolicy.",
    )
    ingress: Rules = Field(
        default_factory=list,
        description="Who may reach them besides, as ingress rules of a NetworkPolicy.",
    )


class Autoscaling(Model):
    """How many pods, by how busy they are."""

    min_replicas: int = Field(default=1, ge=1, le=1000, description="Never fewer pods than these.")
    max_replicas: int = Field(ge=1, le=1000, description="Never more pods than these.")
    target_cpu: int = Field(
        default=80,
        ge=1,
        le=1000,
        alias="targetCPUUtilizationPercentage",
        description="How busy pods shall be on average, in percent of the CPU that they request.",
    )

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise ValueError("minReplicas is above maxReplicas")
        return self


class WorkloadSpec(Model):
    """The part of a spec that is about pods, not about agents, models or tools."""

    gateway_route: GatewayRoute = Field(
        default_factory=GatewayRoute, description="How it is served through the Gateway."
    )
    replicas: int = Field(
        default=1,
        ge=0,
        le=1000,
        description="How many pods serve it. Applied when it changes: a Deployment that somebody "
        "scales by hand or by an HPA of their own is left as it is.",
    )
    autoscaling: Autoscaling | None = Field(
        default=None,
        description="A HorizontalPodAutoscaler decides how many pods; replicas is not used then.",
    )
    resources: Resources = Field(
        default_factory=Resources, description="What its main container asks of the node."
    )
    container: Container = Field(
        default_factory=Container, description="What is to be different in the main container."
    )
    pod_spec: PodSpecPatch | None = Field(
        default=None,
        description="A patch of the pod's spec: objects are merged, containers, volumes, variables "
        "and the like by name, other lists replaced; null removes a field.",
    )
    service_account_name: str | None = Field(
        default=None,
        min_length=1,
        max_length=253,
        pattern=r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$",
        description="The service account of its pods, whose token they then get; without it they "
        "get none.",
    )
    network: Network = Field(
        default_factory=Network, description="Whom its pods may reach, and who may reach them."
    )
    suspend: bool = Field(
        default=False, description="Whether all its pods are stopped; everything else stays."
    )

    @property
    def main_resources(self) -> dict[str, Any]:
        """What the main container asks of the node, as a pod has it; empty when nothing is said."""
        return self.container.resources.manifest() or self.resources.manifest()

    @property
    def least_replicas(self) -> int:
        """How many pods there are when nobody is busy."""
        if self.suspend:
            return 0
        return self.autoscaling.min_replicas if self.autoscaling else self.replicas

    @property
    def most_replicas(self) -> int:
        """How many pods there may be."""
        return self.autoscaling.max_replicas if self.autoscaling else self.replicas


class WorkloadStatus(Status):
    """What the controller has seen of the pods."""

    selector: str = Field(
        default="", description="The label selector of its pods, for the scale subresource."
    )


class Workload(CustomResource):
    """A resource that is a Deployment with a Service in front."""

    SCALABLE: ClassVar[bool] = True
    RULES: ClassVar[tuple[tuple[str, str], ...]] = (
        (BOUNDS_RULE, "autoscaling.minReplicas is above maxReplicas"),
    )
    NAME_LENGTH: ClassVar[int] = 53
    """How long a name may be, so that its Service's (`mcpserver-<name>`) is a DNS label."""

    spec: WorkloadSpec

    @model_validator(mode="after")
    def _name_fits(self) -> Self:
        name = self.metadata.name
        if not re.fullmatch(NAME_PATTERN, name) or len(name) > self.NAME_LENGTH:
            raise ValueError(f"metadata.name: {name_rule(self.NAME_LENGTH)}")
        return self

    @classmethod
    def object_rules(cls) -> tuple[tuple[str, str], ...]:
        """Rules in CEL about the whole object, and what is said when one is broken."""
        # Not by a pattern: of a text without a known length, that costs a rule a lot of its budget.
        rule = f"!self.metadata.name.contains('.') && size(self.metadata.name) <= {cls.NAME_LENGTH}"
        return ((rule, f"metadata.name: {name_rule(cls.NAME_LENGTH)}"),)
