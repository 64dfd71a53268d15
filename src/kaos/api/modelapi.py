"""The ModelAPI: where models are asked, hosted in the cluster (Ollama) or proxied elsewhere."""

from enum import StrEnum
from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from kaos.api.meta import (
    AGE,
    ENDPOINT,
    MESSAGE,
    PHASE,
    READY,
    Model,
    PrinterColumn,
    column,
)
from kaos.api.pod import EnvVars, KeySelector, KeySource, Quantity, Resources
from kaos.api.telemetry import Telemetry
from kaos.api.url import checked_url
from kaos.api.workload import Workload, WorkloadSpec, WorkloadStatus


class Mode(StrEnum):
    """How a ModelAPI gets its answers."""

    HOSTED = "Hosted"
    PROXY = "Proxy"


class HostedConfig(Model):
    """A model served by Ollama in the cluster."""

    model: str = Field(
        min_length=1,
        max_length=256,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$",
        description="The model's name in Ollama's library, e.g. smollm2:135m.",
    )
    storage: Quantity | None = Field(
        default=None,
        description="Size of a claim that keeps the model over restarts; without it, a pod that is "
        "replaced pulls the model again.",
    )
    gpus: int = Field(
        default=0,
        ge=0,
        le=64,
        description="How many NVIDIA GPUs it gets; others are asked for by resources.limits.",
    )
    resources: Resources = Field(
        default_factory=Resources, description="What Ollama asks of the node; wins over resources."
    )
    env: EnvVars = Field(default_factory=list, description="Variables of Ollama's container.")

    @property
    def model_name(self) -> str:
        """The name as Ollama has it: `ollama/x` and `x` are the same model."""
        return self.model.removeprefix("ollama/")


class ApiKey(Model):
    """The upstream's API key: a value, or better the key of a Secret."""

    value: str | None = Field(default=None, description="The key itself; prefer valueFrom.")
    value_from: KeySource | None = Field(default=None, description="Where to read it.")

    @model_validator(mode="after")
    def _one_source(self) -> "ApiKey":
        if (self.value is None) == (self.value_from is None):
            raise ValueError("set exactly one of value and valueFrom")
        return self


class ConfigYaml(Model):
    """The gateway's configuration as a whole; exactly one is set."""

    from_string: str | None = Field(
        default=None, min_length=1, max_length=262144, description="The YAML itself."
    )
    from_secret_key_ref: KeySelector | None = Field(
        default=None, description="A key of a Secret that holds it."
    )

    @model_validator(mode="after")
    def _one_source(self) -> "ConfigYaml":
        if (self.from_string is None) == (self.from_secret_key_ref is None):
            raise ValueError("set exactly one of fromString and fromSecretKeyRef")
        return self


class ProxyConfig(Model):
    """Models served by somebody else, behind one OpenAI-compatible address."""

    models: list[str] = Field(
        min_length=1,
        max_length=256,
        description="The names that may be asked for; * allows any.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    provider: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9_-]+$",
        max_length=64,
        description="A provider of LiteLLM, e.g. anthropic; absent means that apiBase is "
        "OpenAI-compatible and is asked directly.",
    )
    api_base: str | None = Field(
        default=None,
        max_length=2048,
        pattern=r"^https?://",
        description="The upstream's URL, with /v1 where it has one.",
    )
    api_key: ApiKey | None = Field(default=None, description="The upstream's API key.")
    direct: bool | None = Field(
        default=None,
        description="true: apiBase is asked as it is, without LiteLLM. false: through LiteLLM, as "
        "provider openai if no other is set. Absent: direct unless a provider is set.",
    )
    config_yaml: ConfigYaml | None = Field(
        default=None,
        description="The configuration as a file, instead of apiBase and provider: LiteLLM's "
        "(model_list, with os.environ/NAME) or kaos.modelapi's (models). models says which of its "
        "names agents may ask for; apiKey is there as PROXY_API_KEY.",
    )
    env: EnvVars = Field(default_factory=list, description="Variables of the proxy's container.")

    _checked = field_validator("api_base")(checked_url)

    @model_validator(mode="after")
    def _reachable(self) -> "ProxyConfig":
        if self.config_yaml is not None:
            if (self.provider, self.api_base, self.direct) != (None, None, None):
                raise ValueError("configYaml replaces apiBase, provider and direct; set one")
            return self
        if self.direct and (self.provider is not None or self.api_base is None):
            raise ValueError("direct needs an OpenAI-compatible apiBase and no provider")
        if self.provider is None and self.api_base is None:
            raise ValueError("set apiBase (an OpenAI-compatible URL), provider or configYaml")
        return self

    @property
    def litellm_provider(self) -> str | None:
        """The provider that LiteLLM is asked for; None when it is not asked."""
        return self.provider or ("openai" if self.direct is False else None)


class ModelAPISpec(WorkloadSpec):
    """What the user wants of a ModelAPI."""

    mode: Mode = Field(description="Hosted: Ollama in the cluster. Proxy: somebody else's API.")
    hosted_config: HostedConfig | None = Field(default=None, description="For mode Hosted.")
    proxy_config: ProxyConfig | None = Field(default=None, description="For mode Proxy.")
    telemetry: Telemetry = Field(
        default_factory=Telemetry,
        description="Where traces of mode Proxy are sent; Ollama makes none.",
    )

    @model_validator(mode="after")
    def _config_of_mode(self) -> "ModelAPISpec":
        if self.mode is Mode.HOSTED and self.hosted_config is None:
            raise ValueError("mode Hosted needs hostedConfig")
        if self.mode is Mode.PROXY and self.proxy_config is None:
            raise ValueError("mode Proxy needs proxyConfig")
        if self.mode is Mode.HOSTED and self.telemetry.endpoint is not None:
            raise ValueError("telemetry is for mode Proxy: Ollama sends none")
        if self.most_replicas > 1 and self.hosted_config and self.hosted_config.storage is not None:
            raise ValueError("several replicas cannot share hostedConfig.storage; unset one")
        return self

    @property
    def models(self) -> list[str]:
        """The models that can be asked for, the default first."""
        if self.mode is Mode.HOSTED and self.hosted_config:
            return [self.hosted_config.model_name]
        return list(self.proxy_config.models) if self.proxy_config else []


class Pull(Model):
    """How far a hosted model's download is."""

    completed: int = Field(default=0, description="Bytes that are here.")
    total: int = Field(default=0, description="Bytes in all, 0 while unknown.")


class ModelAPIStatus(WorkloadStatus):
    """What the controller has seen of a ModelAPI."""

    models: list[str] = Field(default_factory=list, description="The models that can be asked for.")
    pull: Pull | None = Field(default=None, description="The download under way, if one is.")


class ModelAPI(Workload):
    """A place to ask models: Ollama in the cluster, or a proxy for somebody else's API."""

    KIND: ClassVar[str] = "ModelAPI"
    PLURAL: ClassVar[str] = "modelapis"
    SHORT_NAMES: ClassVar[tuple[str, ...]] = ("api", "apis")
    COLUMNS: ClassVar[tuple[PrinterColumn, ...]] = (
        column("Mode", ".spec.mode"),
        column("Models", ".status.models"),
        READY,
        PHASE,
        ENDPOINT,
        MESSAGE,
        AGE,
    )
    RULES: ClassVar[tuple[tuple[str, str], ...]] = (
        *Workload.RULES,
        ("self.mode != 'Hosted' || has(self.hostedConfig)", "mode Hosted needs hostedConfig"),
        ("self.mode != 'Proxy' || has(self.proxyConfig)", "mode Proxy needs proxyConfig"),
    )

    kind: Literal["ModelAPI"] = "ModelAPI"
    spec: ModelAPISpec = Field(description="What is wanted.")
    status: ModelAPIStatus = Field(default_factory=ModelAPIStatus, description="What is seen.")
