"""A model's download is told while it lasts, and its failure in the words of the puller."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from kaos import api
from kaos.reconcilers import modelapi
from kaos.testing.waiting import eventually
from tests.unit.reconcilers.harness import HOSTED, Cluster, lacks, says

RUNNING = {"name": "puller", "ready": True, "state": {"running": {}}}


def progress(completed: int) -> bytes:
    return json.dumps({"event": "pull", "completed": completed, "total": 200}).encode()


async def test_progress_is_asked_for_while_the_puller_runs_and_not_before(
    cluster: Cluster,
) -> None:
    cluster.logs.lines["p"] = [progress(50)]
    await cluster.apply("ModelAPI", "ollama", HOSTED)
    await cluster.eventually(api.ModelAPI, "ollama", lacks("Available"))
    await eventually(lambda: cluster.passes("success") > 0)
    assert not cluster.passes("requeue_after"), "a pod that waits for a node was looked at anew"

    await cluster.start_pod("modelapi-ollama", "p", containerStatuses=[RUNNING])

    def pulled(share: float) -> Any:
        return lambda found: found.status.get("pull") == {"completed": share * 200, "total": 200}

    await cluster.eventually(api.ModelAPI, "ollama", pulled(0.25))
    cluster.logs.lines["p"].append(progress(100))
    found = await cluster.eventually(api.ModelAPI, "ollama", pulled(0.5))
    assert found.status["message"] == "pulling model smollm2:135m: 50 % of 0 MB"
    assert cluster.passes("requeue_after")


async def test_a_node_that_does_not_answer_keeps_nobody_from_what_else_is_to_be_done(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass waited for its log for ever, and no edit of the ModelAPI counted any more."""
    asked = asyncio.Event()

    async def hangs(*_: object, **__: object) -> AsyncIterator[bytes]:
        yield b"starting"
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(cluster.logs, "read_logs", hangs)
    monkeypatch.setattr(modelapi, "LOG_SECONDS", 0.05)
    await cluster.apply("ModelAPI", "ollama", HOSTED)
    await cluster.start_pod("modelapi-ollama", "p", containerStatuses=[RUNNING])
    await asyncio.wait_for(asked.wait(), cluster.patience)
    await cluster.apply("ModelAPI", "ollama", {**HOSTED, "suspend": True})
    await cluster.eventually(api.ModelAPI, "ollama", says("Available", "Suspended"))


async def test_a_failed_pull_is_told_in_the_pullers_words(cluster: Cluster) -> None:
    await cluster.apply("ModelAPI", "ollama", HOSTED)
    words = 'model "smollm2:135m" cannot be had: no route to the library'
    puller = {
        "name": "puller",
        "ready": False,
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
        "lastState": {"terminated": {"exitCode": 1, "message": f"starting\n{words}\n"}},
    }
    await cluster.start_pod("modelapi-ollama", "p", containerStatuses=[puller])
    found = await cluster.eventually(api.ModelAPI, "ollama", says("Ready", "ModelPullFailed"))
    assert found.status["message"] == words
    assert found.status["phase"] == "Failed"
