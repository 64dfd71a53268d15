"""What comes late, what is edited, what is deleted, and who is away meanwhile."""

from tests.e2e.scenarios.client import ask, load
from tests.e2e.scenarios.manifests import (
    Manifest,
    agent,
    as_list,
    echo_server,
    proxy,
    scripted_model,
)
from tests.e2e.scenarios.targets import Target, eventually

ECHO = {"turns": [{"text": "scripted answer"}], "repeat": True}
CHILDREN = "deployments,services,pods"


def apply(target: Target, namespace: str, *manifests: Manifest) -> None:
    target.kubectl("apply", "-n", namespace, "-f", "-", stdin=as_list(*manifests))


def test_a_model_api_that_comes_late(target: Target, namespace: str) -> None:
    apply(target, namespace, agent("early"), *scripted_model("scripted", ECHO))

    def message() -> str:
        found: str = target.get("agent", "early", namespace).get("status", {}).get("message", "")
        return found

    eventually("what it waits for", lambda: 'ModelAPI "model" does not exist' in message())
    assert target.get("agent", "early", namespace)["status"]["phase"] == "Waiting"

    apply(target, namespace, proxy("model", "scripted"))
    target.wait_ready("agent", "early", namespace)


def test_the_children_of_a_deleted_agent_go(target: Target, namespace: str) -> None:
    apply(
        target,
        namespace,
        *scripted_model("scripted", ECHO),
        proxy("model", "scripted"),
        agent("gone"),
    )
    target.wait_ready("agent", "gone", namespace)
    assert target.names("deployments", namespace, "app=gone") == ["gone"]

    target.kubectl("delete", "agent", "gone", "-n", namespace, "--timeout=60s")

    eventually("the end of its children", lambda: not target.names(CHILDREN, namespace, "app=gone"))


def test_nothing_hangs_when_all_is_deleted_without_a_controller(
    target: Target, namespace: str
) -> None:
    apply(
        target,
        namespace,
        *scripted_model("scripted", ECHO),
        proxy("model", "scripted"),
        echo_server(),
        agent("orphan", mcpServers=["echo-tools"]),
    )
    target.wait_ready("agent", "orphan", namespace)
    with target.controller_stopped():
        target.kubectl("delete", "kaos", "--all", "-n", namespace, "--timeout=60s")
        part_of = "app.kubernetes.io/part-of=kaos"
        eventually("the children's end", lambda: not target.names(CHILDREN, namespace, part_of), 90)


def test_an_edit_of_the_instructions_rolls_without_a_failed_request(
    target: Target, namespace: str
) -> None:
    script = [
        {"when": "be new", "turns": [{"text": "new"}], "repeat": True},
        {"when": "be old", "turns": [{"text": "old"}], "repeat": True},
    ]
    apply(
        target,
        namespace,
        *scripted_model("scripted", *script),
        proxy("model", "scripted"),
        agent("roller", config={"instructions": "be old"}),
    )
    target.wait_ready("agent", "roller", namespace)
    url = f"{target.gateway}/{namespace}/agent/roller"
    eventually("the route", lambda: _answers(url))
    with load(url, "who are you?") as seen:
        seen.wait_for(5)
        patch = '{"spec": {"config": {"instructions": "be new"}}}'
        target.kubectl("patch", "agent", "roller", "-n", namespace, "--type=merge", "-p", patch)
        eventually("the new revision", lambda: seen.answers and seen.answers[-1] == "new", 90)
        target.wait_ready("agent", "roller", namespace)
        eventually(
            "the old pod's end", lambda: len(target.names("pods", namespace, "app=roller")) == 1, 90
        )
        seen.wait_for(5)
    assert not seen.failures
    assert set(seen.answers) == {"old", "new"}


def _answers(url: str) -> bool:
    try:
        return bool(ask(url, "there?"))
    except Exception:  # noqa: BLE001 - whatever it is, it is not there yet
        return False
