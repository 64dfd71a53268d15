"""The environment of an agent's container: the one way in which its spec reaches the process."""

import json
from collections.abc import Mapping

from kaos.api import Agent, CustomResource, MCPServer, Memory, ModelAPI, ToolCallMode, ToolChoice
from kaos.reconcilers.children.names import HTTP_PORT, env_name, ref, service_name
from kaos.reconcilers.children.telemetry import telemetry_env
from kaos.reconcilers.children.workload import literal
from kaos.reconcilers.settings import Settings

SERVICE_PORT = 80
DEPENDENCY_WAIT = 30
"""Seconds for which a new pod waits for its MCP servers; then it is ready without them."""
SESSIONS = "/sessions"
"""Where the volume of an agent's sessions is mounted."""


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
    mode = spec.config.tool_call_mode
    if mode is not ToolCallMode.AUTO:
        env.append(("AGENT_TOOL_CALL_MODE", str(mode)))
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
    for choice in spec.tools:
        variable = f"MCP_SERVER_{env_name(ref(choice.server, namespace).name)}_TOOLS"
        env.append((variable, literal(chosen_tools(choice))))
    peers = spec.agent_network.access
    if peers:
        env.append(("PEER_AGENTS", ",".join(ref(text, namespace).name for text in peers)))
    for text in peers:
        variable = f"PEER_AGENT_{env_name(ref(text, namespace).name)}_CARD_URL"
        env.append((variable, url(Agent, text, SERVICE_PORT)))
    return [
        *env,
        *memory_environment(spec.config.memory),
        *telemetry_env(agent, spec.config.telemetry),
    ]


def chosen_tools(choice: ToolChoice) -> str:
    """Which tools of a server the agent has, as it reads it: names to names, `*` for all others."""
    others = {} if choice.allow else {"*": True}
    return json.dumps({**others, **dict.fromkeys(choice.allow, True), **choice.rename})


def memory_environment(memory: Memory) -> list[tuple[str, str]]:
    """The variables that say what an agent remembers; nothing for what is as it always was."""
    if not memory.enabled:
        return [("MEMORY_ENABLED", "false")]
    url = f"{SESSIONS}/sessions.db" if memory.storage is not None else memory.url
    found = {
        "MEMORY_TYPE": str(memory.type) if memory.type != "local" else None,
        "MEMORY_URL": None if url is None else literal(url),
        "MEMORY_CONTEXT_LIMIT": memory.context_limit,
        "MEMORY_MAX_SESSIONS": memory.max_sessions,
        "MEMORY_MAX_SESSION_EVENTS": memory.max_session_events,
        "MEMORY_TTL": memory.ttl_seconds,
    }
    return [(name, str(value)) for name, value in found.items() if value is not None]
