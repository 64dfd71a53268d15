"""What `kaos status` shows."""

import io

from rich.console import Console

from kaos.cli.status import pod_lines, show
from kaos.runtime import Object

AGENT = {
    "apiVersion": "kaos.tools/v1alpha1",
    "kind": "Agent",
    "metadata": {"name": "a", "namespace": "default", "generation": 1},
    "status": {
        "phase": "Waiting",
        "conditions": [
            {"type": "Ready", "status": "False", "reason": "DependencyMissing", "message": "no m"},
            {"type": "DependenciesReady", "status": "False", "reason": "DependencyMissing"},
            {"type": "Accepted", "status": "True", "reason": "SpecValid"},
        ],
    },
}
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "p", "namespace": "team"},
    "status": {
        "initContainerStatuses": [{"name": "init", "state": {"terminated": {}}}],
        "containerStatuses": [
            {
                "name": "agent",
                "ready": True,
                "restartCount": 2,
                "containerID": "kaos://4711",
                "state": {"running": {}},
            },
            {"name": "side", "state": {"waiting": {"reason": "CrashLoopBackOff"}}},
        ],
    },
}


def test_what_is_not_true_is_told_once() -> None:
    out = io.StringIO()
    ready = show(Console(file=out, width=200), [Object.from_dict(AGENT)], [])
    assert not ready
    said = out.getvalue()
    assert "Waiting" in said
    assert said.count("DependenciesReady") == 1
    assert "Accepted" not in said


def test_who_is_suspended_is_shown_and_is_nothing_wrong() -> None:
    reason = {"status": "False", "reason": "Suspended", "message": "spec.suspend is true"}
    conditions = [{"type": "Ready", **reason}, {"type": "Available", **reason}]
    sleeper = AGENT | {"status": {"phase": "Suspended", "conditions": conditions}}
    out = io.StringIO()
    assert show(Console(file=out, width=200), [Object.from_dict(sleeper)], [])
    assert "Suspended" in out.getvalue().splitlines()[1]


def test_nothing_there_is_nothing_wrong() -> None:
    out = io.StringIO()
    assert show(Console(file=out), [], [])
    assert "kaos up FILE" in out.getvalue()


def test_each_container_is_a_line() -> None:
    assert list(pod_lines(Object.from_dict(POD))) == [
        ("team/p", "init", "", "terminated", "0"),
        ("team/p", "agent", "4711", "ready", "2"),
        ("team/p", "side", "", "CrashLoopBackOff", "0"),
    ]
