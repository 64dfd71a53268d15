"""`spec.auth`: who is known to whom, by which tokens, and that the graph is the list of callers."""

import asyncio
import json
from typing import Any
from unittest.mock import Mock

import anyio
import pytest

from kaos import api
from kaos.api import Agent, InvalidSpecError
from kaos.reconcilers.account_tokens import makes_account_tokens
from kaos.reconcilers.children.agent import agent_children
from kaos.reconcilers.children.auth import audience
from kaos.reconcilers.children.names import Ref
from kaos.reconcilers.settings import Settings
from kaos.runtime import CONFIG_MAP, DEPLOYMENT, SECRET, SERVICE_ACCOUNT, Object
from kaos.runtime.transport import HttpResponse
from kaos.testing.running import hosted
from tests.unit.reconcilers.conftest import running
from tests.unit.reconcilers.harness import Cluster, RealCluster, ready, says
from tests.unit.reconcilers.resources import agent, env_of

TOKENS = {"tokensSecret": {"name": "callers"}}
ROOT_CA = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "kube-root-ca.crt"},
    "data": {"ca.crt": "-"},
}


def made(
    of: Agent, *, callers: tuple[str, ...] = (), guarded: tuple[str, ...] = (), tokens: bool = True
) -> dict[str, dict[str, Any]]:
    settings = Settings(account_tokens=tokens)
    children = agent_children(of, "m", settings, routes=False, callers=callers, guarded=guarded)
    return {child["kind"]: child for child in children}


def pod(children: dict[str, dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = children["Deployment"]["spec"]["template"]["spec"]
    return found


def volumes(children: dict[str, dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    return {v["name"]: v["projected"]["sources"] for v in pod(children).get("volumes", ())}


def test_it_is_off_by_default() -> None:
    children = made(agent(agentNetwork={"access": ["peer"]}))
    assert not children.keys() & {"ServiceAccount", "ConfigMap"}
    assert not [name for name in env_of(children["Deployment"]) if "AUTH" in name]
    assert "serviceAccountName" not in pod(children)
    assert "volumes" not in pod(children)


def test_one_line_turns_it_on() -> None:
    children = made(agent(auth={}), callers=("default/boss",))
    env = env_of(children["Deployment"])
    assert env["KAOS_AUTH_SERVICE_ACCOUNTS"] == "jwks"
    assert env["KAOS_AUTH_AUDIENCE"] == "kaos.tools/agent/default/assistant"
    assert env["KAOS_AUTH_ALLOW_FILE"] == "/etc/kaos/auth/allow"
    assert "KAOS_AUTH_TOKENS_FILE" not in env
    assert children["ConfigMap"]["data"] == {"allow": "default/boss\n"}
    assert volumes(children)["kaos-auth"] == [{"configMap": {"name": "assistant-auth"}}]


def test_its_account_is_its_own_and_its_token_is_asked_for_not_automounted() -> None:
    children = made(agent(auth={}))
    account = children["ServiceAccount"]
    assert account["metadata"]["name"] == pod(children)["serviceAccountName"] == "assistant"
    assert account["automountServiceAccountToken"] is False
    assert pod(children)["automountServiceAccountToken"] is False
    token, authority = volumes(children)["api-access"]
    assert "audience" not in token["serviceAccountToken"]
    assert authority["configMap"]["name"] == "kube-root-ca.crt"
    egress = children["NetworkPolicy"]["spec"]["egress"]
    assert {"ports": [{"protocol": "TCP", "port": p} for p in (443, 6443)]} in egress


def test_an_account_that_is_named_is_used() -> None:
    children = made(agent(auth={}, serviceAccountName="mine"))
    assert "ServiceAccount" not in children
    assert pod(children)["serviceAccountName"] == "mine"


def test_a_caller_shows_each_peer_a_token_for_that_peer_alone() -> None:
    caller = agent(agentNetwork={"access": ["open", "shut", "ops/other"]})
    children = made(caller, guarded=("shut", "ops/other"))
    env = env_of(children["Deployment"])
    folder = "/var/run/secrets/kaos.tools/peers"
    assert env["PEER_AGENT_SHUT_TOKEN_FILE"] == f"{folder}/shut"
    assert env["PEER_AGENT_OTHER_TOKEN_FILE"] == f"{folder}/other"
    assert "PEER_AGENT_OPEN_TOKEN_FILE" not in env
    shown = [source["serviceAccountToken"] for source in volumes(children)["peer-tokens"]]
    assert [token["audience"] for token in shown] == [
        audience(Ref("default", "shut")),
        audience(Ref("ops", "other")),
    ]
    assert pod(children)["serviceAccountName"] == "assistant"
    assert "api-access" not in volumes(children)


def test_bearer_tokens_come_from_a_secret() -> None:
    children = made(agent(auth={"tokensSecret": {"name": "callers", "key": "list"}}))
    secret = volumes(children)["kaos-auth"][1]["secret"]
    assert secret == {"name": "callers", "items": [{"key": "list", "path": "tokens"}]}
    assert env_of(children["Deployment"])["KAOS_AUTH_TOKENS_FILE"] == "/etc/kaos/auth/tokens"


def test_where_no_account_has_tokens_bearer_tokens_alone_open() -> None:
    children = made(agent(auth=TOKENS), guarded=("peer",), tokens=False)
    assert not children.keys() & {"ServiceAccount", "ConfigMap"}
    assert list(volumes(children)) == ["kaos-auth"]
    auth = {name for name in env_of(children["Deployment"]) if "AUTH" in name or "TOKEN" in name}
    assert auth == {"KAOS_AUTH_TOKENS_FILE"}


@pytest.mark.parametrize("entry", ["*", "ops/*", "runner", "ops/ci.runner"])
def test_others_are_allowed_by_name(entry: str) -> None:
    children = made(agent(auth={"allow": [entry]}), callers=("default/boss",))
    assert set(children["ConfigMap"]["data"]["allow"].split()) == {entry, "default/boss"}


@pytest.mark.parametrize("entry", ["", "a/b/c", "*/x", "Ops/x", "a\nb"])
def test_what_is_no_account_is_refused(entry: str) -> None:
    with pytest.raises(InvalidSpecError):
        agent(auth={"allow": [entry]})


def allowed(*accounts: str) -> Any:
    def check(config: Object) -> bool:
        return set(config.to_dict()["data"]["allow"].split()) == set(accounts)

    return check


async def rolled_out(cluster: Cluster, name: str, **spec: Any) -> Object:
    await cluster.apply("Agent", name, {"modelAPI": "ollama", **spec})
    await cluster.roll_out(name)
    return await cluster.eventually(api.Agent, name, says("Available", "RolloutComplete"))


async def test_the_declared_graph_is_the_list_of_callers(cluster: Cluster) -> None:
    await cluster.put(ROOT_CA)
    await cluster.ready_model()
    access, here = {"agentNetwork": {"access": ["vault"]}}, cluster.namespace
    await rolled_out(cluster, "vault", auth={"allow": ["ops/ci"]})
    await cluster.eventually(CONFIG_MAP, "vault-auth", allowed("ops/ci"))
    pods = (await cluster.read(DEPLOYMENT, "vault")).metadata.generation

    await rolled_out(cluster, "boss", **access)
    await cluster.eventually(CONFIG_MAP, "vault-auth", allowed("ops/ci", f"{here}/boss"))
    await cluster.put(SERVICE_ACCOUNT.body("clerks"))
    await rolled_out(cluster, "clerk", **access, serviceAccountName="clerks")
    everybody = allowed("ops/ci", f"{here}/boss", f"{here}/clerks")
    await cluster.eventually(CONFIG_MAP, "vault-auth", everybody)
    await cluster.delete(api.Agent, "boss")
    await rolled_out(cluster, "clerk")
    await cluster.eventually(CONFIG_MAP, "vault-auth", allowed("ops/ci"))

    vault = await cluster.read(DEPLOYMENT, "vault")
    assert vault.metadata.generation == pods, "a caller rolled the pods of whom it calls"


async def test_auth_is_turned_on_and_off_on_both_sides(cluster: Cluster) -> None:
    def shows_a_token(deployment: Object) -> bool:
        return "PEER_AGENT_VAULT_TOKEN_FILE" in env_of(deployment.to_dict())

    await cluster.put(ROOT_CA)
    await cluster.ready_model()
    await rolled_out(cluster, "vault")
    boss = await rolled_out(cluster, "boss", agentNetwork={"access": ["vault"]})
    assert not shows_a_token(await cluster.cached(DEPLOYMENT, boss.name))

    await cluster.apply("Agent", "vault", {"modelAPI": "ollama", "auth": {}})
    await cluster.eventually(DEPLOYMENT, "boss", shows_a_token)
    for name in ("boss", "vault"):
        await cluster.eventually(SERVICE_ACCOUNT, name, lambda _: True)

    await cluster.apply("Agent", "vault", {"modelAPI": "ollama"})
    await cluster.eventually(DEPLOYMENT, "boss", lambda d: not shows_a_token(d))
    for name in ("boss", "vault"):
        await cluster.gone(SERVICE_ACCOUNT, name)


async def test_a_new_list_of_tokens_rolls_nothing_and_a_missing_one_is_told(
    cluster: Cluster,
) -> None:
    await cluster.put(ROOT_CA)
    await cluster.ready_model()
    await cluster.apply("Agent", "vault", {"modelAPI": "ollama", "auth": TOKENS})
    await cluster.roll_out("vault")
    found = await cluster.eventually(
        api.Agent, "vault", says("DependenciesReady", "DependencyMissing")
    )
    assert found.status["message"] == 'Secret "callers" does not exist'
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "callers"},
        "stringData": {"tokens": "alice one"},
    }
    await cluster.put(secret)
    await cluster.eventually(api.Agent, "vault", ready)
    before = await cluster.read(DEPLOYMENT, "vault")
    new = await cluster.put({**secret, "stringData": {"tokens": "alice two"}})
    version = new.metadata.resource_version
    cache = cluster.manager.cache
    with anyio.fail_after(5):
        while not (  # noqa: ASYNC110 - a watch decides
            (seen := cache.get(SECRET, "callers", cluster.namespace))
            and seen.metadata.resource_version == version
        ):
            await asyncio.sleep(0.01)
    auth = {**TOKENS, "allow": ["ops/ci"]}  # so that it is certainly looked at once more
    await cluster.apply("Agent", "vault", {"modelAPI": "ollama", "auth": auth})
    await cluster.eventually(CONFIG_MAP, "vault-auth", allowed("ops/ci"))
    after = await cluster.read(DEPLOYMENT, "vault")
    assert after.metadata.generation == before.metadata.generation


async def test_a_real_cluster_says_that_accounts_have_tokens(monkeypatch: Any) -> None:
    told = {"resources": [{"name": "serviceaccounts"}, {"name": "serviceaccounts/token"}]}

    async def answer(*_: Any) -> HttpResponse:
        return HttpResponse(200, json.dumps(told).encode())

    monkeypatch.setattr("kaos.reconcilers.account_tokens.send", answer)
    assert await makes_account_tokens(Mock())


async def test_the_embedded_cluster_says_that_they_have_none(cluster: Cluster) -> None:
    assert await makes_account_tokens(cluster.client) is isinstance(cluster, RealCluster)


async def test_an_agent_that_nobody_could_call_is_refused() -> None:
    async with hosted(running(Settings(account_tokens=False))) as cluster:
        await cluster.ready_model()
        await cluster.apply("Agent", "vault", {"modelAPI": "ollama", "auth": {}})
        refused = await cluster.eventually(api.Agent, "vault", says("Accepted", "NoAccountTokens"))
        assert "set auth.tokensSecret" in refused.status["message"]
