"""LiteLLM's configuration file, in the form that its proxy has, for this gateway.

    model_list:
      - model_name: gpt-5                       # what clients ask for; `openai/*` stands for many
        litellm_params:
          model: azure/gpt-5-eu                 # several of one model_name share its requests
          api_base: os.environ/AZURE_API_BASE
          api_key: os.environ/AZURE_API_KEY     # a variable of the gateway
    litellm_settings: {drop_params: true}
    router_settings: {num_retries: 2, fallbacks: [{gpt-5: [gpt-4]}]}

Guarantees: what is wrong is one line with its place, and no value; a variable that is named and
not set is wrong. Settings that only LiteLLM's own proxy has are not silently dropped: those that
guard it (`general_settings`) are refused, because who sets a key there believes it is asked for;
others (callbacks, caches) are named in the log.

Does not: import LiteLLM.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import structlog
from pydantic import BaseModel, ConfigDict, Field

from kaos import discovery

REFERENCE = "os.environ/"
LIBRARY = frozenset({"drop_params", "modify_params"})
ROUTER = frozenset(
    {
        *("routing_strategy", "num_retries", "timeout", "stream_timeout", "retry_after"),
        *("allowed_fails", "cooldown_time", "enable_pre_call_checks", "model_group_alias"),
        *("fallbacks", "context_window_fallbacks", "content_policy_fallbacks", "default_fallbacks"),
    }
)

log = structlog.get_logger(__name__)


class SettingError(ValueError):
    """The file asks for what is not to be had; the message names the place."""


class Deployment(BaseModel):
    """One entry of `model_list`."""

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())

    model_name: str = Field(min_length=1, max_length=256)
    litellm_params: dict[str, Any]


class LiteLLMFile(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())

    model_list: list[Deployment] = Field(min_length=1)
    litellm_settings: dict[str, Any] = Field(default_factory=dict)
    router_settings: dict[str, Any] = Field(default_factory=dict)
    # Who wrote these believes that they guard something.
    general_settings: dict[str, Any] = Field(default_factory=dict, max_length=0)
    guardrails: list[Any] = Field(default_factory=list, max_length=0)


class RouterPlan(NamedTuple):
    """What LiteLLM is told: its own settings, and the arguments of its router."""

    library: dict[str, Any]
    router: dict[str, Any]


def aliases(file: LiteLLMFile) -> list[str]:
    """Further names of models, which the router knows."""
    given = {**file.litellm_settings, **file.router_settings}.get("model_group_alias")
    return [str(name) for name in given] if isinstance(given, dict) else []


def plan(file: LiteLLMFile, env: Mapping[str, str]) -> RouterPlan:
    """What the file means, with variables in the place of their names.

    Raises:
        SettingError: A variable is not set, an entry names no model, or a Service is not there.
    """
    entries = []
    for number, deployment in enumerate(file.model_list):
        where = f"model_list.{number}.litellm_params"
        params = _resolved(deployment.litellm_params, env, where)
        if not isinstance(params.get("model"), str):
            raise SettingError(f"{where}: needs model, e.g. openai/gpt-5")
        if isinstance(base := params.get("api_base"), str):
            try:
                params["api_base"] = discovery.locate(base)
            except discovery.ServiceNotFound as error:
                raise SettingError(f"{where}.api_base: {error}") from error
        entries.append({"model_name": deployment.model_name, "litellm_params": params})
    given = {**file.litellm_settings, **file.router_settings}
    if unused := sorted((given.keys() - LIBRARY - ROUTER) | (file.model_extra or {}).keys()):
        log.warning("settings of LiteLLM's own proxy are not used here", settings=unused)
    return RouterPlan(
        {name: value for name, value in given.items() if name in LIBRARY},
        {name: value for name, value in given.items() if name in ROUTER} | {"model_list": entries},
    )


def _resolved(value: Any, env: Mapping[str, str], where: str) -> Any:
    if isinstance(value, dict):
        return {name: _resolved(item, env, f"{where}.{name}") for name, item in value.items()}
    if isinstance(value, list):
        return [_resolved(item, env, f"{where}.{n}") for n, item in enumerate(value)]
    if not (isinstance(value, str) and value.startswith(REFERENCE)):
        return value
    name = value.removeprefix(REFERENCE)
    if not env.get(name, "").strip():
        raise SettingError(f"{where}: variable {name} is not set")
    return env[name].strip()
