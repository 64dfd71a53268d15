"""Ready sums up the other conditions; the phase is one word for the same."""

import pytest

from kaos.reconcilers.availability import Availability
from kaos.reconcilers.conditions import Finding, Phase, Reason, Type, phase, summary
from kaos.reconcilers.dependencies import Dependency
from kaos.reconcilers.modelapi import parse_progress
from kaos.reconcilers.routes import routed
from kaos.runtime import Object
from tests.unit.reconcilers.resources import agent

GOOD = [
    Finding(Type.ACCEPTED, True, "SpecValid", ""),
    Finding(Type.DEPENDENCIES, True, "DependenciesReady", ""),
    Finding(Type.AVAILABLE, True, "RolloutComplete", ""),
]


def bad(type_: Type) -> list[Finding]:
    return [Finding(f.type, f.type is not type_, f.reason, f"{f.type} words") for f in GOOD]


def test_ready_when_all_is_well() -> None:
    assert summary(GOOD).ok
    assert phase(GOOD, problem=False) is Phase.READY


@pytest.mark.parametrize(
    ("type_", "problem", "expected"),
    [
        (Type.ACCEPTED, False, Phase.FAILED),
        (Type.DEPENDENCIES, False, Phase.WAITING),
        (Type.AVAILABLE, False, Phase.PENDING),
        (Type.AVAILABLE, True, Phase.FAILED),
    ],
)
def test_ready_repeats_the_words_of_what_is_not(
    type_: Type, problem: bool, expected: Phase
) -> None:
    findings = bad(type_)
    ready = summary(findings)
    assert (ready.ok, ready.message) == (False, f"{type_} words")
    assert phase(findings, problem=problem) is expected


def test_a_missing_route_does_not_make_a_resource_unready() -> None:
    assert summary([*GOOD, Finding(Type.ROUTED, False, "GatewayAPIMissing", "")]).ok


def test_what_was_ready_before_its_last_change_is_not_said_to_lack_that_all_works() -> None:
    """An agent said: ModelAPI "ollama" is not ready: everything declared works."""
    told = {"type": "Ready", "status": "True", "reason": "Ready", "message": "everything works"}
    status = {"conditions": [{**told, "observedGeneration": 1}]}
    found = Object.from_dict({"metadata": {"generation": 2}, "status": status})
    words = (Reason.DEPENDENCY_NOT_READY, 'ModelAPI "ollama" has not been looked at yet')
    assert Dependency("ModelAPI", "ollama", found).lack() == words


def test_the_progress_of_a_download_is_not_repeated_by_all_who_wait_for_it() -> None:
    """A hundred agents' statuses were written each second for as long as a model was pulled."""

    def lack(share: str) -> object:
        message = f"pulling model smollm2:135m: {share}"
        told = {"type": "Ready", "status": "False", "reason": "ModelPulling", "message": message}
        found = Object.from_dict({"metadata": {}, "status": {"conditions": [told]}})
        return Dependency("ModelAPI", "ollama", found).lack()

    waits = 'ModelAPI "ollama" is not ready: pulling model smollm2:135m'
    assert lack("5 % of 93 MB") == lack("6 % of 93 MB") == ("DependencyNotReady", waits)


def parents(*conditions: tuple[str, str], seen: int | None = None) -> dict[str, object]:
    rest = {"message": "m", **({} if seen is None else {"observedGeneration": seen})}
    listed = [{"type": t, "status": s, "reason": f"R{t}", **rest} for t, s in conditions]
    return {"parents": [{"conditions": listed}]}


@pytest.mark.parametrize(
    ("status", "options", "reason"),
    [
        (None, {"unrouted": "expose is false"}, "NotExposed"),
        (None, {"installed": False}, "GatewayAPIMissing"),
        (None, {"conflict": "Agent other/assistant"}, "RouteConflict"),
        (None, {}, "RoutePending"),
        (parents(("Accepted", "True"), ("ResolvedRefs", "False")), {}, "RResolvedRefs"),
        (parents(("Accepted", "True"), ("ResolvedRefs", "True")), {}, "RouteAccepted"),
        # A gateway that is gone went on serving what it never saw.
        (parents(("Accepted", "True"), seen=2), {"generation": 3}, "RoutePending"),
        (parents(("Accepted", "False"), seen=2), {"generation": 3}, "RoutePending"),
        (parents(("Accepted", "True"), seen=3), {"generation": 3}, "RouteAccepted"),
        (parents(("Accepted", "True")), {"generation": 3}, "RouteAccepted"),
    ],
)
def test_routed(status: dict[str, object] | None, options: dict[str, object], reason: str) -> None:
    given = {"installed": True, **options}
    assert routed(agent(), status, **given).reason == reason  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("line", "progress"),
    [
        (b'{"event": "pull", "completed": 5, "total": 10}', (5, 10)),
        (b'{"event": "pull"}', None),
        (b"[1]", None),
        (b"not json", None),
    ],
)
def test_progress_is_read_from_the_pullers_log(
    line: bytes, progress: tuple[int, int] | None
) -> None:
    assert parse_progress(line) == progress


def test_a_resource_without_a_deployment_has_no_replicas() -> None:
    assert Availability(False, "r", "m").replicas == 0
