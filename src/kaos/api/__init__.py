"""The three resources that users write: `Agent`, `ModelAPI` and `MCPServer`.

The pydantic models here are the source; `crds()` and manifests/crds are generated from them.
This package imports nothing else of KAOS.
"""

from typing import Any

from kaos.api.agent import (
    Agent,
    AgentAutoscaling,
    AgentConfig,
    AgentNetwork,
    AgentSpec,
    AgentStatus,
    ToolCallMode,
    ToolChoice,
)
from kaos.api.auth import Auth, TokensSecret
from kaos.api.crd import crd
from kaos.api.mcpserver import (
    Header,
    MCPServer,
    MCPServerConfig,
    MCPServerSpec,
    ServerType,
    Tools,
)
from kaos.api.memory import Memory, MemoryType
from kaos.api.meta import (
    GROUP,
    VERSION,
    Condition,
    CustomResource,
    InvalidSpecError,
    Metadata,
    Status,
)
from kaos.api.modelapi import (
    ApiKey,
    ConfigYaml,
    HostedConfig,
    Mode,
    ModelAPI,
    ModelAPISpec,
    ModelAPIStatus,
    ProxyConfig,
    Pull,
)
from kaos.api.pod import EnvVar, GatewayRoute, KeySource, Resources
from kaos.api.telemetry import Telemetry
from kaos.api.url import checked_url
from kaos.api.workload import Autoscaling, Container, Network, NetworkMode, Workload, WorkloadSpec

MODELS: tuple[type[CustomResource], ...] = (ModelAPI, MCPServer, Agent)


def crds() -> list[dict[str, Any]]:
    """The CustomResourceDefinitions of all kinds."""
    return [crd(model) for model in MODELS]


__all__ = [
    "GROUP",
    "MODELS",
    "VERSION",
    "Agent",
    "AgentAutoscaling",
    "AgentConfig",
    "AgentNetwork",
    "AgentSpec",
    "AgentStatus",
    "ApiKey",
    "Auth",
    "Autoscaling",
    "Condition",
    "ConfigYaml",
    "Container",
    "CustomResource",
    "EnvVar",
    "GatewayRoute",
    "Header",
    "HostedConfig",
    "InvalidSpecError",
    "KeySource",
    "MCPServer",
    "MCPServerConfig",
    "MCPServerSpec",
    "Memory",
    "MemoryType",
    "Metadata",
    "Mode",
    "ModelAPI",
    "ModelAPISpec",
    "ModelAPIStatus",
    "Network",
    "NetworkMode",
    "ProxyConfig",
    "Pull",
    "Resources",
    "ServerType",
    "Status",
    "Telemetry",
    "TokensSecret",
    "ToolCallMode",
    "ToolChoice",
    "Tools",
    "Workload",
    "WorkloadSpec",
    "checked_url",
    "crd",
    "crds",
]
