"""A ModelAPI's children in mode Proxy: the model gateway, its configuration and its key.

The configuration is one file: written from `models`, `apiBase` and `provider`, or the user's own
(`configYaml`), which is passed on as it is and never put together from pieces of text. One in a
Secret is mounted and not read here, so what is wrong in it is told by the gateway, in Available,
and whether it needs LiteLLM is not known: it gets the image that has it.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from kaos.api import InvalidSpecError, ModelAPI, ProxyConfig, checked_url
from kaos.reconcilers.children.names import HTTP_PORT, child_name
from kaos.reconcilers.children.network import network_policy, to_public, to_url
from kaos.reconcilers.children.telemetry import telemetry_egress, telemetry_env
from kaos.reconcilers.children.user_yaml import UserYamlError, load
from kaos.reconcilers.children.workload import (
    Manifest,
    container,
    deployment,
    empty_volume,
    literal,
    metadata,
    variables,
)
from kaos.reconcilers.settings import Settings

COMMAND = ("python", "-m", "kaos.modelapi")
FOLDER, JSON_FILE, YAML_FILE = "/etc/kaos", "config.json", "config.yaml"
KEY_VARIABLE = "PROXY_API_KEY"
"""As in the earlier KAOS, whose users name it in their configurations."""
REFERENCE = "os.environ/"
LITELLM = {"requests": {"cpu": "100m", "memory": "400Mi"}, "limits": {"memory": "1Gi"}}
HASH = "kaos.tools/config-hash"


def proxy_children(
    api: ModelAPI, config: ProxyConfig, settings: Settings, guests: Sequence[str] = ()
) -> list[Manifest]:
    """The gateway's Deployment, its configuration, and whom it may reach.

    Raises:
        InvalidSpecError: `configYaml.fromString` cannot be used.
    """
    file, text = JSON_FILE, ""
    if config.config_yaml is None:
        upstreams = proxy_document(config)["models"]
        text = json.dumps({"models": upstreams}, indent=2, sort_keys=True)
    else:
        file = YAML_FILE
        upstreams = own_upstreams(config)
        text = config.config_yaml.from_string or ""
    secret = config.config_yaml and config.config_yaml.from_secret_key_ref
    if secret:
        items = [{"key": secret.key, "path": file}]
        volume: Manifest = {"secret": {"secretName": secret.name, "items": items}}
        children, annotations = [], None
    else:
        volume = {"configMap": {"name": child_name(api)}}
        children = [
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": metadata(api),
                "data": {file: text},
            }
        ]
        annotations = {HASH: hashlib.sha256(text.encode()).hexdigest()[:16]}
    volumes, mounts = [{"name": "config", **volume}], [("config", FOLDER)]
    litellm = bool(secret) or any(entry.get("provider") for entry in upstreams)
    if litellm:  # it looks for a folder to write to when it is imported
        volumes.append(empty_volume("tmp"))
        mounts.append(("tmp", "/tmp"))  # noqa: S108 - a mount, private to the pod
    gateway = container(
        "proxy",
        settings.litellm_image if litellm else settings.image,
        ("serve", "--config", f"{FOLDER}/{file}"),
        command=COMMAND,
        env=_environment(api, config, settings),
        resources=api.spec.main_resources or (LITELLM if litellm else None),
        mounts=mounts,
    )
    pod = deployment(api, [gateway], drain=settings.drain, volumes=volumes, annotations=annotations)
    egress = _egress(upstreams, settings) if not secret else [to_public(settings, 443)]
    egress += telemetry_egress(api.spec.telemetry, settings)
    policy = network_policy(api, settings, port=HTTP_PORT, egress=egress, guests=guests)
    return [*policy, *children, pod]


def proxy_document(config: ProxyConfig) -> dict[str, Any]:
    """The configuration file of `python -m kaos.modelapi serve`."""
    shared: dict[str, Any] = {}
    if config.api_base is not None:
        shared["api_base"] = config.api_base
    if config.api_key is not None:
        shared["api_key_env"] = KEY_VARIABLE
    if config.litellm_provider is not None:
        shared["provider"] = config.litellm_provider
    return {"models": [{"name": name, **shared} for name in config.models]}


def own_upstreams(config: ProxyConfig) -> list[dict[str, Any]]:
    """The entries of the user's own configuration; empty when a Secret holds it.

    Raises:
        InvalidSpecError: it is no such file, or has no entry for one of the models.
    """
    if config.config_yaml is None or config.config_yaml.from_string is None:
        return []
    where = "spec.proxyConfig.configYaml.fromString"
    try:
        document = load(config.config_yaml.from_string)
    except UserYamlError as error:
        raise InvalidSpecError(f"{where}: {error}") from error
    document = document if isinstance(document, dict) else {}
    entries = document.get("model_list", document.get("models"))
    if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
        raise InvalidSpecError(
            f"{where}: needs a list named model_list, as LiteLLM reads it, or models, as "
            "kaos.modelapi does"
        )
    values = {variable.name: variable.value or "" for variable in config.env}
    litellm = "model_list" in document
    try:
        upstreams = [_of_litellm(e, values) if litellm else _of_ours(e) for e in entries]
    except ValueError as error:
        raise InvalidSpecError(f"{where}: {error}") from error
    names = [upstream["name"] for upstream in upstreams] + (_aliases(document) if litellm else [])
    for model in config.models:
        if not any(covers(name, model) for name in names):
            raise InvalidSpecError(
                f'{where}: has no entry for model "{model}" (it has: {", ".join(names)})'
            )
    return upstreams


def _aliases(document: dict[str, Any]) -> list[str]:
    """Further names of the entries of `model_list`, which the gateway serves as well."""
    given: dict[str, Any] = {}
    for part in ("litellm_settings", "router_settings"):  # as the gateway lays them over each other
        settings = document.get(part)
        given |= settings if isinstance(settings, dict) else {}
    aliases = given.get("model_group_alias")
    return [str(name) for name in aliases] if isinstance(aliases, dict) else []


def _of_litellm(entry: dict[str, Any], values: Mapping[str, str]) -> dict[str, Any]:
    """An entry of `model_list` as far as it concerns us: its name, and where it leads."""
    params = entry.get("litellm_params")
    base = _text(params, "api_base") if isinstance(params, dict) else ""
    if base.startswith(REFERENCE):
        base = values.get(base.removeprefix(REFERENCE), "")
    name = _text(entry, "model_name")
    return {"name": name, "api_base": _url(base), "provider": "litellm"}


def _of_ours(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry of `models` as far as it concerns us."""
    found = {field: _text(entry, field) for field in ("name", "api_base", "provider")}
    return {**found, "api_base": _url(found["api_base"])}


def _url(base: str) -> str:
    try:
        return (base and checked_url(base)) or ""
    except ValueError as error:
        raise ValueError(f"api_base: {error}") from error


def _text(entry: Mapping[str, Any], field: str) -> str:
    value = entry.get(field)
    if not isinstance(value, str | None):
        raise ValueError(f"{field} must be a text, not {type(value).__name__}")  # noqa: TRY004
    return value or ""


def covers(pattern: str, model: str) -> bool:
    """Whether a gateway's entry of this name answers for a model, as `kaos.modelapi` reads it."""
    head, star, tail = pattern.partition("*")
    if not star:
        return pattern == model
    longer = len(model) > len(head) + len(tail)
    return longer and model.startswith(head) and model.endswith(tail)


def _environment(api: ModelAPI, config: ProxyConfig, settings: Settings) -> list[Manifest]:
    generated = [*settings.serving(HTTP_PORT), *telemetry_env(api, api.spec.telemetry)]
    key, sources = config.api_key, {}
    if key is not None and key.value is not None:
        generated.append((KEY_VARIABLE, literal(key.value)))
    elif key is not None and key.value_from is not None:
        sources[KEY_VARIABLE] = key.value_from
    return variables(generated, config.env, sources)


def _egress(upstreams: list[dict[str, Any]], settings: Settings) -> list[Manifest]:
    """Whom the upstreams' addresses are; each rule once."""
    rules: list[Manifest] = []
    for entry in upstreams:
        found = []
        if base := entry.get("api_base"):
            found += to_url(str(base), settings.cluster_domain)
        if entry.get("provider") and not found:
            found.append(to_public(settings, 443))
        rules += [rule for rule in found if rule not in rules]
    return rules
