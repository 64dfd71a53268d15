"""What the builders make of a resource: names, labels, environment, addresses, security."""

import json
from dataclasses import replace
from typing import Any

import pytest

from kaos.api import InvalidSpecError, MCPServer, ModelAPI
from kaos.reconcilers.children.agent import agent_children
from kaos.reconcilers.children.mcpserver import mcpserver_children
from kaos.reconcilers.children.modelapi import modelapi_children
from kaos.reconcilers.settings import Settings
from kaos.telemetry import serving
from tests.unit.reconcilers.resources import agent, body, by_kind, env_of, hosted, proxy, server

SETTINGS = Settings(image="kaos/kaos:test", ollama_image="ollama:test", cluster_domain="corp.test")


def all_children() -> list[dict[str, Any]]:
    return [
        *agent_children(agent(), "m", SETTINGS, routes=True),
        *modelapi_children(hosted(storage="1Gi"), SETTINGS, routes=True),
        *modelapi_children(proxy("m", apiBase="http://up/v1"), SETTINGS, routes=True),
        *mcpserver_children(server(mcp="test-mcp-echo-server"), SETTINGS, routes=True),
    ]


def pods() -> list[dict[str, Any]]:
    return [c["spec"]["template"] for c in all_children() if c["kind"] == "Deployment"]


def test_the_agents_names_are_the_contracts() -> None:
    children = by_kind(agent_children(agent(), "m", SETTINGS, routes=True))

    assert {child["metadata"]["name"] for child in children.values()} == {"assistant"}
    ports = children["Service"]["spec"]["ports"]
    assert [(p["name"], p["port"], p["targetPort"]) for p in ports] == [
        ("http", 80, "http"),
        ("http-8000", 8000, "http"),
    ]
    labels = children["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert labels["app"] == "assistant"
    assert children["Deployment"]["spec"]["selector"]["matchLabels"] == {
        "kaos.tools/kind": "agent",
        "kaos.tools/name": "assistant",
    }


def test_an_agents_environment_follows_from_names_alone() -> None:
    one = agent(
        mcpServers=["echo-tools"],
        agentNetwork={"access": ["other-agent"]},
        config={"description": "d", "instructions": "i", "reasoningLoopMaxSteps": 3},
    )
    env = env_of(by_kind(agent_children(one, "m", SETTINGS, routes=False))["Deployment"])

    assert env == {
        "AGENT_NAME": "assistant",
        "KAOS_POD_NAMESPACE": "default",
        "AGENT_DESCRIPTION": "d",
        "AGENT_INSTRUCTIONS": "i",
        "AGENTIC_LOOP_MAX_STEPS": "3",
        "KAOS_LISTEN": "0.0.0.0:8000",
        "KAOS_DRAIN": "5",
        "KAOS_DEPENDENCY_WAIT": "30",
        "MODEL_API_URL": "http://modelapi-ollama.default.svc.corp.test:8000",
        "MODEL_NAME": "m",
        "MCP_SERVERS": "echo-tools",
        "MCP_SERVER_ECHO_TOOLS_URL": "http://mcpserver-echo-tools.default.svc.corp.test:8000/mcp",
        "PEER_AGENTS": "other-agent",
        "PEER_AGENT_OTHER_AGENT_CARD_URL": "http://other-agent.default.svc.corp.test",
    }


def test_the_users_environment_wins_and_the_model_keeps_the_apis_spelling() -> None:
    env = [
        {"name": "MODEL_NAME", "value": "ollama/smollm2:135m"},
        {"name": "AGENT_DESCRIPTION", "value": "mine"},
    ]
    children = agent_children(agent(config={"env": env}), "smollm2:135m", SETTINGS, routes=False)
    found = env_of(by_kind(children)["Deployment"])

    assert found["MODEL_NAME"] == "smollm2:135m"
    assert found["AGENT_DESCRIPTION"] == "mine"


def test_w13_a_dollar_in_a_text_is_not_expanded_by_kubernetes() -> None:
    one = agent(config={"instructions": "say $(SECRET) or $$5"})
    env = env_of(by_kind(agent_children(one, "m", SETTINGS, routes=False))["Deployment"])
    assert env["AGENT_INSTRUCTIONS"] == "say $$(SECRET) or $$$$5"

    tools = by_kind(
        mcpserver_children(server(tools={"fromString": "$(X)"}), SETTINGS, routes=False)
    )
    assert env_of(tools["Deployment"])["MCP_TOOLS_STRING"] == "$$(X)"


def test_an_agent_that_is_not_exposed_has_neither_service_nor_route() -> None:
    one = agent(agentNetwork={"expose": False})
    kinds = set(by_kind(agent_children(one, "m", SETTINGS, routes=True)))
    assert kinds == {"Deployment", "NetworkPolicy"}


def test_routes_lead_both_paths_to_the_service_and_keep_the_timeout() -> None:
    one = agent(gatewayRoute={"timeout": "120s"})
    route = by_kind(agent_children(one, "m", SETTINGS, routes=True))["HTTPRoute"]

    rules = route["spec"]["rules"]
    prefixes = [rule["matches"][0]["path"]["value"] for rule in rules]
    assert prefixes == ["/assistant", "/default/agent/assistant"]
    assert {rule["timeouts"]["request"] for rule in rules} == {"120s"}
    assert {rule["backendRefs"][0]["name"] for rule in rules} == {"assistant"}
    assert route["spec"]["parentRefs"] == [{"name": "kaos-gateway", "namespace": "kaos-gateway"}]


def test_a_route_without_a_timeout_says_that_there_is_none() -> None:
    """Envoy, left to itself, ended every answer after 15 seconds, streams in their middle."""
    children = [
        *agent_children(agent(), "m", SETTINGS, routes=True),
        *modelapi_children(hosted(), SETTINGS, routes=True),
    ]
    routes = [child for child in children if child["kind"] == "HTTPRoute"]
    rules = [rule for route in routes for rule in route["spec"]["rules"]]
    assert [rule["timeouts"] for rule in rules] == [{"request": "0s"}] * 3


def test_an_agent_whose_short_path_is_taken_keeps_the_long_one() -> None:
    children = agent_children(agent(), "m", SETTINGS, routes=True, short_path=False)
    rules = by_kind(children)["HTTPRoute"]["spec"]["rules"]
    assert [r["matches"][0]["path"]["value"] for r in rules] == ["/default/agent/assistant"]


def test_a_hosted_model_is_pulled_by_arguments_and_never_by_a_shell() -> None:
    children = by_kind(
        modelapi_children(hosted(model="ollama/smollm2:135m"), SETTINGS, routes=False)
    )
    ollama, puller = children["Deployment"]["spec"]["template"]["spec"]["containers"]

    assert (ollama["image"], ollama["args"]) == ("ollama:test", ["serve"])
    assert puller["command"] == ["python", "-m", "kaos.modelapi"]
    assert puller["args"][:3] == ["pull", "--model", "smollm2:135m"]
    assert children["Service"]["spec"]["ports"][0]["port"] == 8000
    assert children["Service"]["spec"]["ports"][0]["targetPort"] == "http"
    assert ollama["ports"][0] == {"name": "http", "containerPort": 11434, "protocol": "TCP"}


def test_w14_storage_keeps_the_model_over_restarts() -> None:
    children = by_kind(modelapi_children(hosted(storage="2Gi"), SETTINGS, routes=False))
    claim = children["PersistentVolumeClaim"]
    pod = children["Deployment"]["spec"]

    assert claim["spec"]["resources"]["requests"]["storage"] == "2Gi"
    assert pod["template"]["spec"]["volumes"][0]["persistentVolumeClaim"] == {
        "claimName": claim["metadata"]["name"]
    }
    assert pod["strategy"] == {"type": "Recreate"}


def test_a_proxys_key_is_read_from_its_secret_and_stands_nowhere_else() -> None:
    ref = {"secretKeyRef": {"name": "s", "key": "k"}}
    api = proxy("a", "b", apiBase="https://up.test/v1", apiKey={"valueFrom": ref})
    children = by_kind(modelapi_children(api, SETTINGS, routes=False))

    assert env_of(children["Deployment"])["PROXY_API_KEY"] == ref
    document = json.loads(children["ConfigMap"]["data"]["config.json"])
    assert document == {
        "models": [
            {"name": name, "api_base": "https://up.test/v1", "api_key_env": "PROXY_API_KEY"}
            for name in ("a", "b")
        ]
    }


def test_w3_a_change_of_the_proxys_configuration_rolls_its_pod() -> None:
    def digest(*models: str) -> str:
        api = proxy(*models, apiBase="http://up/v1")
        template = by_kind(modelapi_children(api, SETTINGS, routes=False))["Deployment"]["spec"]
        found: str = template["template"]["metadata"]["annotations"]["kaos.tools/config-hash"]
        return found

    assert digest("a") == digest("a") != digest("a", "b")


@pytest.mark.parametrize("template", pods())
def test_pods_meet_the_restricted_security_level(template: dict[str, Any]) -> None:
    spec = template["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in spec["containers"]:
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["requests"]["memory"]
        assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container)


@pytest.mark.parametrize(
    "child", all_children(), ids=lambda c: f"{c['kind']}-{c['metadata']['name']}"
)
def test_every_child_carries_the_labels(child: dict[str, Any]) -> None:
    labels = child["metadata"]["labels"]
    assert labels["app.kubernetes.io/part-of"] == "kaos"
    assert labels["app"] == labels["app.kubernetes.io/instance"] == labels["kaos.tools/name"]


def test_a_probe_port_is_a_port_of_its_container() -> None:
    for template in pods():
        for container in template["spec"]["containers"]:
            names = {port["name"] for port in container["ports"]}
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                assert container[probe]["httpGet"]["port"] in names


def test_every_server_goes_on_until_nobody_sends_it_requests_any_more() -> None:
    custom = {"type": "custom", "container": {"image": "corp/tools:1"}}
    theirs = MCPServer.parse(body("MCPServer", "theirs", custom))
    made = [*all_children(), *mcpserver_children(theirs, SETTINGS, routes=False)]
    for child in (c for c in made if c["kind"] == "Deployment"):
        pod = child["spec"]["template"]["spec"]
        main = pod["containers"][0]
        sleep = main.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds")
        drains_itself = {"name": "KAOS_DRAIN", "value": str(SETTINGS.drain)} in main["env"]
        name = child["metadata"]["name"]
        assert drains_itself or sleep == SETTINGS.drain, name
        assert sleep is None or not main["image"].startswith("kaos/"), name
        assert pod["terminationGracePeriodSeconds"] > SETTINGS.drain + serving.GRACE, name


def test_a_long_drain_is_not_cut_off_by_the_kubelet() -> None:
    """A drain of 30 s killed streams, one of 40 had every Deployment with a sleep refused."""
    settings = replace(SETTINGS, drain=45)
    for children in (
        agent_children(agent(), "m", settings, routes=False),
        modelapi_children(hosted(), settings, routes=False),
        modelapi_children(proxy("m", apiBase="http://up/v1"), settings, routes=False),
        mcpserver_children(server(mcp="test-mcp-echo-server"), settings, routes=False),
    ):
        pod = by_kind(children)["Deployment"]["spec"]["template"]["spec"]
        assert pod["terminationGracePeriodSeconds"] > settings.drain + serving.GRACE


@pytest.mark.parametrize("text", ["soon", "-1", "2.5"])
def test_a_drain_that_is_no_number_is_told_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="KAOS_DRAIN is"):
        Settings.from_env({"KAOS_DRAIN": text})


def template(api: ModelAPI) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    children = by_kind(modelapi_children(api, SETTINGS, routes=False))
    found: dict[str, Any] = children["Deployment"]["spec"]["template"]
    return found, children


OWN = "models:\n- {name: 'gpt-*', api_base: 'https://api.up.test/v1', api_key_env: KEY}\n"


def test_the_users_own_configuration_is_passed_on_as_it_is() -> None:
    pod, children = template(proxy("gpt-5", configYaml={"fromString": OWN}))

    assert children["ConfigMap"]["data"] == {"config.yaml": OWN}
    assert pod["spec"]["containers"][0]["args"][-1] == "/etc/kaos/config.yaml"
    upstream = {"ports": [{"protocol": "TCP", "port": 443}]}
    assert children["NetworkPolicy"]["spec"]["egress"][1:] == [upstream]


def test_w5_a_configuration_in_a_secret_is_mounted() -> None:
    ref = {"name": "s", "key": "k"}
    pod, children = template(proxy("gpt-5", configYaml={"fromSecretKeyRef": ref}))

    assert pod["spec"]["volumes"][0]["secret"] == {
        "secretName": "s",
        "items": [{"key": "k", "path": "config.yaml"}],
    }
    assert "ConfigMap" not in children


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("models: [", "while parsing"),
        ("- a", "needs a list named model_list"),
        ("model_list: []", 'has no entry for model "gpt-5"'),
        (OWN.replace("gpt-*", "other"), 'has no entry for model "gpt-5" .it has: other'),
    ],
)
def test_a_configuration_that_cannot_be_used_is_refused(text: str, says: str) -> None:
    with pytest.raises(InvalidSpecError, match=says):
        template(proxy("gpt-5", configYaml={"fromString": text}))


def test_w14_a_hosted_model_gets_gpus_and_memory() -> None:
    memory = {"requests": {"memory": "8Gi"}}
    pod, children = template(hosted(gpus=2, resources=memory))
    resources = pod["spec"]["containers"][0]["resources"]
    assert resources == {**memory, "limits": {"nvidia.com/gpu": 2}}
    assert children["Deployment"]["spec"]["strategy"] == {"type": "Recreate"}


def test_gpus_stay_when_the_container_is_given_resources_of_its_own() -> None:
    """They were lost without a word, and the model ran on the processor."""
    one = body("ModelAPI", "o", {"mode": "Hosted", "hostedConfig": {"model": "m", "gpus": 1}})
    one["spec"]["container"] = {"resources": {"limits": {"memory": "16Gi"}}}
    pod, _ = template(ModelAPI.parse(one))
    limits = {"nvidia.com/gpu": 1, "memory": "16Gi"}
    assert pod["spec"]["containers"][0]["resources"] == {"limits": limits}


def test_routes_are_kept_to_the_host_names_that_are_asked_for() -> None:
    one = agent(gatewayRoute={"hostnames": ["chat.example.test"]})
    route = by_kind(agent_children(one, "m", SETTINGS, routes=True))["HTTPRoute"]
    assert route["spec"]["hostnames"] == ["chat.example.test"]
