"""An Agent's children: Deployment, Service and HTTPRoute.

The addresses of its ModelAPI, servers and peers follow from their names alone, so nothing here
depends on what exists yet: a peer that comes later needs no new pod. Only a remote server has an
address of its own; an agent that was there before it gets a new pod.
"""

from collections.abc import Mapping, Sequence

from kaos.api import Agent, CustomResource, MCPServer, ModelAPI
from kaos.reconcilers.children.names import HTTP_PORT, env_name, ref, service_name
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

    def url(model: type[CustomResource], text: str, port: int) -> str:
        target = ref(text, namespace)
        return settings.service_url(service_name(model, target.name), target.namespace, port)

    env = [
        ("AGENT_NAME", agent.name),
        ("KAOS_POD_NAMESPACE", namespace),
        ("AGENT_DESCRIPTION", literal(spec.config.description)),
        ("AGENT_INSTRUCTIONS", literal(spec.config.instructions)),
        ("MODEL_API_URL", url(ModelAPI, spec.model_api, HTTP_PORT)),
        ("MODEL_NAME", literal(model)),
        *settings.serving(HTTP_PORT),
    ]
    if spec.config.reasoning_loop_max_steps is not None:
        env.append(("AGENTIC_LOOP_MAX_STEPS", str(spec.config.reasoning_loop_max_steps)))
    if spec.wait_for_dependencies:
        env.append(("KAOS_DEPENDENCY_WAIT", str(DEPENDENCY_WAIT)))
    if spec.mcp_servers:
        names = [ref(text, namespace).name for text in spec.mcp_servers]
        env.append(("MCP_SERVERS", ",".join(names)))
    for text in spec.mcp_servers:
        here = url(MCPServer, text, HTTP_PORT) + "/mcp"
        variable = f"MCP_SERVER_{env_name(ref(text, namespace).name)}_URL"
        env.append((variable, literal(remotes.get(text, here))))
    peers = spec.agent_network.access
    if peers:
        env.append(("PEER_AGENTS", ",".join(ref(text, namespace).name for text in peers)))
    for text in peers:
        variable = f"PEER_AGENT_{env_name(ref(text, namespace).name)}_CARD_URL"
        env.append((variable, url(Agent, text, SERVICE_PORT)))
    return env


def agent_children(
    agent: Agent,
    model: str,
    settings: Settings,
    *,
    routes: bool,
    short_path: bool = True,
    remotes: Mapping[str, str] | None = None,
    guests: Sequence[str] = (),
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
