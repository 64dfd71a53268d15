"""The configuration file of the gateway, JSON or YAML.

    models:
      - name: gpt-5            # what clients ask for; `*` stands for any text, once
        model: gpt-5-2026-08   # what the upstream is asked for; by default the same
        api_base: https://api.example.com/v1
        api_key_env: OPENAI_API_KEY      # the key's variable, or
        api_key_file: /run/secrets/key   # its file, read at each request (rotation)
        timeout: 300           # seconds of silence that end a request
      - name: local/*          # local/llama is asked upstream as llama
        model: "*"
        api_base: http://modelapi-ollama.default.svc.cluster.local:8000/v1
      - name: claude
        provider: anthropic    # not OpenAI-compatible: through LiteLLM

A file with `model_list` instead is LiteLLM's own (`litellm_config`).

Guarantees: a file that is wrong is one `ConfigError` line with the place and the reason; an
unknown key is wrong. Keys themselves never stand in the file.

Which entry answers: the one with exactly the name, else the pattern with the longest fixed
text, else none.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kaos.modelapi.litellm_config import LiteLLMFile, aliases

ROUTER = "litellm-router"
"""The provider of models that LiteLLM's router answers for."""


class ConfigError(Exception):
    """The configuration cannot be used."""


class Upstream(BaseModel):
    """One entry of `models`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=256)
    model: str | None = Field(default=None, min_length=1, max_length=256)
    api_base: str | None = Field(default=None, pattern=r"^https?://")
    api_key_env: str | None = None
    api_key_file: Path | None = None
    provider: str | None = Field(default=None, pattern=r"^[a-z0-9_-]+$")
    timeout: float = Field(default=300.0, gt=0)

    @model_validator(mode="after")
    def _consistent(self) -> "Upstream":
        if self.api_base is None and self.provider is None:
            raise ValueError("set api_base (an OpenAI-compatible URL) or provider")
        if self.api_key_env and self.api_key_file:
            raise ValueError("set one of api_key_env and api_key_file")
        if self.name.count("*") > 1 or (self.model or "").count("*") > self.name.count("*"):
            raise ValueError("`*` may stand once in name, and in model only if it does in name")
        return self

    def match(self, requested: str) -> str | None:
        """The name to ask the upstream for, or None if this entry does not answer."""
        if "*" not in self.name:
            return (self.model or requested) if requested == self.name else None
        head, _, tail = self.name.partition("*")
        if len(requested) <= len(head) + len(tail):
            return None
        if not (requested.startswith(head) and requested.endswith(tail)):
            return None
        star = requested[len(head) : len(requested) - len(tail)]
        return self.model.replace("*", star) if self.model else requested


class Target(NamedTuple):
    """Where a request goes, and under which model's name."""

    upstream: Upstream
    model: str


class GatewayConfig(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    models: list[Upstream] = Field(min_length=1)
    litellm: LiteLLMFile | None = None

    @model_validator(mode="after")
    def _names_differ(self) -> "GatewayConfig":
        names = [entry.name for entry in self.models]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two models are named {name!r}")
        return self

    def target(self, requested: str) -> Target | None:
        """The entry that answers for a model's name."""
        found: Target | None = None
        # Exact names are their own longest match; a pattern's `*` does not count.
        for entry in sorted(self.models, key=lambda e: ("*" in e.name, -len(e.name))):
            if (model := entry.match(requested)) is not None:
                found = Target(entry, model)
                break
        return found


def load(path: Path) -> GatewayConfig:
    """Read and check a file.

    Raises:
        ConfigError: It cannot be read, or is not what the module's docstring describes.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigError(f"cannot read {path}: {reason}") from error
    try:
        document = _parse(path, text)
        if isinstance(document, dict) and "model_list" in document:
            return _of_litellm(LiteLLMFile.model_validate(document))
        return GatewayConfig.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ConfigError(f"{path}: {place}: {first['msg']}") from error


def _of_litellm(file: LiteLLMFile) -> GatewayConfig:
    names = dict.fromkeys([d.model_name for d in file.model_list] + aliases(file))
    models = [Upstream(name=name, provider=ROUTER) for name in names]
    return GatewayConfig(models=models, litellm=file)


def _parse(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        if path.suffix == ".json":
            raise ConfigError(f"{path}: {error}") from error
    try:
        import yaml  # noqa: PLC0415 - only for a file that is not JSON; not in every image
    except ImportError as error:
        raise ConfigError(f"{path} is not JSON, and reading YAML needs PyYAML") from error
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from error
