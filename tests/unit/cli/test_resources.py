"""Reading a resource's state."""

from typing import Any

import pytest

from kaos.cli.resources import Key, Row, gateway_path, not_true, row_of, unreachable


def body(*conditions: dict[str, Any], generation: int = 2, phase: str = "") -> dict[str, Any]:
    return {
        "kind": "Agent",
        "metadata": {"name": "a", "namespace": "default", "generation": generation},
        "status": {"phase": phase, "conditions": list(conditions)},
    }


def said(type_: str, status: str, reason: str = "R", observed: int = 2) -> dict[str, Any]:
    return {
        "type": type_,
        "status": status,
        "reason": reason,
        "message": f"{type_} says {reason}",
        "observedGeneration": observed,
    }


KEY = Key("Agent", "default", "a")
UNSEEN = "not yet seen by the controller"
NOT_EXPOSED = said("Routed", "False", "NotExposed")
SUSPENDED = said("Available", "False", "Suspended")
TO_ZERO = said("Available", "False", "ScaledToZero")


@pytest.mark.parametrize(
    ("found", "row"),
    [
        (body(), Row(KEY, "Pending", UNSEEN)),
        (body(said("Ready", "True")), Row(KEY, "Ready", "", "R")),
        # True of an older spec is not true of this one.
        (body(said("Ready", "True", observed=1)), Row(KEY, "Pending", UNSEEN)),
        (body(said("Ready", "False"), phase="Waiting"), Row(KEY, "Waiting", "Ready says R", "R")),
        (body(said("Ready", "False"), phase="Failed"), Row(KEY, "Failed", "Ready says R", "R")),
        (body(said("Ready", "Unknown"), phase="Odd"), Row(KEY, "Pending", "Ready says R", "R")),
        # It answers inside the cluster, but not yet at the gateway, where the user will ask.
        (
            body(said("Ready", "True"), said("Routed", "False", "RoutePending")),
            Row(KEY, "Pending", "Routed says RoutePending", "RoutePending"),
        ),
        (body(said("Ready", "True"), NOT_EXPOSED), Row(KEY, "Ready", "", "R")),
        # No pod is asked for: its dependency is not what it waits for.
        (
            body(said("Ready", "False", "DependencyMissing"), SUSPENDED, phase="Suspended"),
            Row(KEY, "Suspended", "Available says Suspended", "Suspended"),
        ),
        (
            body(said("Ready", "False", "DependencyMissing"), TO_ZERO, phase="Waiting"),
            Row(KEY, "Suspended", "Available says ScaledToZero", "ScaledToZero"),
        ),
    ],
)
def test_the_row_of_an_object(found: dict[str, Any], row: Row) -> None:
    assert row_of(found) == row


@pytest.mark.parametrize(
    ("conditions", "path", "why"),
    [
        ([said("Ready", "True"), said("Routed", "True", "RouteAccepted")], "/a", ""),
        # Somebody of the same name in another namespace has the short path.
        (
            [said("Ready", "True"), said("Routed", "False", "RouteConflict")],
            "/default/agent/a",
            "",
        ),
        ([said("Ready", "True"), NOT_EXPOSED], "", "not exposed: Routed says NotExposed"),
        ([said("Ready", "False"), said("Routed", "False", "RoutePending")], "", ""),
        ([said("Ready", "False", "InvalidSpec")], "", ""),
        (
            [said("Ready", "False"), TO_ZERO, said("Routed", "True", "RouteAccepted")],
            "",
            "suspended: Available says ScaledToZero",
        ),
    ],
)
def test_the_gateway_serves_an_agent_where_its_route_says(
    conditions: list[dict[str, Any]], path: str, why: str
) -> None:
    """`kaos up` showed /<name> of all, which reached a namesake or nobody."""
    found = body(*conditions)
    assert (gateway_path(found), unreachable(found)) == (path, why)


def test_a_row_knows_the_generation_of_its_object() -> None:
    assert row_of(body(said("Ready", "True"), generation=2)).generation == 2


def test_an_object_without_status_is_pending() -> None:
    found = body()
    del found["status"]
    assert row_of(found).state == "Pending"
    assert not_true(found) == []


def test_conditions_that_are_not_true_with_the_summary_last() -> None:
    found = body(said("Ready", "False"), said("Accepted", "True"), said("Available", "Unknown"))
    assert [condition["type"] for condition in not_true(found)] == ["Available", "Ready"]


def test_keys_name_the_namespace_only_when_it_is_not_the_default() -> None:
    assert str(KEY) == "Agent/a"
    assert str(Key("Agent", "team", "a")) == "Agent/team/a"


def test_a_download_has_its_progress() -> None:
    found = body(said("Ready", "False"))
    found["status"]["pull"] = {"completed": 20, "total": 80}
    assert row_of(found).progress == 0.25
    found["status"]["pull"] = {"completed": 20, "total": 0}
    assert row_of(found).progress is None
