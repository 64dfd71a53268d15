"""What an agent's config says reaches the process in variables that the process reads."""

from typing import Any

import pytest

from kaos.agent.auth.service_accounts import ACCOUNT_FOLDER
from kaos.agent.settings import Settings as AgentSettings
from kaos.api import InvalidSpecError, MCPServer, ModelAPI
from kaos.reconcilers.children.agent import agent_children
from kaos.reconcilers.children.mcpserver import mcpserver_children
from kaos.reconcilers.children.modelapi import modelapi_children
from kaos.reconcilers.settings import Settings
from kaos.telemetry import tracing
from tests.unit.reconcilers.resources import agent, body, by_kind, env_of


def children(**spec: Any) -> dict[str, dict[str, Any]]:
    return by_kind(agent_children(agent(**spec), "m", Settings(), routes=False))


def read(**spec: Any) -> AgentSettings:
    """The settings that the agent makes of the variables that the controller sets."""
    env = env_of(children(**spec)["Deployment"])
    return AgentSettings.from_env({name: value.replace("$$", "$") for name, value in env.items()})


def test_w11_an_agent_understands_all_that_it_is_told() -> None:
    settings = read(
        mcpServers=["search", "files"],
        tools=[
            {"server": "search", "allow": ["find", "get"], "rename": {"find": "look_up"}},
            {"server": "files", "rename": {"read": "read_file"}},
        ],
        config={
            "toolCallMode": "text",
            "reasoningLoopMaxSteps": 7,
            "memory": {
                "type": "redis",
                "url": "redis://cache:6379/0",
                "contextLimit": 20,
                "maxSessions": 30,
                "maxSessionEvents": 40,
                "ttl": "2h",
            },
        },
    )

    assert settings.mcp_tools == {
        "search": {"find": "look_up", "get": "get"},
        "files": {"*": "*", "read": "read_file"},
    }
    assert (settings.tool_call_mode, settings.max_steps) == ("text", 7)
    assert (settings.memory_type, settings.memory_ttl) == ("redis", 7200)
    assert settings.memory_url.get_secret_value() == "redis://cache:6379/0"
    limits = (settings.memory_context_limit, settings.memory_max_sessions)
    assert (*limits, settings.memory_max_session_events) == (20, 30, 40)
    assert read(config={"memory": {"enabled": False}}).memory_enabled is False


def test_w11_an_agent_understands_whom_it_may_let_in_and_how_it_shows_itself() -> None:
    made = agent_children(
        agent(auth={"tokensSecret": {"name": "t"}}, agentNetwork={"access": ["ops/vault"]}),
        "m",
        Settings(),
        routes=False,
        guarded=["ops/vault"],
    )
    (found,) = (child for child in made if child["kind"] == "Deployment")
    settings = AgentSettings.from_env(env_of(found))
    (main,) = found["spec"]["template"]["spec"]["containers"]
    folders = {mount["name"]: mount["mountPath"] for mount in main["volumeMounts"]}
    assert settings.auth_service_accounts == "jwks"
    assert settings.auth_allow_file == f"{folders['kaos-auth']}/allow"
    assert settings.auth_tokens_file == f"{folders['kaos-auth']}/tokens"
    assert settings.auth_audience == "kaos.tools/agent/default/assistant"
    assert settings.peer_token_files == {"vault": f"{folders['peer-tokens']}/vault"}
    assert folders["api-access"] == str(ACCOUNT_FOLDER)


def test_traces_go_where_the_spec_says_and_are_let_through() -> None:
    found = children(config={"telemetry": {"endpoint": "http://collector.obs.svc:4318"}})
    env = env_of(found["Deployment"])
    assert tracing.wanted(env)
    assert env["OTEL_SERVICE_NAME"] == "assistant"
    there = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "obs"}}}
    assert found["NetworkPolicy"]["spec"]["egress"][-1] == {"to": [there]}
    assert not tracing.wanted(env_of(children()["Deployment"]))


def test_a_gateways_traces_go_where_the_spec_says_and_ollama_has_none() -> None:
    spec = {
        "mode": "Proxy",
        "proxyConfig": {"models": ["*"], "apiBase": "http://llm.ai.svc/v1"},
        "telemetry": {"endpoint": "http://collector.obs.svc:4318"},
    }
    proxy = ModelAPI.parse(body("ModelAPI", "m", spec))
    made = by_kind(modelapi_children(proxy, Settings(), routes=False))
    env = env_of(made["Deployment"])
    assert tracing.wanted(env)
    assert env["OTEL_SERVICE_NAME"] == "m"
    there = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "obs"}}}
    assert {"to": [there]} in made["NetworkPolicy"]["spec"]["egress"]
    spec = {"mode": "Hosted", "hostedConfig": {"model": "m"}, "telemetry": spec["telemetry"]}
    with pytest.raises(InvalidSpecError, match="telemetry is for mode Proxy"):
        ModelAPI.parse(body("ModelAPI", "m", spec))


def test_a_tool_servers_traces_go_where_the_spec_says() -> None:
    spec = {
        "type": "python-runtime",
        "config": {"mcp": "test-mcp-echo-server"},
        "telemetry": {"endpoint": "http://collector.obs.svc:4318"},
    }
    echo = MCPServer.parse(body("MCPServer", "echo", spec))
    made = by_kind(mcpserver_children(echo, Settings(), routes=False))
    assert tracing.wanted(env_of(made["Deployment"]))
    there = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "obs"}}}
    assert {"to": [there]} in made["NetworkPolicy"]["spec"]["egress"]


def test_a_config_that_says_nothing_leaves_the_agents_own_defaults() -> None:
    names = set(env_of(children()["Deployment"]))
    assert not {name for name in names if name.startswith("MEMORY_") or "TOOL" in name}


def test_sessions_in_a_file_have_a_volume_of_their_own() -> None:
    found = children(config={"memory": {"type": "sqlite", "storage": "1Gi"}})
    pod = found["Deployment"]["spec"]["template"]["spec"]

    claim = found["PersistentVolumeClaim"]["metadata"]["name"]
    assert pod["volumes"] == [
        {"name": "sessions", "persistentVolumeClaim": {"claimName": claim}},
    ]
    assert env_of(found["Deployment"])["MEMORY_URL"] == "/sessions/sessions.db"
    assert found["Deployment"]["spec"]["strategy"] == {"type": "Recreate"}


def test_the_session_servers_password_stays_in_its_secret_and_its_address_is_let_through() -> None:
    source = {"secretKeyRef": {"name": "db", "key": "url"}}
    memory = {"type": "postgres", "urlFrom": source}
    found = children(config={"memory": memory})
    assert env_of(found["Deployment"])["MEMORY_URL"] == source

    near = children(config={"memory": {"type": "redis", "url": "redis://10.0.0.9"}})
    assert near["NetworkPolicy"]["spec"]["egress"][-1] == {
        "to": [{"ipBlock": {"cidr": "10.0.0.9/32"}}],
        "ports": [{"protocol": "TCP", "port": 6379}],
    }


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"tools": [{"server": "x"}]}, 'server "x" is not in mcpServers'),
        (
            {"mcpServers": ["x"], "tools": [{"server": "x", "allow": ["a"], "rename": {"b": "c"}}]},
            '"b" is not in allow',
        ),
        ({"config": {"memory": {"type": "redis"}}}, "set exactly one of url and urlFrom"),
        ({"config": {"memory": {"url": "redis://x"}}}, "url is for redis, postgres"),
        ({"config": {"memory": {"type": "sqlite"}}}, "storage and type sqlite belong together"),
        (
            {"config": {"memory": {"type": "redis", "url": "postgres://x"}}},
            "url must begin with redis",
        ),
        ({"config": {"memory": {"ttl": "0s"}}}, "spec.config.memory.ttl"),  # no pod started with it
        (
            {"replicas": 2, "config": {"memory": {"type": "sqlite", "storage": "1Gi"}}},
            "several replicas cannot share",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(spec: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidSpecError, match=says):
        agent(**spec)
