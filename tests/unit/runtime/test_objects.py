"""Small helpers around objects: conditions, owners, discovery, merge patches."""

import asyncio
import json
from typing import Any

import pytest

from kaos.runtime import (
    Object,
    ResourceType,
    UnknownKind,
    condition,
    find_condition,
    is_true,
    merge_conditions,
    set_controller_reference,
)
from kaos.runtime.discovery import Discovery
from kaos.runtime.informer import merge_patch
from kaos.runtime.transport import HttpRequest, HttpResponse
from tests.unit.runtime.fake import FakeServer


def owner(namespace: str = "ns", uid: str = "u") -> Object:
    metadata = {"name": "o", "namespace": namespace, "uid": uid}
    return Object.from_dict({"apiVersion": "x/v1", "kind": "Owner", "metadata": metadata})


def child(**meta: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"} | meta}


def test_transition_times_move_only_when_the_status_does() -> None:
    first = condition("Ready", False, "Waiting", "not yet", generation=1)
    old = merge_conditions([], [first], now="T1")
    same = merge_conditions(
        old, [condition("Ready", False, "Other", "still not", generation=2)], now="T2"
    )
    assert same[0]["lastTransitionTime"] == "T1"
    assert same[0]["reason"] == "Other"
    new = merge_conditions(
        same, [condition("Ready", True, "Done", "it is", generation=2)], now="T3"
    )
    assert new[0]["lastTransitionTime"] == "T3"
    assert is_true(new, "Ready")
    assert not is_true(new, "Other")


def test_conditions_of_others_are_kept_in_their_order() -> None:
    old = [{"type": "Theirs", "status": "True"}, {"type": "Ready", "status": "False"}]
    new = merge_conditions(old, [condition("New", None, "R", "m", generation=1)], now="T")
    assert [c["type"] for c in new] == ["Theirs", "Ready", "New"]
    found = find_condition(new, "New")
    assert found is not None
    assert found["status"] == "Unknown"


def test_a_controller_reference() -> None:
    made = set_controller_reference(owner(), child(namespace="ns"))
    assert made["metadata"]["ownerReferences"] == [
        {
            "apiVersion": "x/v1",
            "kind": "Owner",
            "name": "o",
            "uid": "u",
            "controller": True,
            "blockOwnerDeletion": True,
        }
    ]
    again = set_controller_reference(owner(), made)
    assert len(again["metadata"]["ownerReferences"]) == 1


@pytest.mark.parametrize(
    ("who", "meta", "message"),
    [
        (owner(), {"namespace": "other"}, "cannot be owned"),
        (owner(), {}, "in no namespace"),
        (owner(uid=""), {"namespace": "ns"}, "has no uid"),
        (
            owner(),
            {
                "namespace": "ns",
                "ownerReferences": [
                    {"uid": "2", "kind": "Boss", "name": "big", "controller": True}
                ],
            },
            "already controlled by Boss big",
        ),
    ],
)
def test_references_that_would_lose_the_child_are_refused(
    who: Object, meta: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        set_controller_reference(who, child(**meta))


def test_a_cluster_scoped_owner_may_own_anything() -> None:
    set_controller_reference(owner(namespace=""), child(namespace="ns"))
    set_controller_reference(owner(namespace=""), child())


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [1]}, {"a": [2]}, {"a": [2]}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
        ("x", {"a": 1}, {"a": 1}),
    ],
)
def test_merge_patches_as_in_rfc_7386(target: Any, patch: Any, result: Any) -> None:
    assert merge_patch(target, patch) == result


class Plain(FakeServer):
    """A server from before aggregated discovery."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds = ["Thing"]

    async def request(self, request: HttpRequest) -> HttpResponse:
        self.requests.append((0.0, request))
        resources = [
            {"name": f"{kind.lower()}s{sub}", "kind": kind, "namespaced": True}
            for kind in self.kinds
            for sub in ("", "/status")
        ]
        bodies: dict[str, Any] = {
            "/api": {"kind": "APIVersions", "versions": ["v1"]},
            "/api/v1": {"groupVersion": "v1", "resources": []},
            "/apis": {"groups": [{"versions": [{"groupVersion": "example.com/v1"}]}]},
            "/apis/example.com/v1": {"groupVersion": "example.com/v1", "resources": resources},
        }
        return HttpResponse(200, json.dumps(bodies[request.path]).encode())


@pytest.mark.looptime
async def test_discovery_of_older_servers_and_of_kinds_that_come_later() -> None:
    server = Plain()
    discovery = Discovery(server)
    thing = ResourceType("example.com", "v1", "Thing", "things")
    assert await discovery.find("example.com/v1", "Thing") == thing
    asked = len(server.requests)
    assert await discovery.find("example.com/v1", "Thing") == thing
    await discovery.find("apps/v1", "Deployment")
    assert len(server.requests) == asked  # what is known is not asked for
    await asyncio.sleep(1)
    for _ in range(2):
        with pytest.raises(UnknownKind, match=r"Late in example\.com/v1"):
            await discovery.find("example.com/v1", "Late")
    assert len(server.requests) == 2 * asked  # a miss is not asked for at every call
    server.kinds.append("Late")
    await asyncio.sleep(1)
    assert (await discovery.find("example.com/v1", "Late")).plural == "lates"


def test_a_reader_cannot_change_what_others_read() -> None:
    """One stray assignment to a label of a cached object used to reach every other reader."""
    obj = Object.from_dict(
        {"metadata": {"name": "a", "labels": {"app": "a"}, "annotations": {"n": "1"}}}
    )
    obj.metadata.labels["app"] = "b"
    obj.metadata.annotations.clear()
    obj.spec["n"] = 1
    assert (obj.metadata.labels, obj.metadata.annotations, obj.spec) == (
        {"app": "a"},
        {"n": "1"},
        {},
    )
    assert obj.to_dict()["metadata"]["labels"] == {"app": "a"}
