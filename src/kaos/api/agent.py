"""The Agent: a model, the tools and peers it may use, and an OpenAI-compatible endpoint."""

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from kaos.api.auth import Auth
from kaos.api.memory import Memory
from kaos.api.meta import (
    AGE,
    ENDPOINT,
    MESSAGE,
    PHASE,
    READY,
    Model,
    PrinterColumn,
    Reference,
    References,
    column,
)
from kaos.api.pod import EnvVars, KeySource
from kaos.api.telemetry import Telemetry
from kaos.api.workload import Autoscaling, Workload, WorkloadSpec, WorkloadStatus

ToolName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.-]+$")]
ToolNames = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=256)]],
    Field(max_length=256, json_schema_extra={"x-kubernetes-list-type": "set"}),
]
ONE_TEXT_RULE = (
    "!has(self.config) || !has(self.config.instructionsFrom) || "
    "!has(self.config.instructions) || self.config.instructions == ''"
)


class ToolCallMode(StrEnum):
    """How a model is told of tools."""

    AUTO = "auto"
    NATIVE = "native"
    TEXT = "text"


class ToolChoice(Model):
    """Which tools of a server the agent has, and under which names."""

    server: Reference = Field(description="The server, as it stands in mcpServers.")
    allow: ToolNames = Field(
        default_factory=list, description="The tools that it has; all of them when empty."
    )
    rename: dict[str, ToolName] = Field(
        default_factory=dict,
        description="Other names for tools: what the server calls it, and what the agent does.",
    )

    @model_validator(mode="after")
    def _renames_what_is_allowed(self) -> "ToolChoice":
        for name in self.rename if self.allow else ():
            if name not in self.allow:
                raise ValueError(f'rename: "{name}" is not in allow')
        return self


class AgentConfig(Model):
    """What the agent is and how it thinks."""

    description: str = Field(
        default="",
        max_length=4096,
        description="What it is for; other agents choose whom to ask by this.",
    )
    instructions: str = Field(
        default="", max_length=65536, description="The system prompt of every conversation."
    )
    instructions_from: KeySource | None = Field(
        default=None, description="Where the instructions are read from, instead of instructions."
    )
    env: EnvVars = Field(
        default_factory=list,
        description="Variables of the agent's container; they win over the generated ones.",
    )
    reasoning_loop_max_steps: int | None = Field(
        default=None,
        ge=1,
        le=20,
        description="How many times one request may call the model (default 5).",
    )

    tool_call_mode: ToolCallMode = Field(
        default=ToolCallMode.AUTO,
        description="How the model is told of tools: native by the API's own field, text in the "
        "prompt (for models that know no better), auto by what the model turns out to do.",
    )
    memory: Memory = Field(
        default_factory=Memory, description="What it remembers of its conversations, and where."
    )
    telemetry: Telemetry = Field(
        default_factory=Telemetry, description="Where traces and metrics are sent."
    )

    @model_validator(mode="after")
    def _one_text(self) -> "AgentConfig":
        if self.instructions and self.instructions_from is not None:
            raise ValueError("set one of instructions and instructionsFrom")
        return self


class AgentNetwork(Model):
    """Whom the agent may ask, and who may ask it."""

    access: References = Field(
        default_factory=list,
        description="Agents that it may delegate to, which may be created later: a name, or "
        "namespace/name with a ReferenceGrant there.",
    )
    expose: bool = Field(
        default=True, description="Whether it gets a Service and a gateway route of its own."
    )


class AgentAutoscaling(Autoscaling):
    """How many pods, by how busy they are."""

    target_runs: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        alias="targetRunsPerPod",
        description="How many requests a pod shall have under way on average. Needs metrics of "
        "pods in the cluster (custom.metrics.k8s.io) that include the agents' kaos_agent_runs.",
    )


class AgentSpec(WorkloadSpec):
    """What the user wants of an Agent."""

    model_api: Reference = Field(
        alias="modelAPI",
        description="The ModelAPI that answers for it: a name, or namespace/name with a "
        "ReferenceGrant there.",
    )
    model: str | None = Field(
        default=None,
        min_length=1,
        max_length=256,
        description="The model to ask for; the ModelAPI's own when absent.",
    )
    mcp_servers: References = Field(
        default_factory=list,
        alias="mcpServers",
        description="MCPServers whose tools it may use: names, or namespace/name with a "
        "ReferenceGrant there.",
    )
    tools: Annotated[
        list[ToolChoice],
        Field(
            max_length=64,
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["server"],
            },
        ),
    ] = Field(
        default_factory=list,
        description="Which tools of its servers it has; all of a server that is not listed.",
    )
    config: AgentConfig = Field(
        default_factory=AgentConfig, description="What the agent is and how it thinks."
    )
    agent_network: AgentNetwork = Field(
        default_factory=AgentNetwork, description="Whom it may ask, and who may ask it."
    )
    autoscaling: AgentAutoscaling | None = Field(
        default=None,
        description="A HorizontalPodAutoscaler decides how many pods; replicas is not used then.",
    )
    auth: Auth | None = Field(
        default=None,
        description="Callers must show who they are: `auth: {}` lets in the agents that name this "
        "one in agentNetwork.access, and nobody else. Absent: whoever the network lets through.",
    )
    wait_for_dependencies: bool = Field(
        default=True,
        description="Whether a new pod is ready only once its model and servers have answered.",
    )

    @model_validator(mode="after")
    def _tools_have_servers(self) -> "AgentSpec":
        for choice in self.tools:
            if choice.server not in self.mcp_servers:
                raise ValueError(f'tools: server "{choice.server}" is not in mcpServers')
        return self

    @model_validator(mode="after")
    def _one_pod_a_volume(self) -> "AgentSpec":
        if self.most_replicas > 1 and self.config.memory.storage is not None:
            raise ValueError("several replicas cannot share config.memory.storage; use a server")
        return self

    @model_validator(mode="after")
    def _names_differ(self) -> "AgentSpec":
        for field, listed in (
            ("mcpServers", self.mcp_servers),
            ("agentNetwork.access", self.agent_network.access),
        ):
            names = [reference.rpartition("/")[2] for reference in listed]
            for name in names:
                if names.count(name) > 1:
                    raise ValueError(
                        f'{field}: two are named "{name}"; the agent knows them by name'
                    )
        return self


class AgentStatus(WorkloadStatus):
    """What the controller has seen of an Agent."""

    model: str = Field(default="", description="The model that it asks for.")


class Agent(Workload):
    """An AI agent with an OpenAI-compatible endpoint, tools over MCP, and peers it may ask."""

    KIND: ClassVar[str] = "Agent"
    PLURAL: ClassVar[str] = "agents"
    SHORT_NAMES: ClassVar[tuple[str, ...]] = ("agent",)
    NAME_LENGTH: ClassVar[int] = 63
    COLUMNS: ClassVar[tuple[PrinterColumn, ...]] = (
        column("ModelAPI", ".spec.modelAPI"),
        column("Model", ".status.model"),
        READY,
        PHASE,
        ENDPOINT,
        MESSAGE,
        AGE,
    )
    RULES: ClassVar[tuple[tuple[str, str], ...]] = (
        *Workload.RULES,
        (ONE_TEXT_RULE, "set one of config.instructions and config.instructionsFrom"),
    )

    kind: Literal["Agent"] = "Agent"
    spec: AgentSpec = Field(description="What is wanted.")
    status: AgentStatus = Field(default_factory=AgentStatus, description="What is seen.")
