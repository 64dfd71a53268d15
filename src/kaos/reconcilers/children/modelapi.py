"""A ModelAPI's children: Ollama with its puller (Hosted), or the model gateway (`proxy`).

Hosted: beside Ollama runs a small sidecar that pulls the model when the store lacks it. The pod
is ready when Ollama answers and the model is in the store, so "ready" means that it can answer.
The model's name travels as an argument of a process, never through a shell.
"""

from collections.abc import Sequence
from typing import Any

from kaos.api import HostedConfig, Mode, ModelAPI
from kaos.reconcilers.children.names import HTTP_PORT, OLLAMA_PORT, child_name
from kaos.reconcilers.children.network import network_policy, to_public
from kaos.reconcilers.children.proxy import COMMAND, proxy_children
from kaos.reconcilers.children.route import http_route
from kaos.reconcilers.children.workload import (
    Manifest,
    claim,
    container,
    deployment,
    empty_volume,
    http_probes,
    literal,
    service,
    variables,
)
from kaos.reconcilers.settings import Settings

OLLAMA, PULLER = "ollama", "puller"
PULLER_PORT = 8001
STORE = "/models"
GPU = "nvidia.com/gpu"
MODEL_MEMORY = {"requests": {"cpu": "250m", "memory": "512Mi"}}
TINY = {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}}


def endpoint(api: ModelAPI, settings: Settings) -> str:
    """The URL by which agents reach the models."""
    return settings.service_url(child_name(api), api.namespace, HTTP_PORT)


def modelapi_children(
    api: ModelAPI, settings: Settings, *, routes: bool, guests: Sequence[str] = ()
) -> list[Manifest]:
    """Everything that a ModelAPI needs in order to run.

    Args:
        api: the resource.
        settings: of the controller.
        routes: whether the cluster has the Gateway API.
        guests: other namespaces whose agents may use it.
    """
    if api.spec.mode is Mode.HOSTED:
        assert api.spec.hosted_config is not None  # noqa: S101 - the model's validator
        children = _hosted(api, api.spec.hosted_config, settings, guests)
    else:
        assert api.spec.proxy_config is not None  # noqa: S101 - the model's validator
        children = proxy_children(api, api.spec.proxy_config, settings, guests)
    children.append(service(api, (("http", HTTP_PORT),)))
    if routes:
        children.append(http_route(api, api.spec.gateway_route, settings, port=HTTP_PORT))
    return children


def _hosted(
    api: ModelAPI, config: HostedConfig, settings: Settings, guests: Sequence[str]
) -> list[Manifest]:
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
        resources=ollama_resources(api, config),
        mounts=(("models", STORE), ("tmp", "/tmp")),  # noqa: S108 - private to the pod
        drain=settings.drain,
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
        claims = [claim(api, name, config.storage)]
    pod = deployment(
        api,
        [ollama, puller],
        drain=settings.drain,
        volumes=[store, empty_volume("tmp")],
        # Two pods may not share the claim, and a node's one GPU serves one of them.
        recreate=bool(claims or config.gpus),
    )
    policy = network_policy(
        api, settings, port=OLLAMA_PORT, egress=[to_public(settings, 443)], guests=guests
    )
    return [*policy, *claims, pod]


def ollama_resources(api: ModelAPI, config: HostedConfig) -> Manifest:
    """What Ollama asks of the node: the user's wish or enough for a small model, and GPUs."""
    own = api.spec.container.resources.manifest() or config.resources.manifest()
    wish = own or api.spec.main_resources or MODEL_MEMORY
    if not config.gpus:
        return wish
    return {**wish, "limits": {GPU: config.gpus, **wish.get("limits", {})}}


def _ollama_probes() -> dict[str, Any]:
    probes = http_probes()
    for probe in probes.values():
        probe["httpGet"]["path"] = "/"
    return probes
