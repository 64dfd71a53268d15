"""An Agent's children: Deployment, Service and HTTPRoute.

The addresses of its ModelAPI, servers and peers follow from their names alone, so nothing here
depends on what exists yet: a peer that comes later needs no new pod. Only a remote server has an
address of its own; an agent that was there before it gets a new pod.
"""

from collections.abc import Mapping, Sequence

from kaos.api import Agent
from kaos.reconcilers.children.agent_env import SERVICE_PORT, SESSIONS, environment
from kaos.reconcilers.children.auth import auth_parts
from kaos.reconcilers.children.names import HTTP_PORT, service_name
from kaos.reconcilers.children.network import (
    PORTS,
    network_policy,
    to_any,
    to_declared,
    to_url,
    uses_labels,
)
from kaos.reconcilers.children.route import http_route
from kaos.reconcilers.children.telemetry import telemetry_egress
from kaos.reconcilers.children.workload import (
    Manifest,
    claim,
    container,
    deployment,
    service,
    variables,
)
from kaos.reconcilers.settings import Settings

COMMAND = ("python", "-m", "kaos.agent")


def endpoint(agent: Agent, settings: Settings) -> str:
    """The URL by which other pods reach the agent."""
    return settings.service_url(service_name(Agent, agent.name), agent.namespace, SERVICE_PORT)


def agent_children(
    agent: Agent,
    model: str,
    settings: Settings,
    *,
    routes: bool,
    short_path: bool = True,
    remotes: Mapping[str, str] | None = None,
    guests: Sequence[str] = (),
    callers: Sequence[str] = (),
    guarded: Sequence[str] = (),
) -> list[Manifest]:
    """Everything that an Agent needs in order to run.

    Args:
        agent: the resource.
        model: the model that it asks for.
        settings: of the controller.
        routes: whether the cluster has the Gateway API.
        short_path: whether `/<name>` is this agent's to have.
        remotes: the URLs of those of its servers that run elsewhere.
        guests: other namespaces whose agents may ask it.
        callers: the service accounts of agents that name it, as namespace/name.
        guarded: those of its peers that check their callers.
    """
    spec, remotes = agent.spec, remotes or {}
    # A MODEL_NAME of the user's is already in `model`, in the spelling of the ModelAPI.
    user = [v for v in spec.config.env if v.name != "MODEL_NAME" or v.value_from]
    source = spec.config.instructions_from
    from_keys = {"AGENT_INSTRUCTIONS": source} if source else {}
    memory = spec.config.memory
    if memory.enabled and memory.url_from is not None:
        from_keys["MEMORY_URL"] = memory.url_from
    claims, volumes, mounts = sessions_volume(agent)
    auth = auth_parts(agent, callers, guarded, accounts=settings.account_tokens)
    generated = environment(agent, model, settings, remotes) + auth.env
    exposed = spec.agent_network.expose
    egress = [
        *to_declared(agent),
        *auth.egress,
        *telemetry_egress(spec.config.telemetry, settings),
    ]
    database = memory.url if memory.enabled else None
    for url in (*remotes.values(), *filter(None, [database])):
        egress += to_url(url, settings.cluster_domain)
    if memory.enabled and memory.url_from is not None:
        egress.append(to_any(PORTS[memory.type]))  # whose host nobody here may read
    children = [
        *claims,
        *auth.children,
        *network_policy(
            agent, settings, port=HTTP_PORT, egress=egress, routed=exposed, guests=guests
        ),
        deployment(
            agent,
            [
                container(
                    "agent",
                    settings.image,
                    (),
                    command=COMMAND,
                    env=variables(generated, user, from_keys),
                    resources=spec.main_resources,
                    mounts=[*mounts, *auth.mounts],
                )
            ],
            drain=settings.drain,
            volumes=[*volumes, *auth.volumes],
            recreate=bool(claims),  # two pods may not share the claim
            pod_labels=uses_labels(agent),
            account=auth.account,
        ),
    ]
    if exposed:
        ports = (("http", SERVICE_PORT), (f"http-{HTTP_PORT}", HTTP_PORT))
        children.append(service(agent, ports))
        if routes:
            children.append(
                http_route(agent, spec.gateway_route, settings, port=SERVICE_PORT, short=short_path)
            )
    return children


def sessions_volume(
    agent: Agent,
) -> tuple[list[Manifest], list[Manifest], list[tuple[str, str]]]:
    """The claim that keeps an agent's sessions, its volume and where it is mounted, if wanted."""
    memory = agent.spec.config.memory
    if not memory.enabled or memory.storage is None:
        return [], [], []
    name = f"{agent.name}-sessions"
    volume = {"name": "sessions", "persistentVolumeClaim": {"claimName": name}}
    return [claim(agent, name, memory.storage)], [volume], [("sessions", SESSIONS)]
