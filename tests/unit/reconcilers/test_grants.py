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


def grant(cluster: Cluster, kind: str = "ModelAPI", to: str = "") -> dict[str, Any]:
    """A grant of the other namespace to Agents of the test's, or of a third one."""
    guests = {"group": "kaos.tools", "kind": "Agent", "namespace": to or cluster.namespace}
    return {
        "apiVersion": f"{GROUP}/v1beta1",
        "kind": "ReferenceGrant",
        "metadata": {"name": f"{kind}{to}".lower(), "namespace": cluster.elsewhere},
        "spec": {
            "from": [guests],
            "to": [{"group": "kaos.tools", "kind": kind}],
        },
    }


async def foreign_model(cluster: Cluster) -> None:
    there = cluster.elsewhere
    await cluster.apply("ModelAPI", "ollama", HOSTED, there)
    await cluster.roll_out("modelapi-ollama", namespace=there)
    await cluster.eventually(api.ModelAPI, "ollama", ready, namespace=there)


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
    await cluster.apply("Agent", "one", {"modelAPI": f"{cluster.elsewhere}/ollama"})

    found = await cluster.eventually(api.Agent, "one", says("Accepted", "RefNotPermitted"))

    words = f"ModelAPI {cluster.elsewhere}/ollama cannot be used from here"
    assert found.status["message"].startswith(words)
    assert found.status["model"] == ""  # not even what it serves


async def test_what_is_missing_here_is_told_beside_what_is_not_permitted(cluster: Cluster) -> None:
    """DependenciesReady was True of an agent whose own ModelAPI did not exist."""
    access = {"access": [f"{cluster.elsewhere}/peer"]}
    await cluster.apply("Agent", "one", {"modelAPI": "nowhere", "agentNetwork": access})
    found = await cluster.eventually(api.Agent, "one", says("Accepted", "RefNotPermitted"))
    (needs,) = [c for c in found.status["conditions"] if c["type"] == "DependenciesReady"]
    assert needs["reason"] == "DependencyMissing"
    assert needs["message"] == 'ModelAPI "nowhere" does not exist', "nothing of what is elsewhere"


async def test_a_grant_opens_the_way_and_its_end_closes_it(cluster: Cluster) -> None:
    await cluster.install(GRANT_CRD)
    await foreign_model(cluster)
    await cluster.apply("Agent", "one", {"modelAPI": f"{cluster.elsewhere}/ollama"})
    await cluster.eventually(api.Agent, "one", says("Accepted", "RefNotPermitted"))

    await cluster.granted(grant(cluster, "MCPServer"))  # not of this kind
    await cluster.granted(grant(cluster, to="other"))  # not from here
    given = await cluster.granted(grant(cluster))

    await cluster.roll_out("one")
    await cluster.eventually(api.Agent, "one", ready)

    def lets_in(policy: Object) -> bool:
        (rule,) = policy.spec["ingress"]
        return any(
            peer.get("podSelector", {}).get("matchLabels")
            == {"modelapi.uses.kaos.tools/ollama": cluster.elsewhere}
            and peer.get("namespaceSelector", {}).get("matchLabels")
            == {"kubernetes.io/metadata.name": cluster.namespace}
            for peer in rule["from"]
        )

    there = cluster.elsewhere
    await cluster.eventually(NETWORK_POLICY, "modelapi-ollama", lets_in, namespace=there)

    await cluster.client.delete(given, given.name, there)

    await cluster.eventually(api.Agent, "one", says("Accepted", "RefNotPermitted"))
    await cluster.eventually(
        NETWORK_POLICY, "modelapi-ollama", lambda p: not lets_in(p), namespace=there
    )


async def test_a_missing_server_elsewhere_is_named_with_its_namespace(cluster: Cluster) -> None:
    await cluster.install(GRANT_CRD)
    await cluster.ready_model()
    await foreign_model(cluster)
    there = cluster.elsewhere
    await cluster.granted(grant(cluster, "MCPServer"))
    await cluster.apply("Agent", "one", {"modelAPI": "ollama", "mcpServers": [f"{there}/tools"]})
    found = await cluster.eventually(
        api.Agent, "one", says("DependenciesReady", "DependencyMissing")
    )
    assert found.status["message"] == f'MCPServer "{there}/tools" does not exist'

    await cluster.apply("MCPServer", "tools", ECHO, there)
    await cluster.roll_out("mcpserver-tools", namespace=there)
    await cluster.roll_out("one")
    await cluster.eventually(api.Agent, "one", ready)
    await cluster.eventually(DEPLOYMENT, "mcpserver-tools", lambda _: True, namespace=there)


async def test_an_agent_that_names_two_things_of_another_namespace_ends_nobody(
    cluster: Cluster,
) -> None:
    """When it was deleted, the controller died, and again each time that such a one was."""
    there = cluster.elsewhere
    spec = {"modelAPI": f"{there}/ollama", "mcpServers": [f"{there}/tools"]}
    await cluster.apply("Agent", "one", spec)
    await cluster.eventually(api.Agent, "one", says("Accepted", "RefNotPermitted"))
    await cluster.delete(api.Agent, "one")
    await cluster.gone(api.Agent, "one")
    await cluster.ready_model()  # which somebody must see to
