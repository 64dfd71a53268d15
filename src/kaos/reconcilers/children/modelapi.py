"""A ModelAPI's children: Ollama with its puller (Hosted), or the model gateway (Proxy).

Hosted: beside Ollama runs a small sidecar that pulls the model when the store lacks it. The pod
is ready when Ollama answers and the model is in the store, so "ready" means that it can answer.
The model's name travels as an argument of a process, never through a shell.
"""

import hashlib
import json
from typing import Any

from kaos.api import HostedConfig, Mode, ModelAPI, ProxyConfig
from kaos.reconcilers.children.names import HTTP_PORT, OLLAMA_PORT, child_name
from kaos.reconcilers.children.network import network_policy, to_public, to_url
from kaos.reconcilers.children.route import http_route
from kaos.reconcilers.children.workload import (
    Manifest,
    container,
    deployment,
    empty_volume,
    http_probes,
    literal,
    metadata,
    service,
    variables,
)
from kaos.reconcilers.settings import Settings

OLLAMA, PULLER = "ollama", "puller"
PULLER_PORT = 8001
COMMAND = ("python", "-m", "kaos.modelapi")
STORE = "/models"
CONFIG_FOLDER, CONFIG_FILE = "/etc/kaos", "config.json"
KEY_VARIABLE = "KAOS_UPSTREAM_API_KEY"
MODEL_MEMORY = {"requests": {"cpu": "250m", "memory": "512Mi"}}
TINY = {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}}


def endpoint(api: ModelAPI, settings: Settings) -> str:
    """The URL by which agents reach the models."""
    return settings.service_url(child_name(api), api.namespace, HTTP_PORT)


def modelapi_children(api: ModelAPI, settings: Settings, *, routes: bool) -> list[Manifest]:
    """Everything that a ModelAPI needs in order to run.

    Args:
        api: the resource.
        settings: of the controller.
        routes: whether the cluster has the Gateway API.
    """
    if api.spec.mode is Mode.HOSTED:
        assert api.spec.hosted_config is not None  # noqa: S101 - the model's validator
        children = _hosted(api, api.spec.hosted_config, settings)
    else:
        assert api.spec.proxy_config is not None  # noqa: S101 - the model's validator
        children = _proxy(api, api.spec.proxy_config, settings)
    children.append(service(api, (("http", HTTP_PORT),)))
    if routes:
        children.append(http_route(api, api.spec.gateway_route, settings, port=HTTP_PORT))
    return children


def _hosted(api: ModelAPI, config: HostedConfig, settings: Settings) -> list[Manifest]:
    ollama_env = [
        ("OLLAMA_HOST", f"0.0.0.0:{OLLAMA_PORT}"),
        ("OLLAMA_MODELS", STORE),
        ("HOME", STORE),
    ]
    ollama = container(
        OLLAMA,
        settings.ollama_image,
        ("serve",),
        env=variables(ollama_env, config.env),
        ports=(("http", OLLAMA_PORT),),
        probes=_ollama_probes(),
        resources=api.spec.resources.manifest() or MODEL_MEMORY,
        mounts=(("models", STORE), ("tmp", "/tmp")),  # noqa: S108 - private to the pod
    )
    upstream = f"http://127.0.0.1:{OLLAMA_PORT}"
    puller = container(
        PULLER,
        settings.image,
        ("pull", "--model", literal(config.model_name), "--upstream", upstream),
        command=COMMAND,
        env=variables([("KAOS_LISTEN", f"0.0.0.0:{PULLER_PORT}")], ()),
        ports=((PULLER, PULLER_PORT),),
        probes=http_probes(PULLER),
        resources=TINY,
    )
    store, claims = empty_volume("models"), []
    if config.storage is not None:
        name = f"{child_name(api)}-models"
        store = {"name": "models", "persistentVolumeClaim": {"claimName": name}}
        claims = [
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": metadata(api, name),
                "spec": {
                    "accessModes": ["ReadWriteOnce"],
                    "resources": {"requests": {"storage": str(config.storage)}},
                },
            }
        ]
    pod = deployment(
        api,
        [ollama, puller],
        volumes=[store, empty_volume("tmp")],
        recreate=bool(claims),  # two pods may not share the claim
    )
    return [*network_policy(api, settings, port=OLLAMA_PORT, egress=[to_public(443)]), *claims, pod]


def _ollama_probes() -> dict[str, Any]:
    probes = http_probes()
    for probe in probes.values():
        probe["httpGet"]["path"] = "/"
    return probes


def _proxy(api: ModelAPI, config: ProxyConfig, settings: Settings) -> list[Manifest]:
    document = json.dumps(proxy_document(config), indent=2, sort_keys=True)
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(api),
        "data": {CONFIG_FILE: document},
    }
    key = config.api_key
    env = variables(settings.serving(HTTP_PORT), config.env)
    if key is not None and key.value is not None:
        env.append({"name": KEY_VARIABLE, "value": literal(key.value)})
    elif key is not None and key.value_from is not None:
        env.append({"name": KEY_VARIABLE, "valueFrom": key.value_from.manifest()})
    gateway = container(
        "proxy",
        settings.image,
        ("serve", "--config", f"{CONFIG_FOLDER}/{CONFIG_FILE}"),
        command=COMMAND,
        env=env,
        resources=api.spec.resources.manifest(),
        mounts=(("config", CONFIG_FOLDER),),
    )
    digest = hashlib.sha256(document.encode()).hexdigest()[:16]
    pod = deployment(
        api,
        [gateway],
        volumes=[{"name": "config", "configMap": {"name": child_name(api)}}],
        annotations={"kaos.tools/config-hash": digest},
    )
    egress = to_url(config.api_base, settings.cluster_domain) if config.api_base else []
    if config.provider is not None:
        egress.append(to_public(443))
    return [*network_policy(api, settings, port=HTTP_PORT, egress=egress), config_map, pod]


def proxy_document(config: ProxyConfig) -> dict[str, Any]:
    """The configuration file of `python -m kaos.modelapi serve`."""
    shared: dict[str, Any] = {}
    if config.api_base is not None:
        shared["api_base"] = config.api_base
    if config.api_key is not None:
        shared["api_key_env"] = KEY_VARIABLE
    if config.provider is not None:
        shared["provider"] = config.provider
    return {"models": [{"name": name, **shared} for name in config.models]}
