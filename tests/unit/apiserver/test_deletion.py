"""Deleting: finalizers, grace, owners, namespaces."""

from typing import Any

import pytest

from kaos.local.apiserver.errors import StatusError
from tests.unit.apiserver.support import World, definition, deployment, widget, with_widgets


@pytest.fixture
def world() -> World:
    return World()


def owned_by(owner: dict[str, Any], *, block: bool = True) -> list[dict[str, Any]]:
    return [
        {
            "apiVersion": owner.get("apiVersion", "v1"),
            "kind": owner.get("kind", "ConfigMap"),
            "name": owner["metadata"]["name"],
            "uid": owner["metadata"]["uid"],
            "blockOwnerDeletion": block,
        }
    ]


def test_finalizers_hold_an_object_till_the_last_is_off(world: World) -> None:
    world.config_map("a", finalizers=["x.io/y"])
    assert world.delete("v1", "ConfigMap", "a") is False
    marked = world.get("v1", "ConfigMap", "a")
    assert marked is not None
    assert marked["metadata"]["deletionTimestamp"]
    before = world.store.rv
    world.delete("v1", "ConfigMap", "a")
    assert world.store.rv == before, "a second delete changes nothing"
    with pytest.raises(StatusError, match="no new finalizers can be added"):
        world.merge("v1", "ConfigMap", "a", {"metadata": {"finalizers": ["x.io/y", "z.io/z"]}})
    world.merge("v1", "ConfigMap", "a", {"metadata": {"finalizers": None}})
    assert world.get("v1", "ConfigMap", "a") is None


def test_preconditions(world: World) -> None:
    made = world.config_map("a")
    with pytest.raises(StatusError, match="Precondition failed: UID") as caught:
        world.delete("v1", "ConfigMap", "a", uid="other")
    assert caught.value.code == 409
    assert world.delete("v1", "ConfigMap", "a", uid=made["metadata"]["uid"])


def pod(world: World, **spec: Any) -> None:
    containers = [{"name": "c", "image": "x:1"}]
    world.create(
        "v1", "Pod", {"metadata": {"name": "p"}, "spec": {"containers": containers, **spec}}
    )


def test_a_pod_that_runs_nowhere_goes_at_once(world: World) -> None:
    pod(world)
    assert world.delete("v1", "Pod", "p")


def test_a_pod_on_a_node_is_the_nodes_to_remove(world: World) -> None:
    pod(world, nodeName="n", terminationGracePeriodSeconds=5)
    assert world.delete("v1", "Pod", "p") is False
    marked = world.get("v1", "Pod", "p")
    assert marked is not None
    assert marked["metadata"]["deletionGracePeriodSeconds"] == 5
    assert marked["metadata"]["deletionTimestamp"] == "2026-01-01T00:00:05Z"
    world.merge("v1", "Pod", "p", {"status": {"phase": "Running"}}, subresource="status")
    assert world.get("v1", "Pod", "p") is not None
    assert world.delete("v1", "Pod", "p", grace=0)


def test_dependents_follow_their_owner(world: World) -> None:
    top = world.config_map("top")
    middle = world.config_map("middle", ownerReferences=owned_by(top))
    world.config_map("bottom", ownerReferences=owned_by(middle))
    world.delete("v1", "ConfigMap", "top")
    world.collector.work()
    assert world.names("v1", "ConfigMap") == []


def test_a_dependent_with_another_owner_stays_and_forgets_the_gone_one(world: World) -> None:
    first, second = world.config_map("first"), world.config_map("second")
    world.config_map("child", ownerReferences=owned_by(first) + owned_by(second))
    world.delete("v1", "ConfigMap", "first")
    world.collector.work()
    child = world.get("v1", "ConfigMap", "child")
    assert child is not None
    assert [owner["name"] for owner in child["metadata"]["ownerReferences"]] == ["second"]


def test_an_owner_of_that_name_with_another_uid_is_no_owner(world: World) -> None:
    owner = world.config_map("owner")
    ghost = {**owner, "metadata": {**owner["metadata"], "uid": "0-0"}}
    world.config_map("child", ownerReferences=owned_by(ghost))
    world.collector.work()
    assert world.names("v1", "ConfigMap") == ["owner"]


def test_an_owner_of_an_unknown_kind_counts_as_there(world: World) -> None:
    ghost = {"apiVersion": "nobody.io/v1", "kind": "Ghost", "metadata": {"name": "g", "uid": "1"}}
    world.config_map("child", ownerReferences=owned_by(ghost))
    world.collector.work()
    assert world.names("v1", "ConfigMap") == ["child"]


def test_a_child_whose_owners_kind_was_away_goes_when_the_kind_is_back(world: World) -> None:
    ghost = {**widget("ghost", size=1), "metadata": {"name": "ghost", "uid": "0-0"}}
    world.config_map("child", ownerReferences=owned_by(ghost))
    world.collector.work()
    assert world.names("v1", "ConfigMap") == ["child"]
    crd = "CustomResourceDefinition"
    world.create("apiextensions.k8s.io/v1", crd, definition(), namespace="")
    world.collector.work()
    assert world.names("v1", "ConfigMap") == []


def test_foreground_lets_the_owner_go_last(world: World) -> None:
    owner = world.config_map("owner")
    world.config_map("child", ownerReferences=owned_by(owner), finalizers=["x.io/y"])
    assert world.delete("v1", "ConfigMap", "owner", propagation="Foreground") is False
    world.collector.work()
    held = world.get("v1", "ConfigMap", "owner")
    assert held is not None
    assert held["metadata"]["finalizers"] == ["foregroundDeletion"]
    world.merge("v1", "ConfigMap", "child", {"metadata": {"finalizers": None}})
    world.collector.work()
    assert world.names("v1", "ConfigMap") == []


def test_foreground_does_not_wait_for_those_that_do_not_block(world: World) -> None:
    owner = world.config_map("owner")
    world.config_map("child", ownerReferences=owned_by(owner, block=False), finalizers=["x.io/y"])
    world.delete("v1", "ConfigMap", "owner", propagation="Foreground")
    world.collector.work()
    assert world.names("v1", "ConfigMap") == ["child"]


def test_orphans_stay_without_the_reference(world: World) -> None:
    owner = world.config_map("owner")
    world.config_map("child", ownerReferences=owned_by(owner))
    world.delete("v1", "ConfigMap", "owner", propagation="Orphan")
    world.collector.work()
    child = world.get("v1", "ConfigMap", "child")
    assert child is not None
    assert "ownerReferences" not in child["metadata"]
    assert world.names("v1", "ConfigMap") == ["child"]


def test_owners_are_known_after_a_restart(world: World) -> None:
    owner = world.config_map("owner")
    world.config_map("child", ownerReferences=owned_by(owner))
    again = World(world.store)
    again.delete("v1", "ConfigMap", "owner")
    again.collector.work()
    assert again.names("v1", "ConfigMap") == []


def test_a_namespace_goes_after_what_is_in_it(world: World) -> None:
    world.create("v1", "Namespace", {"metadata": {"name": "ns"}}, namespace="")
    body = {"metadata": {"name": "a", "finalizers": ["x.io/y"]}}
    world.create("v1", "ConfigMap", body, namespace="ns")
    world.create("apps/v1", "Deployment", deployment(), namespace="ns")
    world.delete("v1", "Namespace", "ns", namespace="")
    world.collector.work()
    held = world.get("v1", "Namespace", "ns", namespace="")
    assert held is not None
    assert held["status"]["phase"] == "Terminating"
    assert world.names("apps/v1", "Deployment") == []
    with pytest.raises(StatusError, match="because it is being terminated") as caught:
        world.create("v1", "ConfigMap", {"metadata": {"name": "late"}}, namespace="ns")
    assert caught.value.to_dict()["details"]["causes"][0]["reason"] == "NamespaceTerminating"
    world.merge("v1", "ConfigMap", "a", {"metadata": {"finalizers": None}}, namespace="ns")
    world.collector.work()
    assert world.get("v1", "Namespace", "ns", namespace="") is None


@pytest.mark.parametrize("name", ["default", "kube-system", "kube-public"])
def test_the_namespaces_that_every_cluster_has_stay(world: World, name: str) -> None:
    if world.get("v1", "Namespace", name, namespace="") is None:
        world.create("v1", "Namespace", {"metadata": {"name": name}}, namespace="")
    with pytest.raises(StatusError, match="this namespace may not be deleted") as caught:
        world.delete("v1", "Namespace", name, namespace="")
    assert caught.value.to_dict()["code"] == 403


def test_a_definition_goes_after_its_objects() -> None:
    world = with_widgets()
    world.create("test.io/v1", "Widget", widget("a", size=1))
    held = {**widget("b", size=1), "metadata": {"name": "b", "finalizers": ["x.io/y"]}}
    world.create("test.io/v1", "Widget", held)
    crd = ("apiextensions.k8s.io/v1", "CustomResourceDefinition", "widgets.test.io")
    assert world.delete(*crd, namespace="") is False
    world.collector.work()
    assert world.names("test.io/v1", "Widget") == ["b"]
    world.merge("test.io/v1", "Widget", "b", {"metadata": {"finalizers": None}})
    world.collector.work()
    assert world.get(*crd, namespace="") is None
    assert world.registry.find_kind("test.io/v1", "Widget") is None
