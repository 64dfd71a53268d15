"""The parts of a pod that a user may set on any KAOS resource: environment and resources.

Names, types and meanings are those of core/v1, so what is known from a Pod holds here too.
"""

from typing import Annotated, Any

from pydantic import Field, model_validator

from kaos.api.meta import Model

Quantity = Annotated[
    str | int | float,
    Field(
        json_schema_extra={"x-kubernetes-int-or-string": True}, description="A quantity: 500m, 1Gi."
    ),
]


class KeySelector(Model):
    """One key of a Secret or ConfigMap in the same namespace."""

    name: str = Field(min_length=1, description="The object's name.")
    key: str = Field(min_length=1, description="The key within its data.")
    optional: bool | None = Field(
        default=None, description="Whether the pod may start without it (default false)."
    )


class KeySource(Model):
    """Where a text is read from; exactly one is set."""

    secret_key_ref: KeySelector | None = Field(default=None, description="A key of a Secret.")
    config_map_key_ref: KeySelector | None = Field(
        default=None, description="A key of a ConfigMap."
    )

    @model_validator(mode="after")
    def _one_source(self) -> "KeySource":
        if (self.secret_key_ref is None) == (self.config_map_key_ref is None):
            raise ValueError("set exactly one of secretKeyRef and configMapKeyRef")
        return self

    def manifest(self) -> dict[str, Any]:
        """The source as a pod has it in valueFrom."""
        return self.model_dump(by_alias=True, exclude_none=True)


class FieldSelector(Model):
    """A field of the pod itself (the downward API)."""

    field_path: str = Field(min_length=1, description="For example metadata.name.")


class EnvVarSource(Model):
    """Where an environment variable's value comes from; exactly one is set."""

    secret_key_ref: KeySelector | None = Field(default=None, description="A key of a Secret.")
    config_map_key_ref: KeySelector | None = Field(
        default=None, description="A key of a ConfigMap."
    )
    field_ref: FieldSelector | None = Field(default=None, description="A field of the pod.")


class EnvVar(Model):
    """An environment variable of the container."""

    name: str = Field(min_length=1, description="The variable's name.")
    value: str | None = Field(default=None, description="Its value; $(OTHER) is expanded.")
    value_from: EnvVarSource | None = Field(
        default=None, description="Where the value comes from, instead of value."
    )

    @model_validator(mode="after")
    def _one_source(self) -> "EnvVar":
        if self.value is not None and self.value_from is not None:
            raise ValueError(f"variable {self.name} sets both value and valueFrom; keep one")
        return self

    def manifest(self) -> dict[str, Any]:
        """The variable as a pod has it."""
        return self.model_dump(by_alias=True, exclude_none=True)


EnvVars = Annotated[
    list[EnvVar],
    Field(
        max_length=256,
        json_schema_extra={
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
        },
    ),
]


class Resources(Model):
    """What the container asks of its node, as in a Pod."""

    requests: dict[str, Quantity] = Field(
        default_factory=dict, description="What is set aside for it."
    )
    limits: dict[str, Quantity] = Field(default_factory=dict, description="What it may not exceed.")

    def manifest(self) -> dict[str, Any]:
        """The resources as a container has them."""
        return self.model_dump(by_alias=True, exclude_defaults=True)


Hostname = Annotated[
    str,
    Field(
        min_length=1,
        max_length=253,
        pattern=r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
    ),
]

Hostnames = Annotated[
    list[Hostname], Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "set"})
]


class GatewayRoute(Model):
    """How the resource is served through the Gateway."""

    timeout: str | None = Field(
        default=None,
        pattern=r"^([0-9]{1,5}(h|m|s|ms)){1,4}$",
        description="The longest a request may take, e.g. 120s (default 0s: no limit).",
    )
    hostnames: Hostnames = Field(
        default_factory=list,
        description="Host names under which it is served; all that the Gateway has when empty.",
    )
