"""A Secret or ConfigMap that changes rolls the pods that read it, and its data is not read."""

import base64
from typing import Any

import pytest

from kaos import api
from kaos.reconcilers.children.agent import agent_children
from kaos.reconcilers.references import ANNOTATION, Reference, references
from kaos.reconcilers.settings import Settings
from kaos.runtime import CONFIG_MAP, DEPLOYMENT, SECRET, Object
from tests.unit.reconcilers.harness import Cluster, lacks, ready, says
from tests.unit.reconcilers.resources import agent, by_kind, env_of

SECRET_KEY = {"secretKeyRef": {"name": "s", "key": "k"}}


def test_references_are_found_wherever_a_pod_can_have_them() -> None:
    pod = {
        "initContainers": [{"envFrom": [{"secretRef": {"name": "all"}}]}],
        "containers": [
            {
                "env": [
                    {"name": "A", "valueFrom": SECRET_KEY},
                    {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "x"}}},
                    {"name": "C", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                ]
            },
            {"envFrom": [{"configMapRef": {"name": "m", "optional": True}}]},
        ],
        "volumes": [
            {"name": "1", "secret": {"secretName": "vs"}},
            {"name": "2", "configMap": {"name": "vc"}},
            {"name": "3", "projected": {"sources": [{"secret": {"name": "ps"}}]}},
            {"name": "4", "emptyDir": {}},
        ],
    }
    assert references(pod) == [
        Reference("ConfigMap", "c", "x"),
        Reference("ConfigMap", "m", "", True),
        Reference("ConfigMap", "vc"),
        Reference("Secret", "all"),
        Reference("Secret", "ps"),
        Reference("Secret", "s", "k"),
        Reference("Secret", "vs"),
    ]


def test_a_volume_that_a_user_names_auth_is_not_taken_for_one_that_is_read_again() -> None:
    """Its Secret rolled nothing when it changed."""
    volume = {"name": "auth", "secret": {"secretName": "creds"}}
    assert references({"volumes": [volume]}) == [Reference("Secret", "creds")]
    one = agent(auth={"tokensSecret": {"name": "callers", "key": "list"}})
    pod = by_kind(agent_children(one, "m", Settings(), routes=False))["Deployment"]["spec"]
    (callers,) = [r for r in references(pod["template"]["spec"]) if r.name == "callers"]
    assert callers.live


@pytest.mark.parametrize(
    "patch",
    [
        {"volumes": [{"name": "v", "secret": "creds"}]},
        {"volumes": [{"name": "v", "projected": {"sources": "creds"}}]},
        {"volumes": [{"name": "v", "configMap": {"name": ["c"]}}]},
        {"initContainers": [{"name": "i", "env": {"A": "1"}}]},
        {"containers": [{"name": "agent", "envFrom": ["creds"]}]},
        {"containers": [{"name": "agent", "env": [{"name": "A", "valueFrom": "creds"}]}]},
    ],
)
async def test_a_reference_of_another_shape_is_refused_and_no_fault_of_the_controllers(
    cluster: Cluster, patch: dict[str, Any]
) -> None:
    """It said "the controller failed: AttributeError", and tried again for ever."""
    await cluster.ready_model()
    await cluster.apply("Agent", "one", {"modelAPI": "ollama", "podSpec": patch})
    told = await cluster.eventually(api.Agent, "one", lacks("Accepted"))
    assert says("Accepted", "Refused")(told), told.status["message"]


async def test_a_missing_secret_named_as_our_own_config_map_is_told(cluster: Cluster) -> None:
    await cluster.ready_model()
    auth = {"tokensSecret": {"name": "one-auth"}}
    await cluster.apply("Agent", "one", {"modelAPI": "ollama", "auth": auth})
    found = await cluster.eventually(
        api.Agent, "one", says("DependenciesReady", "DependencyMissing")
    )
    assert 'Secret "one-auth" does not exist' in found.status["message"]


def test_instructions_may_stand_in_a_config_map() -> None:
    source = {"configMapKeyRef": {"name": "prompts", "key": "assistant"}}
    one = agent(config={"instructionsFrom": source})
    env = env_of(by_kind(agent_children(one, "m", Settings(), routes=False))["Deployment"])
    assert env["AGENT_INSTRUCTIONS"] == source


async def put(cluster: Cluster, kind: str, name: str, text: str) -> Object:
    field = "stringData" if kind == "Secret" else "data"
    body = {
        "apiVersion": "v1",
        "kind": kind,
        "metadata": {"name": name},
        field: {"k": text},
    }
    if kind == "Secret":
        body["data"] = {"k": base64.b64encode(text.encode()).decode()}
        del body["stringData"]
    return await cluster.put(body)


def digest(found: Object) -> str:
    annotations = found.spec["template"]["metadata"].get("annotations", {})
    return str(annotations.get(ANNOTATION, ""))


def spec(kind: str) -> dict[str, Any]:
    field = "secretKeyRef" if kind == "Secret" else "configMapKeyRef"
    source = {field: {"name": "it", "key": "k"}}
    return {"modelAPI": "ollama", "config": {"env": [{"name": "A", "valueFrom": source}]}}


@pytest.mark.parametrize("kind", ["Secret", "ConfigMap"])
async def test_a_reference_that_is_late_is_told_and_one_that_changes_rolls(
    cluster: Cluster, kind: str
) -> None:
    await cluster.ready_model()
    await cluster.apply("Agent", "one", spec(kind))
    found = await cluster.eventually(
        api.Agent, "one", says("DependenciesReady", "DependencyMissing")
    )
    assert found.status["message"] == f'{kind} "it" does not exist'
    assert found.status["phase"] == "Waiting"

    absent = digest(await cluster.read(DEPLOYMENT, "one"))
    await put(cluster, kind, "it", "old")
    there = await cluster.eventually(DEPLOYMENT, "one", lambda d: digest(d) != absent)
    await cluster.roll_out("one")
    await cluster.eventually(api.Agent, "one", ready)

    await put(cluster, kind, "it", "new")
    await cluster.eventually(DEPLOYMENT, "one", lambda d: digest(d) != digest(there), seconds=1)
    # Not ready until the new revision serves: the old pod has the old value.
    await cluster.eventually(api.Agent, "one", lacks("Available"))


async def test_a_config_map_without_the_key_is_told(cluster: Cluster) -> None:
    await cluster.ready_model()
    await put(cluster, "ConfigMap", "prompts", "text")
    source = {"configMapKeyRef": {"name": "prompts", "key": "other"}}
    await cluster.apply(
        "Agent", "one", {"modelAPI": "ollama", "config": {"instructionsFrom": source}}
    )
    found = await cluster.eventually(
        api.Agent, "one", says("DependenciesReady", "DependencyMissing")
    )
    assert found.status["message"] == 'ConfigMap "prompts" has no key "other"'


async def test_a_tool_servers_source_and_a_proxys_key_roll_too(cluster: Cluster) -> None:
    tools = {"type": "python-runtime", "config": {"tools": {"fromSecretKeyRef": KEY}}}
    proxy = {
        "mode": "Proxy",
        "proxyConfig": {
            "models": ["m"],
            "apiBase": "http://up/v1",
            "apiKey": {"valueFrom": {"secretKeyRef": KEY}},
        },
    }
    await put(cluster, "Secret", "it", "old")
    await cluster.apply("MCPServer", "tools", tools)
    await cluster.apply("ModelAPI", "proxy", proxy)
    names = ("mcpserver-tools", "modelapi-proxy")
    before = {n: digest(await cluster.eventually(DEPLOYMENT, n, digest)) for n in names}

    await put(cluster, "Secret", "it", "new")

    for name in names:
        await cluster.eventually(DEPLOYMENT, name, lambda d: digest(d) != before[d.name])


KEY = {"name": "it", "key": "k"}


async def test_no_data_of_a_secret_is_in_the_controllers_memory(cluster: Cluster) -> None:
    await put(cluster, "Secret", "it", "hunter2")
    await cluster.eventually(SECRET, "it", lambda s: s.get("data"))  # it is there for others
    cached = await cluster.cached(SECRET, "it")
    assert cached.fields() == {}
    await put(cluster, "ConfigMap", "it", "seen")
    assert (await cluster.cached(CONFIG_MAP, "it")).get("data") == {"k": "seen"}
