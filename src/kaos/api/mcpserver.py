"""The MCPServer: tools that agents may call, served over MCP streamable HTTP."""

from enum import StrEnum
from typing import ClassVar, Literal

from pydantic import Field, model_validator

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
from kaos.api.pod import EnvVars, KeySelector
from kaos.api.workload import Workload, WorkloadSpec, WorkloadStatus


class ServerType(StrEnum):
    """What runs the tools."""

    PYTHON = "python-runtime"


class Tools(Model):
    """Python source whose public functions become tools; exactly one is set."""

    from_string: str | None = Field(
        default=None, min_length=1, max_length=262144, description="The source itself."
    )
    from_secret_key_ref: KeySelector | None = Field(
        default=None, description="A key of a Secret that holds the source."
    )
    from_config_map_key_ref: KeySelector | None = Field(
        default=None, description="A key of a ConfigMap that holds the source."
    )

    @model_validator(mode="after")
    def _one_source(self) -> "Tools":
        sources = (self.from_string, self.from_secret_key_ref, self.from_config_map_key_ref)
        if sum(source is not None for source in sources) != 1:
            raise ValueError("set exactly one of fromString, fromSecretKeyRef, fromConfigMapKeyRef")
        return self


class MCPServerConfig(Model):
    """Which tools are served."""

    mcp: str | None = Field(
        default=None,
        min_length=1,
        max_length=128,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="The name of a built-in server, e.g. test-mcp-echo-server.",
    )
    tools: Tools | None = Field(
        default=None, description="Python source whose public functions become tools."
    )
    env: EnvVars = Field(default_factory=list, description="Variables of the server's container.")

    @model_validator(mode="after")
    def _one_source(self) -> "MCPServerConfig":
        if (self.mcp is None) == (self.tools is None):
            raise ValueError("set exactly one of mcp and tools")
        return self


class MCPServerSpec(WorkloadSpec):
    """What the user wants of an MCPServer."""

    type: ServerType = Field(description="What runs the tools.")
    config: MCPServerConfig = Field(description="Which tools are served.")


class MCPServer(Workload):
    """Tools that agents may call, over MCP streamable HTTP at /mcp."""

    KIND: ClassVar[str] = "MCPServer"
    PLURAL: ClassVar[str] = "mcpservers"
    SHORT_NAMES: ClassVar[tuple[str, ...]] = ("mcp", "mcps")
    COLUMNS: ClassVar[tuple[PrinterColumn, ...]] = (
        column("Type", ".spec.type"),
        READY,
        PHASE,
        ENDPOINT,
        MESSAGE,
        AGE,
    )

    kind: Literal["MCPServer"] = "MCPServer"
    spec: MCPServerSpec = Field(description="What is wanted.")
    status: WorkloadStatus = Field(default_factory=WorkloadStatus, description="What is seen.")
