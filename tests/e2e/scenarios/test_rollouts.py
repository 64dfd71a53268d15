"""What a cluster does to an agent's pods while users listen to it: no stream breaks."""

from functools import partial

import pytest

from tests.e2e.scenarios.client import ask, load, stream
from tests.e2e.scenarios.manifests import Manifest, agent, as_list, proxy, scripted_model
from tests.e2e.scenarios.targets import Target, eventually
from tests.e2e.scenarios.test_lifecycle import _answers
from tests.e2e.scenarios.test_scripted import calls

WORDS = "a long answer that comes word by word and takes its second to be told"
SLOW = {"turns": [{"text": WORDS, "piece_delay": 0.07}], "repeat": True}


def apply(target: Target, namespace: str, *manifests: Manifest) -> None:
    target.kubectl("apply", "-n", namespace, "-f", "-", stdin=as_list(*manifests))


@pytest.fixture
def url(target: Target, namespace: str) -> str:
    """An agent of two pods that answers slowly, through the gateway."""
    model = (*scripted_model("scripted", SLOW), proxy("model", "scripted"))
    apply(target, namespace, *model, agent("teller", replicas=2))
    target.wait_ready("agent", "teller", namespace)
    found = f"{target.gateway}/{namespace}/agent/teller"
    eventually("the route", lambda: _answers(found))
    return found


def settled(target: Target, namespace: str, pods: int) -> bool:
    """Whether there are so many pods, all ready, and none on its way out."""
    status = target.get("deployment", "teller", namespace).get("status", {})
    counts = {status.get(name, 0) for name in ("replicas", "updatedReplicas", "availableReplicas")}
    return counts == {pods} and len(target.names("pods", namespace, "app=teller")) == pods


def test_a_rolling_update_under_streams(target: Target, namespace: str, url: str) -> None:
    before = set(target.names("pods", namespace, "app=teller"))
    with load(url, "tell me", threads=6, pause=0, asks=stream) as seen:
        seen.wait_for(10)
        patch = '{"spec": {"config": {"instructions": "be new"}}}'
        target.kubectl("patch", "agent", "teller", "-n", namespace, "--type=merge", "-p", patch)

        def rolled() -> bool:
            pods = set(target.names("pods", namespace, "app=teller"))
            return not pods & before and settled(target, namespace, 2)

        eventually("new pods", rolled, 180)
        seen.wait_for(10)
    assert not seen.failures
    assert set(seen.answers) == {WORDS}


def test_a_deleted_pod_and_another_number_of_pods_under_streams(
    target: Target, namespace: str, url: str
) -> None:
    with load(url, "tell me", threads=6, pause=0, asks=stream) as seen:
        seen.wait_for(10)
        (pod, _) = target.names("pods", namespace, "app=teller")
        target.kubectl("delete", "pod", pod, "-n", namespace, "--wait=false")
        eventually(
            "another pod",
            lambda: (
                pod not in target.names("pods", namespace, "app=teller")
                and settled(target, namespace, 2)
            ),
            120,
        )
        for count in (3, 1):
            scale = ("scale", "agent/teller", "-n", namespace, f"--replicas={count}")
            target.kubectl(*scale)
            eventually(f"{count} pods", partial(settled, target, namespace, count), 120)
            seen.wait_for(10)
    assert not seen.failures
    assert set(seen.answers) == {WORDS}


def test_a_peer_that_moves_is_found_in_the_middle_of_a_conversation(
    target: Target, namespace: str
) -> None:
    delegating = [calls("delegate_to_researcher", task="find X"), {"text": "Peer: {last}"}]
    script: list[Manifest] = [
        {"when": "You coordinate", "by": "step", "turns": delegating},
        {"when": "You research", "turns": [{"text": "found"}], "repeat": True},
    ]
    apply(
        target,
        namespace,
        *scripted_model("scripted", *script),
        proxy("model", "scripted"),
        agent("researcher", config={"instructions": "You research"}),
        agent(
            "coordinator",
            config={"instructions": "You coordinate"},
            agentNetwork={"access": ["researcher"]},
        ),
    )
    target.wait_ready("agent", "researcher", namespace)
    target.wait_ready("agent", "coordinator", namespace)
    coordinators = target.names("pods", namespace, "app=coordinator")
    headers = {"x-session-id": "moving"}
    with target.port_forward("svc/coordinator", 80, namespace) as at:
        assert ask(at, "first", headers=headers) == "Peer: found"
        (before,) = target.names("pods", namespace, "app=researcher")
        target.kubectl("delete", "pod", before, "-n", namespace)
        target.wait_ready("agent", "researcher", namespace)
        # By its old address there is nobody left; by its name there is, as soon as it is ready.
        assert ask(at, "second", headers=headers) == "Peer: found"
    assert before not in target.names("pods", namespace, "app=researcher")
    assert target.names("pods", namespace, "app=coordinator") == coordinators
