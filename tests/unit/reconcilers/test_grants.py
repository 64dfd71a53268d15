"""References into another namespace are followed only where a ReferenceGrant allows them."""

from typing import Any

import pytest

from kaos import api
from kaos.api import InvalidSpecError
from kaos.reconcilers.children.agent import agent_children
from kaos.reconcilers.settings import Settings
from kaos.runtime import DEPLOYMENT, NETWORK_POLICY, Object
from tests.unit.reconcilers.harness import ECHO, HOSTED, Cluster, ready, says
from tests.unit.reconcilers.resources import agent, by_kind, env_of, foreign_kind

GROUP = "gateway.networking.k8s.io"
GRANT_CRD = foreign_kind(GROUP, "v1beta1", "ReferenceGrant")


def grant(kind: str = "ModelAPI", namespace: str = "default") -> dict[str, Any]:
    return {
        "apiVersion": f"{GROUP}/v1beta1",
        "kind": "ReferenceGrant",
        "metadata": {"name": f"{kind}-{namespace}".lower(), "namespace": "ai"},
        "spec": {
            "from": [{"group": "kaos.tools", "kind": "Agent", "namespace": namespace}],
            "to": [{"group": "kaos.tools", "kind": kind}],
        },
    }


async def foreign_model(cluster: Cluster) -> None:
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ai"}}
    await cluster.client.create(namespace)
    await cluster.apply("ModelAPI", "ollama", HOSTED, "ai")
    await cluster.roll_out("modelapi-ollama", namespace="ai")
    await cluster.eventually(api.ModelAPI, "ollama", ready, namespace="ai")


def test_addresses_and_policies_lead_into_the_other_namespace() -> None:
    one = agent(
        modelAPI="ai/ollama", mcpServers=["ai/tools"], agentNetwork={"access": ["near", "ai/far"]}
    )
    children = by_kind(agent_children(one, "m", Settings(), routes=False))
    env = env_of(children["Deployment"])

    assert env["MODEL_API_URL"] == "http://modelapi-ollama.ai.svc.cluster.local:8000"
    assert env["MCP_SERVERS"] == "tools"
    assert env["MCP_SERVER_TOOLS_URL"] == "http://mcpserver-tools.ai.svc.cluster.local:8000/mcp"
    assert env["PEER_AGENTS"] == "near,far"
    assert env["PEER_AGENT_FAR_CARD_URL"] == "http://far.ai.svc.cluster.local"
    there = {"matchLabels": {"kubernetes.io/metadata.name": "ai"}}
    peers = children["NetworkPolicy"]["spec"]["egress"][1]["to"]
    assert [peer.get("namespaceSelector") for peer in peers] == [there, there, None, there]
    labels = children["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert labels["modelapi.uses.kaos.tools/ollama"] == "ai"


def test_two_of_one_name_are_refused_as_the_agent_could_not_tell_them_apart() -> None:
    with pytest.raises(InvalidSpecError, match='mcpServers: two are named "tools"'):
        agent(mcpServers=["tools", "ai/tools"])


async def test_without_the_gateway_api_nothing_is_permitted_and_nothing_told(
    cluster: Cluster,
) -> None:
    await foreign_model(cluster)
    await cluster.apply("Agent", "one", {"modelAPI": "ai/ollama"})

    found = await cluster.eventually(api.Agent, "one", says("Accepted", "RefNotPermitted"))

    assert found.status["message"].startswith("ModelAPI ai/ollama cannot be used from here")
    assert found.status["model"] == ""  # not even what it serves


async def test_a_grant_opens_the_way_and_its_end_closes_it(cluster: Cluster) -> None:
    await cluster.client.apply(GRANT_CRD)
    await foreign_model(cluster)
    await cluster.apply("Agent", "one", {"modelAPI": "ai/ollama"})
    await cluster.eventually(api.Agent, "one", says("Accepted", "RefNotPermitted"))

    await cluster.granted(grant("MCPServer"))  # not of this kind
    await cluster.granted(grant(namespace="other"))  # not from here
    await cluster.granted(grant())

    await cluster.roll_out("one")
    await cluster.eventually(api.Agent, "one", ready)

    def lets_in(policy: Object) -> bool:
        (rule,) = policy.spec["ingress"]
        return any(
            peer.get("podSelector", {}).get("matchLabels")
            == {"modelapi.uses.kaos.tools/ollama": "ai"}
            and peer.get("namespaceSelector", {}).get("matchLabels")
            == {"kubernetes.io/metadata.name": "default"}
            for peer in rule["from"]
        )

    await cluster.eventually(NETWORK_POLICY, "modelapi-ollama", lets_in, namespace="ai")

    await cluster.client.delete(await cluster.granted(grant()), "modelapi-default", "ai")

    await cluster.eventually(api.Agent, "one", says("Accepted", "RefNotPermitted"))
    await cluster.eventually(
        NETWORK_POLICY, "modelapi-ollama", lambda p: not lets_in(p), namespace="ai"
    )


async def test_a_missing_server_elsewhere_is_named_with_its_namespace(cluster: Cluster) -> None:
    await cluster.client.apply(GRANT_CRD)
    await cluster.ready_model()
    await foreign_model(cluster)
    await cluster.granted(grant("MCPServer"))
    await cluster.apply("Agent", "one", {"modelAPI": "ollama", "mcpServers": ["ai/tools"]})
    found = await cluster.eventually(
        api.Agent, "one", says("DependenciesReady", "DependencyMissing")
    )
    assert found.status["message"] == 'MCPServer "ai/tools" does not exist'

    await cluster.apply("MCPServer", "tools", ECHO, "ai")
    await cluster.roll_out("mcpserver-tools", namespace="ai")
    await cluster.roll_out("one")
    await cluster.eventually(api.Agent, "one", ready)
    await cluster.eventually(DEPLOYMENT, "mcpserver-tools", lambda _: True, namespace="ai")
