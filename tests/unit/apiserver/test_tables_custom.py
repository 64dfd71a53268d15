"""Tables of custom kinds, and of objects that fit no kind."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kaos.local.apiserver.registry import Kind
from kaos.local.apiserver.tables import render_table
from tests.unit.apiserver.rows import KINDS, NOW, named, row

AGENT = Kind(
    "kaos.tools",
    "v1alpha1",
    "Agent",
    "AgentList",
    "agents",
    "agent",
    crd="agents.kaos.tools",
    printer_columns=(
        {"name": "Ready", "type": "boolean", "jsonPath": ".status.ready"},
        {"name": "Model", "type": "string", "jsonPath": r".metadata.labels['kaos\.tools/model']"},
        {
            "name": "Why",
            "type": "string",
            "jsonPath": '.status.conditions[?(@.type=="Ready")].reason',
        },
        {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas"},
        {"name": "Env", "type": "string", "jsonPath": ".spec.env", "priority": 1},
        {"name": "Broken", "type": "string", "jsonPath": ".spec[", "priority": 1},
        {"name": "Seen", "type": "date", "jsonPath": ".status.seen"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ),
)


def test_custom_kind_shows_the_columns_of_its_definition() -> None:
    obj = named(
        "a",
        spec={"replicas": 2, "env": [{"name": "A"}]},
        status={
            "ready": True,
            "seen": "yesterday",
            "conditions": [{"type": "Accepted"}, {"type": "Ready", "reason": "Up"}],
        },
    )
    obj["metadata"]["labels"] = {"kaos.tools/model": "smol"}
    assert row(AGENT, obj, wide=True) == {
        "Name": "a",
        "Ready": True,
        "Model": "smol",
        "Why": "Up",
        "Replicas": 2,
        "Env": '[{"name":"A"}]',
        "Broken": None,
        "Seen": "<invalid>",
        "Age": "3m",
    }
    assert set(row(AGENT, obj)).isdisjoint({"Env", "Broken"})


def test_custom_kind_without_columns_shows_name_and_age() -> None:
    assert row(replace(AGENT, printer_columns=()), named("a")) == {"Name": "a", "Age": "3m"}


def test_empty_custom_object_has_empty_cells() -> None:
    cells = row(AGENT, {"metadata": {"name": "a"}})
    assert cells == {"Name": "a", **dict.fromkeys(["Ready", "Model", "Why"]),
        "Replicas": None, "Seen": None, "Age": None
    }  # fmt: skip


@pytest.mark.parametrize(
    ("include", "expected"),
    [
        ("None", None),
        ("Object", named("a", spec={})),
        (
            "Metadata",
            {
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": named("a")["metadata"],
            },
        ),
    ],
)
def test_rows_carry_what_was_asked_for(include: str, expected: object) -> None:
    table = render_table(
        AGENT,
        [named("a", spec={})],
        list_metadata={"resourceVersion": "7"},
        now=NOW,
        include=include,
    )
    assert table["rows"][0]["object"] == expected
    assert table["metadata"] == {"resourceVersion": "7"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text("aR", max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "metadata",
                    "name",
                    "creationTimestamp",
                    "spec",
                    "status",
                    "state",
                    "terminated",
                    "waiting",
                    "containers",
                    "containerStatuses",
                    "initContainers",
                    "initContainerStatuses",
                    "conditions",
                    "type",
                    "ports",
                    "endpoints",
                    "addresses",
                    "subsets",
                    "metrics",
                    "resource",
                    "target",
                    "labels",
                    "selector",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=60)
@given(st.dictionaries(st.sampled_from(["metadata", "spec", "status", "data"]), JSON))
def test_no_object_however_odd_makes_a_table_fail(obj: dict[str, Any]) -> None:
    for kind in (*KINDS.values(), AGENT):
        assert render_table(kind, [obj], list_metadata={}, now=NOW)["rows"]
