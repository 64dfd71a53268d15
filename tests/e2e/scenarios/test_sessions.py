"""Sessions outlive the pod that held the conversation."""

import pytest

from tests.e2e.scenarios.client import ask
from tests.e2e.scenarios.manifests import agent, as_list, proxy, scripted_model
from tests.e2e.scenarios.stores import store
from tests.e2e.scenarios.targets import Target, eventually
from tests.e2e.scenarios.test_lifecycle import _answers
from tests.e2e.scenarios.test_scripted import requests_to

ECHO = {"turns": [{"text": "{last}"}], "repeat": True}


@pytest.mark.parametrize("kind", ["redis", "postgres"])
def test_a_session_survives_the_loss_of_every_pod(
    target: Target, namespace: str, kind: str
) -> None:
    with store(target, namespace, kind) as url:
        model = (*scripted_model("scripted", ECHO), proxy("model", "scripted"))
        memory = {"type": kind, "url": url}
        keeper = agent("keeper", replicas=2, config={"memory": memory})
        target.kubectl("apply", "-n", namespace, "-f", "-", stdin=as_list(*model, keeper))
        target.wait_ready("agent", "keeper", namespace)
        at = f"{target.gateway}/{namespace}/agent/keeper"
        eventually("the route", lambda: _answers(at))
        headers = {"x-session-id": "ada"}
        assert ask(at, "my name is Ada", headers=headers) == "my name is Ada"
        before = set(target.names("pods", namespace, "app=keeper"))

        target.kubectl("delete", "pod", *before, "-n", namespace, "--force", "--grace-period=0")

        def others() -> bool:
            pods = set(target.names("pods", namespace, "app=keeper"))
            status = target.get("deployment", "keeper", namespace).get("status", {})
            return not pods & before and status.get("availableReplicas") == 2

        eventually("other pods", others, 120)
        for _ in range(4):  # whichever of them it is that answers
            assert ask(at, "who am I?", headers=headers) == "who am I?"
        texts = [m["content"] for m in requests_to(target, namespace)[-1]["body"]["messages"]]
        assert texts[-9:] == ["my name is Ada"] * 2 + ["who am I?"] * 7
