"""An Agent's children: Deployment, Service and HTTPRoute.

The addresses of its ModelAPI, servers and peers follow from their names alone, so nothing here
depends on what exists yet: a peer that comes later needs no new pod. Only a remote server has an
address of its own; an agent that was there before it gets a new pod.
"""

from collections.abc import Mapping

from kaos.api import Agent, MCPServer, ModelAPI
from kaos.reconcilers.children.names import HTTP_PORT, env_name, service_name
from kaos.reconcilers.children.network import network_policy, to_declared, to_url, uses_labels
from kaos.reconcilers.children.route import http_route
from kaos.reconcilers.children.workload import (
    Manifest,
    container,
    deployment,
    literal,
    service,
    variables,
)
from kaos.reconcilers.settings import Settings

SERVICE_PORT = 80
COMMAND = ("python", "-m", "kaos.agent")
DEPENDENCY_WAIT = 30
"""Seconds for which a new pod waits for its MCP servers; then it is ready without them."""


def endpoint(agent: Agent, settings: Settings) -> str:
    """The URL by which other pods reach the agent."""
    return settings.service_url(service_name(Agent, agent.name), agent.namespace, SERVICE_PORT)


def environment(
    agent: Agent, model: str, settings: Settings, remotes: Mapping[str, str]
) -> list[tuple[str, str]]:
    """The generated variables of an agent's container."""
    spec, namespace = agent.spec, agent.namespace
    url = settings.service_url
    env = [
        ("AGENT_NAME", agent.name),
        ("KAOS_POD_NAMESPACE", namespace),
        ("AGENT_DESCRIPTION", literal(spec.config.description)),
        ("AGENT_INSTRUCTIONS", literal(spec.config.instructions)),
        ("MODEL_API_URL", url(service_name(ModelAPI, spec.model_api), namespace, HTTP_PORT)),
        ("MODEL_NAME", literal(model)),
        *settings.serving(HTTP_PORT),
    ]
    if spec.config.reasoning_loop_max_steps is not None:
        env.append(("AGENTIC_LOOP_MAX_STEPS", str(spec.config.reasoning_loop_max_steps)))
    if spec.wait_for_dependencies:
        env.append(("KAOS_DEPENDENCY_WAIT", str(DEPENDENCY_WAIT)))
    if spec.mcp_servers:
        env.append(("MCP_SERVERS", ",".join(spec.mcp_servers)))
    for name in spec.mcp_servers:
        here = url(service_name(MCPServer, name), namespace, HTTP_PORT) + "/mcp"
        env.append((f"MCP_SERVER_{env_name(name)}_URL", literal(remotes.get(name, here))))
    peers = spec.agent_network.access
    if peers:
        env.append(("PEER_AGENTS", ",".join(peers)))
    for name in peers:
        card = url(service_name(Agent, name), namespace, SERVICE_PORT)
        env.append((f"PEER_AGENT_{env_name(name)}_CARD_URL", card))
    return env


def agent_children(
    agent: Agent,
    model: str,
    settings: Settings,
    *,
    routes: bool,
    short_path: bool = True,
    remotes: Mapping[str, str] | None = None,
) -> list[Manifest]:
    """Everything that an Agent needs in order to run.

    Args:
        agent: the resource.
        model: the model that it asks for.
        settings: of the controller.
        routes: whether the cluster has the Gateway API.
        short_path: whether `/<name>` is this agent's to have.
        remotes: the URLs of those of its servers that run elsewhere.
    """
    spec, remotes = agent.spec, remotes or {}
    # A MODEL_NAME of the user's is already in `model`, in the spelling of the ModelAPI.
    user = [v for v in spec.config.env if v.name != "MODEL_NAME" or v.value_from]
    source = spec.config.instructions_from
    from_keys = {"AGENT_INSTRUCTIONS": source} if source else {}
    exposed = spec.agent_network.expose
    egress = to_declared(agent)
    for remote in remotes.values():
        egress += to_url(remote, settings.cluster_domain)
    children = [
        *network_policy(agent, settings, port=HTTP_PORT, egress=egress, routed=exposed),
        deployment(
            agent,
            [
                container(
                    "agent",
                    settings.image,
                    (),
                    command=COMMAND,
                    env=variables(environment(agent, model, settings, remotes), user, from_keys),
                    resources=spec.resources.manifest(),
                )
            ],
            pod_labels=uses_labels(agent),
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
