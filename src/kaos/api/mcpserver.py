"""The MCPServer: tools that agents may call, served over MCP streamable HTTP."""

import re
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

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
from kaos.api.pod import EnvVars, KeySelector, KeySource
from kaos.api.telemetry import Telemetry
from kaos.api.url import checked_url
from kaos.api.workload import Workload, WorkloadSpec, WorkloadStatus

IMAGE_RULE = (
    "!has(self.type) || self.type != 'custom' || (has(self.container) && has(self.container.image))"
)
HEADERS_RULE = "!has(self.headers) || size(self.headers) == 0 || has(self.url)"


class ServerType(StrEnum):
    """What runs the tools."""

    PYTHON = "python-runtime"
    NODE = "node-runtime"
    CUSTOM = "custom"
    REMOTE = "remote"


RESERVED_HEADERS = re.compile(
    r"accept|connection|content-.*|host|mcp-.*|te|transfer-encoding|upgrade", re.IGNORECASE
)
PYTHON_PACKAGE = (
    r"[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?(\[[A-Za-z0-9._,-]+\])?"
    r"(==[A-Za-z0-9][A-Za-z0-9.!+_-]{0,63})?"
)
NODE_PACKAGE = (
    r"(@[a-z0-9][a-z0-9._-]{0,126}/)?[a-z0-9][a-z0-9._-]{0,126}(@[A-Za-z0-9][A-Za-z0-9.+-]{0,63})?"
)


class Tools(Model):
    """Where the tools come from; exactly one is set."""

    from_string: str | None = Field(
        default=None, min_length=1, max_length=262144, description="The source itself."
    )
    from_secret_key_ref: KeySelector | None = Field(
        default=None, description="A key of a Secret that holds the source."
    )
    from_config_map_key_ref: KeySelector | None = Field(
        default=None, description="A key of a ConfigMap that holds the source."
    )

    from_package: str | None = Field(
        default=None,
        max_length=320,
        pattern=f"^({PYTHON_PACKAGE}|{NODE_PACKAGE})$",
        description="A package with an MCP server that speaks on stdio: name, name[extra] or "
        "name==version from PyPI; name or name@version from npm with node-runtime. container.args "
        "are its arguments.",
    )

    @model_validator(mode="after")
    def _one_source(self) -> "Tools":
        sources = (
            self.from_string,
            self.from_secret_key_ref,
            self.from_config_map_key_ref,
            self.from_package,
        )
        if sum(source is not None for source in sources) != 1:
            raise ValueError(
                "set exactly one of fromString, fromSecretKeyRef, fromConfigMapKeyRef, fromPackage"
            )
        return self


class Header(Model):
    """A header that requests to a remote server have."""

    name: str = Field(pattern="^[A-Za-z0-9-]{1,64}$", description="Its name, e.g. Authorization.")
    value_from: KeySource = Field(
        description="The key that holds its whole value, e.g. Bearer and the token."
    )

    @field_validator("name")
    @classmethod
    def _free(cls, name: str) -> str:
        if RESERVED_HEADERS.fullmatch(name):
            raise ValueError(f"{name} is set by the protocol")
        return name


Headers = Annotated[
    list[Header],
    Field(
        max_length=16,
        json_schema_extra={
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
        },
    ),
]


class MCPServerConfig(Model):
    """Which tools are served."""

    mcp: str | None = Field(
        default=None,
        min_length=1,
        max_length=128,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="The name of a built-in server, e.g. test-mcp-echo-server, else of a package.",
    )
    tools: Tools | None = Field(
        default=None,
        description="A package, or Python source whose public functions become tools.",
    )
    env: EnvVars = Field(default_factory=list, description="Variables of the server's container.")


class MCPServerSpec(WorkloadSpec):
    """What the user wants of an MCPServer."""

    type: ServerType | None = Field(
        default=None,
        description="What runs the tools. python-runtime: built-in servers, Python source and "
        "Python packages. node-runtime: npm packages. custom: the image in container.image, which "
        "serves MCP at /mcp on port 8000. remote: url; agents call it, or with headers a pod that "
        "has them does.",
    )
    runtime: str | None = Field(
        default=None,
        max_length=63,
        description="Instead of type: python-string, custom, or a name in the registry of "
        "runtimes, ConfigMap kaos-mcp-runtimes in the controller's namespace.",
    )
    params: str | None = Field(
        default=None,
        max_length=262144,
        description="What the runtime is given: of python-string the source, of others the value "
        "of the variable that the registry names.",
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
    headers: Headers = Field(
        default_factory=list,
        description="For type remote: headers of requests to url. A pod here adds them, so agents "
        "never see them.",
    )

    telemetry: Telemetry = Field(
        default_factory=Telemetry,
        description="Where traces are sent; an image of type custom gets the variables (OTEL_…).",
    )

    _checked = field_validator("url")(checked_url)

    @model_validator(mode="before")
    @classmethod
    def _todays_spelling(cls, spec: Any) -> Any:
        return compat.mcpserver_spec(spec) if isinstance(spec, dict) else spec

    @model_validator(mode="after")
    def _fits_its_type(self) -> Self:
        tools = self.config.tools
        sources = [s for s in (self.config.mcp, tools) if s is not None]
        packaged = self.type in (ServerType.PYTHON, ServerType.NODE)
        if packaged and len(sources) != 1:
            raise ValueError("config: set exactly one of mcp and tools")
        match self.type:
            case None if self.runtime is None:
                raise ValueError("set type: python-runtime, node-runtime, custom or remote")
            case ServerType.NODE if tools is not None and tools.from_package is None:
                raise ValueError("config.tools: node-runtime runs packages, so set fromPackage")
            case ServerType.CUSTOM if self.container.image is None:
                raise ValueError("type custom needs container.image")
            case ServerType.REMOTE if self.url is None:
                raise ValueError("type remote needs url")
        if not packaged and sources:
            kinds = f"{ServerType.PYTHON} and {ServerType.NODE}"
            raise ValueError(f"config: mcp and tools are for type {kinds}, not {self._sort}")
        if self.type is not ServerType.REMOTE and (self.url is not None or self.headers):
            raise ValueError(f"url and headers are for type remote, not {self._sort}")
        if package := tools and tools.from_package:
            pattern = PYTHON_PACKAGE if self.type is ServerType.PYTHON else NODE_PACKAGE
            if not re.fullmatch(pattern, package):
                raise ValueError(
                    f"config.tools.fromPackage: {package!r} is no name for {self.type}"
                )
        return self

    @property
    def _sort(self) -> str:
        return str(self.type or f"runtime {self.runtime}")


class MCPServerStatus(WorkloadStatus):
    """What the controller has seen of an MCPServer."""

    available_tools: list[str] = Field(
        default_factory=list,
        description="The tools that it said it has when it was last asked; Available tells why "
        "it could not be asked.",
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
        (HEADERS_RULE, "headers are for type remote"),
    )

    kind: Literal["MCPServer"] = "MCPServer"
    spec: MCPServerSpec = Field(description="What is wanted.")
    status: MCPServerStatus = Field(default_factory=MCPServerStatus, description="What is seen.")
