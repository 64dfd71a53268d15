"""The MCPServer: tools that agents may call, served over MCP streamable HTTP."""

from enum import StrEnum
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from kaos.api import compat
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

IMAGE_RULE = (
    "!has(self.type) || self.type != 'custom' || (has(self.container) && has(self.container.image))"
)


class ServerType(StrEnum):
    """What runs the tools."""

    PYTHON = "python-runtime"
    CUSTOM = "custom"
    REMOTE = "remote"


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


class MCPServerSpec(WorkloadSpec):
    """What the user wants of an MCPServer."""

    type: ServerType | None = Field(
        default=None,
        description="What runs the tools. python-runtime: built-in servers and Python source. "
        "custom: the image in container.image, which serves MCP at /mcp on port 8000. "
        "remote: nothing here, agents call url.",
    )
    runtime: str | None = Field(
        default=None,
        max_length=63,
        description="The earlier spelling of type: python-string or custom.",
    )
    params: str | None = Field(
        default=None,
        max_length=262144,
        description="The earlier spelling of config.tools.fromString.",
    )
    config: MCPServerConfig = Field(
        default_factory=MCPServerConfig, description="Which tools are served."
    )
    url: str | None = Field(
        default=None,
        max_length=2048,
        pattern=r"^https?://[^\s/]",
        description="For type remote: where the server speaks MCP over streamable HTTP.",
    )

    @model_validator(mode="before")
    @classmethod
    def _todays_spelling(cls, spec: Any) -> Any:
        return compat.mcpserver_spec(spec) if isinstance(spec, dict) else spec

    @model_validator(mode="after")
    def _fits_its_type(self) -> Self:
        sources = [s for s in (self.config.mcp, self.config.tools) if s is not None]
        match self.type:
            case None:
                raise ValueError("set type: python-runtime, custom or remote")
            case ServerType.PYTHON if len(sources) != 1:
                raise ValueError("config: set exactly one of mcp and tools")
            case ServerType.CUSTOM if self.container.image is None:
                raise ValueError("type custom needs container.image")
            case ServerType.REMOTE if self.url is None:
                raise ValueError("type remote needs url")
        if self.type is not ServerType.PYTHON and sources:
            raise ValueError(f"config: mcp and tools are for type python-runtime, not {self.type}")
        if self.type is not ServerType.REMOTE and self.url is not None:
            raise ValueError(f"url is for type remote, not {self.type}")
        return self


class MCPServerStatus(WorkloadStatus):
    """What the controller has seen of an MCPServer."""

    available_tools: list[str] = Field(
        default_factory=list,
        description="The tools that it said it serves when it started; known of python-runtime.",
    )


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
    RULES: ClassVar[tuple[tuple[str, str], ...]] = (
        *Workload.RULES,
        ("has(self.type) != has(self.runtime)", "set type (or runtime, the earlier spelling)"),
        (IMAGE_RULE, "type custom needs container.image"),
        ("!has(self.type) || (self.type == 'remote') == has(self.url)", "url is for type remote"),
    )

    kind: Literal["MCPServer"] = "MCPServer"
    spec: MCPServerSpec = Field(description="What is wanted.")
    status: MCPServerStatus = Field(default_factory=MCPServerStatus, description="What is seen.")
