"""Whom pods may reach follows from what specs declare, and the user has the last word."""

from dataclasses import replace
from typing import Any

import pytest

from kaos.api import Agent, MCPServer, ModelAPI
from kaos.reconcilers.children.agent import agent_children
from kaos.reconcilers.children.mcpserver import mcpserver_children
from kaos.reconcilers.children.modelapi import modelapi_children
from kaos.reconcilers.children.network import dns, to_url, uses_label
from kaos.reconcilers.settings import Settings
from kaos.runtime import NETWORK_POLICY
from tests.unit.reconcilers.harness import Cluster
from tests.unit.reconcilers.resources import agent, by_kind, hosted, proxy, server

SETTINGS = Settings(gateway_proxies=("gw",))
GATEWAY = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "gw"}}}


def of_agent(**spec: Any) -> dict[str, dict[str, Any]]:
    return by_kind(agent_children(agent(**spec), "m", SETTINGS, routes=False))


def policy(children: dict[str, dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = children["NetworkPolicy"]["spec"]
    return found


def selected(rule: dict[str, Any]) -> list[tuple[str, str]]:
    labels = [peer["podSelector"]["matchLabels"] for peer in rule["to"]]
    return [(label["kaos.tools/kind"], label["kaos.tools/name"]) for label in labels]


GRAPH: dict[str, Any] = {"mcpServers": ["tools"], "agentNetwork": {"access": ["peer"]}}


def test_an_agent_reaches_what_it_declares_and_dns_and_nothing_else() -> None:
    found = policy(of_agent(**GRAPH))
    names, graph = found["egress"]

    assert found["policyTypes"] == ["Ingress", "Egress"]
    assert names == dns()
    assert selected(graph) == [("modelapi", "ollama"), ("mcpserver", "tools"), ("agent", "peer")]


def test_the_other_side_lets_in_exactly_those_pods_that_declare_it() -> None:
    """The two halves meet: the label that one asks for is the one that the other's pods have."""
    labels = of_agent(**GRAPH)["Deployment"]["spec"]["template"]["metadata"]["labels"]
    api = policy(by_kind(modelapi_children(hosted(), SETTINGS, routes=False)))
    peer = policy(
        by_kind(agent_children(agent("peer"), "m", SETTINGS, routes=False)),
    )
    for one, port in ((api, 11434), (peer, 8000)):
        (rule,) = one["ingress"]
        users, gateway = rule["from"]
        assert users["podSelector"]["matchLabels"].items() <= labels.items()
        assert gateway == GATEWAY
        assert rule["ports"] == [{"protocol": "TCP", "port": port}]
    assert uses_label(Agent, "stranger") not in labels
    assert uses_label(MCPServer, "tools") in labels
    assert uses_label(ModelAPI, "ollama") in labels


def test_an_agent_that_is_not_exposed_is_not_reached_by_the_gateway() -> None:
    (rule,) = policy(of_agent(agentNetwork={"expose": False}))["ingress"]
    assert GATEWAY not in rule["from"]


@pytest.mark.parametrize(
    ("url", "rules"),
    [
        ("http://scripted:8000/v1", [{"to": [{"podSelector": {}}]}]),
        (
            "http://ollama.ai.svc.cluster.local/v1",
            [
                {
                    "to": [
                        {
                            "namespaceSelector": {
                                "matchLabels": {"kubernetes.io/metadata.name": "ai"}
                            }
                        }
                    ]
                }
            ],
        ),
        (
            "http://ollama-0.ollama.ai.svc.cluster.local/v1",
            [
                {
                    "to": [
                        {
                            "namespaceSelector": {
                                "matchLabels": {"kubernetes.io/metadata.name": "ai"}
                            }
                        }
                    ]
                }
            ],
        ),
        ("https://api.up.test/v1", [{"ports": [{"protocol": "TCP", "port": 443}]}]),
        (
            "http://10.1.2.3:11434",
            [
                {
                    "to": [{"ipBlock": {"cidr": "10.1.2.3/32"}}],
                    "ports": [{"protocol": "TCP", "port": 11434}],
                }
            ],
        ),
        (
            "http://[fd00::1]/v1",
            [
                {
                    "to": [{"ipBlock": {"cidr": "fd00::1/128"}}],
                    "ports": [{"protocol": "TCP", "port": 80}],
                }
            ],
        ),
    ],
)
def test_an_upstream_is_let_through_as_narrowly_as_its_url_allows(
    url: str, rules: list[dict[str, Any]]
) -> None:
    assert to_url(url, "cluster.local") == rules
    children = by_kind(modelapi_children(proxy("m", apiBase=url), SETTINGS, routes=False))
    assert policy(children)["egress"] == [dns(), *rules]


def test_tools_reach_the_public_and_neither_the_cluster_nor_cloud_metadata() -> None:
    def blocks(settings: Settings) -> dict[str, set[str]]:
        children = by_kind(mcpserver_children(server(mcp="x"), settings, routes=False))
        _, public = policy(children)["egress"]
        return {p["ipBlock"]["cidr"]: set(p["ipBlock"]["except"]) for p in public["to"]}

    only_v4 = blocks(SETTINGS)
    assert set(only_v4) == {"0.0.0.0/0"}, "a family that pods lack makes some plugins refuse all"
    assert {"10.0.0.0/8", "169.254.0.0/16"} <= only_v4["0.0.0.0/0"]
    both = blocks(replace(SETTINGS, ipv6=True))
    assert set(both) == {"0.0.0.0/0", "::/0"}
    assert {"fc00::/7", "64:ff9b::/96"} <= both["::/0"], "NAT64 leads to 10.0.0.0/8 as well"


@pytest.mark.parametrize(("type_", "port"), [("redis", 6379), ("postgres", 5432)])
def test_sessions_whose_address_is_in_a_secret_are_reached(type_: str, port: int) -> None:
    """The policy closed the way to the store that the spec names, and every session was a 503."""
    source = {"secretKeyRef": {"name": "sessions", "key": "url"}}
    memory = {"type": type_, "urlFrom": source}
    rules = policy(of_agent(config={"memory": memory}))["egress"]
    assert {"ports": [{"protocol": "TCP", "port": port}]} in rules


def test_a_pod_with_a_token_may_reach_the_api_server() -> None:
    rules = policy(of_agent(serviceAccountName="reader"))["egress"]
    assert rules[-1] == {"ports": [{"protocol": "TCP", "port": p} for p in (443, 6443)]}


def test_the_user_adds_rules_or_turns_the_policy_off() -> None:
    rule = {"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}
    found = policy(of_agent(network={"egress": [rule], "ingress": [{"from": []}]}))
    assert found["egress"][-1] == rule
    assert found["ingress"][-1] == {"from": []}
    assert "NetworkPolicy" not in of_agent(network={"policy": "none"})


def test_a_pod_of_a_headless_service_is_in_the_last_namespace_of_its_name() -> None:
    """The way to redis-0.redis.data.svc led into a namespace named redis."""
    inside = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "data"}}}
    for host in ("redis-0.redis.data.svc", "redis.data.svc.cluster.local", "redis.data.svc."):
        assert to_url(f"redis://{host}:6379", "cluster.local") == [{"to": [inside]}]


async def test_a_policy_that_is_turned_off_goes_away(cluster: Cluster) -> None:
    await cluster.ready_model()
    await cluster.apply("Agent", "one", {"modelAPI": "ollama"})
    await cluster.eventually(NETWORK_POLICY, "one", lambda _: True)
    await cluster.apply("Agent", "one", {"modelAPI": "ollama", "network": {"policy": "none"}})
    await cluster.gone(NETWORK_POLICY, "one")


def test_the_controllers_own_pod_may_ask_a_tool_server_and_nobody_else() -> None:
    labels = {"app.kubernetes.io/name": "kaos-controller"}
    settings = replace(SETTINGS, own_labels=labels)
    (rule,) = policy(by_kind(mcpserver_children(server(mcp="x"), settings, routes=False)))[
        "ingress"
    ]
    assert rule["from"][-1] == {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kaos-system"}},
        "podSelector": {"matchLabels": labels},
    }
    for children in (
        agent_children(agent(), "m", settings, routes=False),
        modelapi_children(hosted(), settings, routes=False),
    ):
        assert "kaos-controller" not in str(policy(by_kind(children))["ingress"])
    (outside,) = policy(by_kind(mcpserver_children(server(mcp="x"), SETTINGS, routes=False)))[
        "ingress"
    ]
    assert outside["from"] == rule["from"][:-1]
