"""Who may call an agent with `auth`: by bearer tokens anywhere, by accounts where there are such.

All under the `restricted` Pod Security level, and with the derived NetworkPolicies at work.
"""

from collections.abc import Callable
from typing import Any

import openai
import pytest

from tests.e2e.scenarios.client import ask
from tests.e2e.scenarios.manifests import (
    Manifest,
    agent,
    as_list,
    proxy,
    scripted_model,
)
from tests.e2e.scenarios.targets import IMAGE, Embedded, Target, eventually

LEVEL = "pod-security.kubernetes.io/enforce=restricted"
TOKEN = "/var/run/secrets/caller/token"
CALL = """
import sys, urllib.error, urllib.request
headers = {"content-type": "application/json"}
if len(sys.argv) > 2:
    headers["authorization"] = "Bearer " + open(sys.argv[2]).read()
body = b'{"messages": [{"role": "user", "content": "open up"}]}'
request = urllib.request.Request(sys.argv[1] + "/v1/chat/completions", body, headers)
try:
    print(urllib.request.urlopen(request, timeout=60).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""


def apply(target: Target, namespace: str, *manifests: Manifest) -> None:
    target.kubectl("apply", "-n", namespace, "-f", "-", stdin=as_list(*manifests))


def with_a_model(target: Target, namespace: str, *script: Manifest) -> None:
    apply(target, namespace, *scripted_model("scripted", *script), proxy("model", "scripted"))
    target.kubectl(*("rollout", "status", "deployment/scripted", "-n", namespace, "--timeout=120s"))
    target.kubectl("label", "namespace", namespace, LEVEL)


def put_tokens(target: Target, namespace: str, tokens: str) -> None:
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "callers"},
        "stringData": {"tokens": tokens},
    }
    apply(target, namespace, secret)


def opens(url: str, token: str) -> bool:
    """Whether a token opens the agent; anything but yes and 401 is an error."""
    try:
        return bool(ask(url, "hello", key=token))
    except openai.AuthenticationError:
        return False


def processes(target: Target, namespace: str, name: str) -> list[tuple[str, int]]:
    """The pods of an agent, and how often each was restarted."""
    pods = [target.get("pod", p, namespace) for p in target.names("pods", namespace, f"app={name}")]
    return [
        (p["metadata"]["uid"], p["status"]["containerStatuses"][0]["restartCount"]) for p in pods
    ]


def test_bearer_tokens_are_rotated_without_a_restart(target: Target, namespace: str) -> None:
    with_a_model(target, namespace, {"turns": [{"text": "hello"}], "repeat": True})
    put_tokens(target, namespace, "alice old-token\n")
    apply(target, namespace, agent("vault", auth={"tokensSecret": {"name": "callers"}}))
    target.wait_ready("agent", "vault", namespace)
    url = f"{target.gateway}/{namespace}/agent/vault"
    eventually("the route", answers(lambda: opens(url, "old-token")))
    assert not opens(url, "new-token")
    before = processes(target, namespace, "vault")

    put_tokens(target, namespace, "alice new-token\n")

    eventually("the new token", lambda: opens(url, "new-token"), 150, every=1)
    assert not opens(url, "old-token")
    assert processes(target, namespace, "vault") == before


def answers(check: Callable[[], Any]) -> Callable[[], Any]:
    """A check that may find nobody there yet."""

    def found() -> Any:
        try:
            return check()
        except openai.APIError:
            return False

    return found


def caller(name: str, vault: str, namespace: str, *, shows_token: bool) -> Manifest:
    """A pod that asks the vault once; the vault's NetworkPolicy lets it in by its label."""
    projection = {"audience": f"kaos.tools/agent/{namespace}/{vault}", "path": "token"}
    args = [f"http://{vault}", *([TOKEN] if shows_token else [])]
    container = {
        "name": "caller",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-c", CALL, *args],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "token", "mountPath": TOKEN.rpartition("/")[0]}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {f"agent.uses.kaos.tools/{vault}": namespace}},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "fsGroup": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [
                {
                    "name": "token",
                    "projected": {"sources": [{"serviceAccountToken": projection}]},
                }
            ],
        },
    }


def said(target: Target, namespace: str, pod: str) -> str:
    """What a pod that ran to its end has printed."""

    def ended() -> bool:
        phase = target.get("pod", pod, namespace).get("status", {}).get("phase", "")
        return phase in ("Succeeded", "Failed")

    eventually(f"the end of pod {pod}", ended, 90)
    return target.kubectl("logs", pod, "-n", namespace).strip()


def test_declared_agents_are_let_in_and_others_are_not(target: Target, namespace: str) -> None:
    if isinstance(target, Embedded):
        pytest.skip("the embedded cluster makes no tokens for service accounts")
    delegation = {"name": "delegate_to_vault", "arguments": {"task": "open up"}}
    with_a_model(
        target,
        namespace,
        {
            "when": "You are boss",
            "by": "step",
            "turns": [{"tool_calls": [delegation]}, {"text": "The vault said: {last}"}],
        },
        {"when": "You are vault", "turns": [{"text": "it is open"}], "repeat": True},
    )
    apply(
        target,
        namespace,
        agent("vault", auth={}, config={"instructions": "You are vault"}),
        agent(
            "boss",
            agentNetwork={"access": ["vault"]},
            config={"instructions": "You are boss"},
        ),
    )
    for name in ("vault", "boss"):
        target.wait_ready("agent", name, namespace)
    apply(
        target,
        namespace,
        caller("nobody", "vault", namespace, shows_token=False),
        caller("stranger", "vault", namespace, shows_token=True),
    )
    url = f"{target.gateway}/{namespace}/agent/boss"

    def delegated() -> bool:
        return "it is open" in ask(url, "go")

    # The list of callers is a mounted file: the kubelet brings it there within about a minute.
    eventually("the vault's answer to its boss", answers(delegated), 150, every=1)
    assert said(target, namespace, "nobody") == "401"
    assert said(target, namespace, "stranger") == "403"
    before = processes(target, namespace, "vault")

    patch = '{"spec": {"auth": {"allow": ["default"]}}}'
    target.kubectl("patch", "agent", "vault", "-n", namespace, "--type=merge", "-p", patch)

    def allowed() -> bool:
        target.kubectl("delete", "pod", "stranger", "-n", namespace, "--ignore-not-found")
        apply(target, namespace, caller("stranger", "vault", namespace, shows_token=True))
        return said(target, namespace, "stranger") == "200"

    eventually("the stranger, who is on the list now", allowed, 150, every=5)
    assert processes(target, namespace, "vault") == before


def test_where_accounts_have_no_tokens_it_is_said(target: Target, namespace: str) -> None:
    if not isinstance(target, Embedded):
        pytest.skip("of the embedded cluster")
    apply(target, namespace, agent("vault", auth={}))

    def reason() -> bool:
        conditions = target.get("agent", "vault", namespace).get("status", {}).get("conditions", ())
        return any(c["reason"] == "NoAccountTokens" for c in conditions)

    eventually("the reason", reason)
