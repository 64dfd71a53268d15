"""What an agent is told by its environment.

Guarantees: read once, checked whole, frozen. Everything that is wrong is named in one error
with the variable it came from, so that a pod does not crash five times for five mistakes. The
line break at the end of a value (a Secret made of a file has one) is none of it.

Does not: print values; an instruction or a URL may hold what its author thinks private.
"""

import json
import os
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

Positive = Annotated[float, Field(gt=0)]

_VARIABLES = {
    "name": "AGENT_NAME",
    "description": "AGENT_DESCRIPTION",
    "instructions": "AGENT_INSTRUCTIONS",
    "model_api_url": "MODEL_API_URL",
    "model_api_key": "MODEL_API_KEY",
    "model_name": "MODEL_NAME",
    "tool_call_mode": "AGENT_TOOL_CALL_MODE",
    "max_steps": "AGENTIC_LOOP_MAX_STEPS",
    "max_tokens": "AGENTIC_LOOP_MAX_TOKENS",
    "max_seconds": "AGENTIC_LOOP_MAX_SECONDS",
    "max_tool_calls": "AGENTIC_LOOP_MAX_TOOL_CALLS",
    "max_tool_result": "KAOS_MAX_TOOL_RESULT",
    "listen": "KAOS_LISTEN",
    "log_level": "LOG_LEVEL",
    "log_format": "KAOS_LOG_FORMAT",
    "namespace": "KAOS_POD_NAMESPACE",
    "public_url": "KAOS_PUBLIC_URL",
    "request_timeout": "KAOS_REQUEST_TIMEOUT",
    "model_timeout": "KAOS_MODEL_TIMEOUT",
    "tool_timeout": "KAOS_TOOL_TIMEOUT",
    "delegation_timeout": "KAOS_DELEGATION_TIMEOUT",
    "dependency_wait": "KAOS_DEPENDENCY_WAIT",
    "max_body": "KAOS_MAX_BODY",
    "max_concurrent": "KAOS_MAX_CONCURRENT",
    "memory_enabled": "MEMORY_ENABLED",
    "memory_type": "MEMORY_TYPE",
    "memory_url": "MEMORY_URL",
    "memory_context_limit": "MEMORY_CONTEXT_LIMIT",
    "memory_max_sessions": "MEMORY_MAX_SESSIONS",
    "memory_max_session_events": "MEMORY_MAX_SESSION_EVENTS",
    "memory_ttl": "MEMORY_TTL",
    "memory_open_list": "MEMORY_OPEN_LIST",
    "auth_tokens": "KAOS_AUTH_TOKENS",
    "auth_tokens_file": "KAOS_AUTH_TOKENS_FILE",
    "auth_service_accounts": "KAOS_AUTH_SERVICE_ACCOUNTS",
    "auth_allow": "KAOS_AUTH_ALLOW",
    "auth_allow_file": "KAOS_AUTH_ALLOW_FILE",
    "auth_audience": "KAOS_AUTH_AUDIENCE",
    "auth_api_server": "KAOS_AUTH_API_SERVER",
    "auth_issuer": "KAOS_AUTH_ISSUER",
    "auth_jwks_url": "KAOS_AUTH_JWKS_URL",
    "max_delegation_depth": "KAOS_MAX_DELEGATION_DEPTH",
    "record_content": "KAOS_RECORD_CONTENT",
}


class SettingsError(ValueError):
    """The environment does not describe an agent."""


class Settings(BaseModel):
    """An agent's settings; times are in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9._-]+$")]
    model_api_url: str
    model_name: Annotated[str, Field(min_length=1)]
    description: str = ""
    instructions: str = ""
    model_api_key: SecretStr = SecretStr("")
    mcp_servers: dict[str, str] = Field(default_factory=dict)
    peers: dict[str, str] = Field(default_factory=dict)
    peer_token_files: dict[str, str] = Field(default_factory=dict)
    mcp_tools: dict[str, dict[str, str]] = Field(default_factory=dict)
    tool_call_mode: Literal["auto", "native", "text"] = "auto"
    max_steps: Annotated[int, Field(ge=1, le=1000)] = 5
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_seconds: Positive | None = None
    max_tool_calls: Annotated[int, Field(ge=0)] | None = None
    max_tool_result: Annotated[int, Field(ge=100)] = 64 * 1024
    listen: str = "127.0.0.1:8000"
    log_level: str = "INFO"
    log_format: str | None = None
    namespace: str = "default"
    public_url: str = ""
    request_timeout: Positive = 600.0
    model_timeout: Positive = 300.0
    tool_timeout: Positive = 60.0
    delegation_timeout: Positive = 300.0
    dependency_wait: Annotated[float, Field(ge=0)] = 0.0
    max_body: Annotated[int, Field(ge=1024)] = 16 * 1024 * 1024
    max_concurrent: Annotated[int, Field(ge=0)] = 1000
    memory_enabled: bool = True
    memory_type: Literal["local", "sqlite", "redis", "postgres"] = "local"
    memory_url: SecretStr = SecretStr("")
    memory_context_limit: Annotated[int, Field(ge=0)] = 4096
    memory_max_sessions: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    memory_max_session_events: Annotated[int, Field(ge=2, le=100_000)] = 500
    memory_ttl: Positive = 7 * 24 * 3600.0
    memory_open_list: bool = False
    auth_tokens: SecretStr = SecretStr("")
    auth_tokens_file: str = ""
    auth_service_accounts: Literal["", "tokenreview", "jwks"] = ""
    auth_allow: str = ""
    auth_allow_file: str = ""
    auth_audience: Annotated[str, Field(min_length=1)] = "kaos"
    auth_api_server: str = ""
    auth_issuer: str = ""
    auth_jwks_url: str = ""
    max_delegation_depth: Annotated[int, Field(ge=0, le=64)] = 8
    record_content: bool = False

    @property
    def identity(self) -> str:
        """This agent's place in a delegation path."""
        return f"{self.name}.{self.namespace}"

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> "Settings":
        """Read the settings.

        Raises:
            SettingsError: With one line for each thing that is missing or wrong.
        """
        values: dict[str, Any] = {
            field: value
            for field, variable in _VARIABLES.items()
            if (value := env.get(variable, "").strip())
        }
        problems = [
            f"{_VARIABLES[field]} is not set"
            for field in ("name", "model_api_url", "model_name")
            if field not in values
        ]
        if not values.get("model_api_key", "").isprintable():
            problems.append("MODEL_API_KEY must be one line of text")
        if url := values.get("model_api_url"):
            values["model_api_url"] = _url(
                "MODEL_API_URL", url.rstrip("/").removesuffix("/v1"), problems
            )
        values["mcp_servers"] = _named_urls(env, "MCP_SERVERS", "MCP_SERVER_{}_URL", problems)
        values["mcp_tools"] = {
            name: chosen
            for name in values["mcp_servers"]
            if (chosen := _tools(env, f"MCP_SERVER_{variable_part(name)}_TOOLS", problems))
        }
        values["peers"] = _named_urls(env, "PEER_AGENTS", "PEER_AGENT_{}_CARD_URL", problems)
        values["peer_token_files"] = {
            name: path
            for name in values["peers"]
            if (path := env.get(f"PEER_AGENT_{variable_part(name)}_TOKEN_FILE", ""))
        }
        try:
            settings = None if problems else cls(**values)
        except ValidationError as error:
            settings = None
            for issue in error.errors(include_url=False, include_input=False):
                name = _VARIABLES.get(str(issue["loc"][0]), str(issue["loc"][0]))
                problems.append(f"{name}: {issue['msg']}")
        if settings is None:
            raise SettingsError("; ".join(problems))
        return settings


def variable_part(name: str) -> str:
    """Turn a name into a part of a variable: upper case, `_` for all but letters and digits."""
    return re.sub(r"[^A-Z0-9]", "_", name.upper())


def _named_urls(
    env: Mapping[str, str], names: str, template: str, problems: list[str]
) -> dict[str, str]:
    """Read `a,b` (or `[a,b]`) and the URL of each."""
    found = {}
    listed = env.get(names, "").strip().removeprefix("[").removesuffix("]")
    for name in filter(None, (part.strip(" \"'") for part in listed.split(","))):
        variable = template.format(variable_part(name))
        if url := env.get(variable, "").strip():
            found[name] = _url(variable, url.rstrip("/"), problems)
        else:
            problems.append(f"{names} names {name!r}, but {variable} is not set")
    return found


def _tools(env: Mapping[str, str], variable: str, problems: list[str]) -> dict[str, str]:
    """Read which tools of a server are offered, and under which names.

    `["a", "b"]` offers these two; `{"a": "find", "b": true}` offers `a` as `find`, and `b`;
    with `"*": true` in it all others are offered too.
    """
    text = env.get(variable, "").strip()
    if not text:
        return {}
    try:
        given = json.loads(text)
    except ValueError:
        given = None
    if isinstance(given, list):
        given = dict.fromkeys((str(name) for name in given), True)
    if (
        not isinstance(given, dict)
        or not given
        or not all(value is True or (isinstance(value, str) and value) for value in given.values())
    ):
        problems.append(f'{variable} must be a JSON list of names, or an object like {{"a": "b"}}')
        return {}
    return {name: name if value is True else value for name, value in given.items()}


def _url(variable: str, url: str, problems: list[str]) -> str:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        problems.append(f"{variable} must be an http or https URL")
    return url
