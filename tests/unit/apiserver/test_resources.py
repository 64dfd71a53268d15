"""The verbs: what a write sets, keeps and refuses."""

from typing import Any

import pytest

from kaos.local.apiserver.errors import StatusError
from kaos.local.apiserver.options import WriteOptions
from tests.unit.apiserver.support import World, deployment


@pytest.fixture
def world() -> World:
    return World()


def refused(code: int, call: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
    with pytest.raises(StatusError) as caught:
        call(*args, **kwargs)
    assert caught.value.code == code, caught.value
    return caught.value.to_dict()


def test_create_sets_what_the_server_owns(world: World) -> None:
    spoofed = {"uid": "mine", "creationTimestamp": "1999-01-01T00:00:00Z", "generation": 9}
    made = world.create(
        "apps/v1", "Deployment", {**deployment(), "metadata": {"name": "web", **spoofed}}
    )
    metadata = made["metadata"]
    assert metadata["uid"] != "mine"
    assert metadata["creationTimestamp"] == "2026-01-01T00:00:00Z"
    assert metadata["generation"] == 1
    assert metadata["resourceVersion"] == str(world.store.rv)


def test_generate_name(world: World) -> None:
    made = world.create("v1", "ConfigMap", {"metadata": {"generateName": "job-"}})
    assert made["metadata"]["name"].startswith("job-")
    assert len(made["metadata"]["name"]) == 9


def test_defaults_of_a_deployment(world: World) -> None:
    spec = world.create("apps/v1", "Deployment", deployment())["spec"]
    assert spec["replicas"] == 1
    assert spec["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"},
    }
    pod = spec["template"]["spec"]
    assert pod["restartPolicy"] == "Always"
    assert pod["terminationGracePeriodSeconds"] == 30
    assert pod["containers"][0]["imagePullPolicy"] == "IfNotPresent"
    assert pod["containers"][0]["ports"] == [{"containerPort": 80, "protocol": "TCP"}]


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("a", "Always"),
        ("r:5000/a", "Always"),
        ("a:latest", "Always"),
        ("r:5/a:1", "IfNotPresent"),
        ("a@sha256:0", "IfNotPresent"),
    ],
)
def test_pull_policy_follows_the_tag(world: World, image: str, policy: str) -> None:
    body = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": image}]}}
    pod = world.create("v1", "Pod", body)
    assert pod["spec"]["containers"][0]["imagePullPolicy"] == policy


def test_generation_counts_changes_of_the_spec_only(world: World) -> None:
    world.create("apps/v1", "Deployment", deployment())
    for patch, generation in (
        ({"metadata": {"labels": {"x": "y"}}}, 1),
        ({"spec": {"replicas": 3}}, 2),
        ({"spec": {"replicas": 3}}, 2),
    ):
        made = world.merge("apps/v1", "Deployment", "web", patch)
        assert made["metadata"]["generation"] == generation
    made = world.merge(
        "apps/v1", "Deployment", "web", {"status": {"replicas": 1}}, subresource="status"
    )
    assert made["metadata"]["generation"] == 2


def test_status_and_the_rest_are_written_apart(world: World) -> None:
    world.create("apps/v1", "Deployment", {**deployment(), "status": {"replicas": 7}})
    made = world.merge("apps/v1", "Deployment", "web", {"status": {"replicas": 7}})
    assert made["status"] == {}
    patch = {"status": {"replicas": 7}, "spec": {"replicas": 9}, "metadata": {"labels": {"l": "m"}}}
    made = world.merge("apps/v1", "Deployment", "web", patch, subresource="status")
    assert made["status"] == {"replicas": 7}
    assert made["spec"]["replicas"] == 1
    assert "labels" not in made["metadata"]


def test_a_write_that_changes_nothing_makes_no_revision(world: World) -> None:
    world.create("apps/v1", "Deployment", deployment())
    before = world.store.rv
    world.tick()
    made = world.merge("apps/v1", "Deployment", "web", {"spec": {"replicas": 1}}, manager="other")
    assert world.store.rv == before
    assert made["metadata"]["resourceVersion"] == str(before)


def test_one_is_not_true(world: World) -> None:
    # Python holds 1 == True; the two are different JSON, and so different objects.
    kind = world.kind("gateway.networking.k8s.io/v1", "HTTPRoute")
    body = {"metadata": {"name": "r"}, "spec": {"flag": 1}}
    world.resources.create(kind, "default", body, WriteOptions())
    before = world.store.rv
    world.merge("gateway.networking.k8s.io/v1", "HTTPRoute", "r", {"spec": {"flag": True}})
    assert world.store.rv == before + 1


def test_put_of_an_old_revision_is_a_conflict(world: World) -> None:
    first = world.config_map("a", {"k": "1"})
    world.merge("v1", "ConfigMap", "a", {"data": {"k": "2"}})
    kind = world.kind("v1", "ConfigMap")
    status = refused(409, world.resources.update, kind, "default", "a", first, WriteOptions())
    assert status["reason"] == "Conflict"
    assert status["message"] == (
        'Operation cannot be fulfilled on configmaps "a": the object has been modified; '
        "please apply your changes to the latest version and try again"
    )


def test_put_without_resource_version(world: World) -> None:
    world.config_map("a")
    kind = world.kind("v1", "ConfigMap")
    body = {"metadata": {"name": "a"}, "data": {"k": "v"}}
    assert world.resources.update(kind, "default", "a", body, WriteOptions()).obj["data"]
    world.create("coordination.k8s.io/v1", "Lease", {"metadata": {"name": "l"}, "spec": {}})
    lease = {"metadata": {"name": "l"}, "spec": {"holderIdentity": "me"}}
    kind = world.kind("coordination.k8s.io/v1", "Lease")
    status = refused(422, world.resources.update, kind, "default", "l", lease, WriteOptions())
    assert "metadata.resourceVersion: Invalid value: 0: must be specified" in status["message"]


def test_put_of_another_uid_is_a_conflict(world: World) -> None:
    world.config_map("a")
    kind = world.kind("v1", "ConfigMap")
    body = {"metadata": {"name": "a", "uid": "other"}}
    refused(409, world.resources.update, kind, "default", "a", body, WriteOptions())


def test_dry_run_keeps_nothing_and_shows_everything(world: World) -> None:
    before = world.store.rv
    made = world.create("v1", "Service", service(), dry_run=True)
    assert made["spec"]["clusterIP"]
    assert made["metadata"]["uid"]
    assert world.store.rv == before


@pytest.mark.parametrize(
    ("name", "code"), [("", 422), ("Upper", 422), ("a..b", 422), ("x" * 254, 422), ("a.b-c", 0)]
)
def test_names(world: World, name: str, code: int) -> None:
    if code:
        status = refused(code, world.config_map, name)
        assert status["details"]["causes"][0]["field"] == "metadata.name"
    else:
        world.config_map(name)


def test_all_faults_are_told_at_once(world: World) -> None:
    status = refused(422, world.config_map, "Bad", labels={"a b": "c d"})
    assert len(status["details"]["causes"]) == 3
    assert status["message"].startswith('ConfigMap "Bad" is invalid: [metadata.name: Invalid value')


def test_a_namespace_must_exist(world: World) -> None:
    body = {"metadata": {"name": "a"}}
    status = refused(404, world.create, "v1", "ConfigMap", body, namespace="nope")
    assert status["message"] == 'namespaces "nope" not found'


@pytest.mark.parametrize(
    "body",
    [None, [], "x", {"metadata": "x"}, {"metadata": {"labels": ["x"]}},
     {"metadata": {"name": 5}}, {"metadata": {"finalizers": "x"}},
     {"metadata": {"name": "d"}, "spec": "x"},
     {"metadata": {"name": "d"}, "spec": {"template": 5}},
     {"metadata": {"name": "d"}, "spec": {"template": {"spec": {"containers": [5]}}}},
     {"apiVersion": "v1", "metadata": {"name": "d"}}, {"kind": "Pod", "metadata": {"name": "d"}}],
)  # fmt: skip
def test_what_is_no_object_is_the_clients_fault(world: World, body: Any) -> None:
    refused(400, world.create, "apps/v1", "Deployment", body)


def test_the_selector_of_a_deployment_is_immutable(world: World) -> None:
    world.create("apps/v1", "Deployment", deployment())
    patch = {"spec": {"selector": {"matchLabels": {"z": "z"}}}}
    status = refused(422, world.merge, "apps/v1", "Deployment", "web", patch)
    fields = [cause["field"] for cause in status["details"]["causes"]]
    assert fields == ["spec.template.metadata.labels", "spec.selector"]
    assert status["details"]["kind"] == "Deployment"


def test_a_running_pod_keeps_its_spec(world: World) -> None:
    body = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "x:1"}]}}
    world.create("v1", "Pod", body)
    world.merge("v1", "Pod", "p", {"spec": {"nodeName": "n"}})
    refused(422, world.merge, "v1", "Pod", "p", {"spec": {"nodeName": "m"}})
    refused(422, world.merge, "v1", "Pod", "p", {"spec": {"hostname": "h"}})
    image = [{"name": "c", "image": "x:2"}]
    containers = world.get("v1", "Pod", "p")
    assert containers is not None
    patched = [{**containers["spec"]["containers"][0], **image[0]}]
    world.merge("v1", "Pod", "p", {"spec": {"containers": patched}})


def service(name: str = "s", **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], **spec}}


def test_services_get_addresses_of_their_own_and_keep_them(world: World) -> None:
    first = world.create("v1", "Service", service("a"))["spec"]
    second = world.create("v1", "Service", service("b", type="NodePort"))["spec"]
    third = world.create("v1", "Service", service("c", clusterIP="None"))["spec"]
    assert first["clusterIP"].startswith("10.96.")
    assert first["clusterIP"] != second["clusterIP"]
    assert first["ports"] == [{"port": 80, "protocol": "TCP", "targetPort": 80}]
    assert second["ports"][0]["nodePort"] >= 30000
    assert third["clusterIP"] == "None"
    kind = world.kind("v1", "Service")
    bare = service("a", selector={"x": "y"})
    kept = world.resources.update(kind, "default", "a", bare, WriteOptions()).obj["spec"]
    assert kept["clusterIP"] == first["clusterIP"]
    refused(422, world.merge, "v1", "Service", "a", {"spec": {"clusterIP": "10.96.9.9"}})


def test_an_address_of_a_deleted_service_is_free_again(world: World) -> None:
    taken = world.create("v1", "Service", service("a"))["spec"]["clusterIP"]
    world.delete("v1", "Service", "a")
    made = world.create("v1", "Service", service("b", clusterIP=taken))
    assert made["spec"]["clusterIP"] == taken


def test_secrets_take_plain_strings_and_tell_no_values(world: World) -> None:
    made = world.create("v1", "Secret", {"metadata": {"name": "s"}, "stringData": {"k": "v"}})
    assert made["data"] == {"k": "dg=="}
    assert made["type"] == "Opaque"
    bad = {"metadata": {"name": "t"}, "data": {"k": "hunter2!"}}
    assert "hunter2" not in refused(400, world.create, "v1", "Secret", bad)["message"]


def test_immutable_config_maps_stay(world: World) -> None:
    world.create(
        "v1", "ConfigMap", {"metadata": {"name": "i"}, "immutable": True, "data": {"a": "b"}}
    )
    refused(422, world.merge, "v1", "ConfigMap", "i", {"data": {"a": "c"}})
    world.merge("v1", "ConfigMap", "i", {"metadata": {"labels": {"x": "y"}}})


def test_scale_is_the_replicas(world: World) -> None:
    world.create("apps/v1", "Deployment", deployment())
    scaled = world.merge(
        "apps/v1", "Deployment", "web", {"spec": {"replicas": 4}}, subresource="scale"
    )
    assert scaled["kind"] == "Scale"
    assert scaled["status"]["selector"] == "a=b"
    made = world.get("apps/v1", "Deployment", "web")
    assert made is not None
    assert made["spec"]["replicas"] == 4
    assert made["metadata"]["generation"] == 2


def test_an_event_is_one_object_in_two_groups(world: World) -> None:
    regarding = {"kind": "Pod", "name": "p", "namespace": "default"}
    body = {"metadata": {"name": "e"}, "note": "hi", "regarding": regarding}
    world.create("events.k8s.io/v1", "Event", body)
    core = world.get("v1", "Event", "e")
    assert core is not None
    assert core["message"] == "hi"
    assert core["involvedObject"] == regarding
    assert core["apiVersion"] == "v1"


def test_unknown_fields_of_a_built_in_kind_are_told_or_refused(world: World) -> None:
    kind = world.kind("apps/v1", "Deployment")
    body = deployment(replica=3)
    written = world.resources.create(kind, "default", body, WriteOptions(validation="Warn"))
    assert written.warnings == ('unknown field "spec.replica"',)
    body = deployment("other", replica=3)
    strict = WriteOptions(validation="Strict")
    status = refused(400, world.resources.create, kind, "default", body, strict)
    assert status["message"] == (
        'Deployment in version "v1" cannot be handled as a Deployment: strict decoding error: '
        'unknown field "spec.replica"'
    )


def test_a_value_of_another_type_is_refused_in_a_built_in_kind(world: World) -> None:
    kind = world.kind("v1", "ConfigMap")
    body = {"metadata": {"name": "c"}, "data": {"on": True}}
    status = refused(400, world.resources.create, kind, "default", body, WriteOptions())
    assert status["message"] == (
        'ConfigMap in version "v1" cannot be handled as a ConfigMap: '
        "data.on: expected string, found boolean"
    )


def test_a_namespace_can_be_finalized_by_hand(world: World) -> None:
    world.create("v1", "Namespace", {"metadata": {"name": "ns"}}, namespace="")
    world.delete("v1", "Namespace", "ns", namespace="")
    kind = world.kind("v1", "Namespace")
    body = {"metadata": {"name": "ns"}, "spec": {"finalizers": []}}
    world.resources.update(kind, "", "ns", body, WriteOptions(), "finalize")
    assert world.get("v1", "Namespace", "ns", namespace="") is None


POD_SPEC = {
    "containers": [
        {
            "name": "c",
            "image": "x:1",
            "livenessProbe": {"httpGet": {"port": 80}},
            "lifecycle": {"preStop": {"httpGet": {"port": 80}}},
            "env": [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
        }
    ],
    "volumes": [{"name": "v"}, {"name": "w", "configMap": {"name": "z"}}],
    "serviceAccountName": "robot",
}


def test_defaults_of_a_pod(world: World) -> None:
    made = world.create("v1", "Pod", {"metadata": {"name": "p"}, "spec": POD_SPEC})
    container = made["spec"]["containers"][0]
    assert container["livenessProbe"] == {
        "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
        "timeoutSeconds": 1,
        "periodSeconds": 10,
        "successThreshold": 1,
        "failureThreshold": 3,
    }
    assert container["lifecycle"]["preStop"]["httpGet"]["scheme"] == "HTTP"
    assert container["env"][0]["valueFrom"]["fieldRef"]["apiVersion"] == "v1"
    assert container["resources"]["requests"] == {"cpu": "1", "memory": "1Gi"}
    assert made["spec"]["volumes"][0] == {"name": "v", "emptyDir": {}}
    assert made["spec"]["volumes"][1]["configMap"]["defaultMode"] == 420
    assert made["spec"]["serviceAccount"] == "robot"
    assert made["status"] == {"phase": "Pending", "qosClass": "Guaranteed"}


@pytest.mark.parametrize(
    ("api_version", "kind", "spec", "defaults"),
    [
        (
            "networking.k8s.io/v1",
            "NetworkPolicy",
            {"egress": [{"ports": [{"port": 53}]}]},
            {
                "podSelector": {},
                "policyTypes": ["Ingress", "Egress"],
                "egress": [{"ports": [{"port": 53, "protocol": "TCP"}]}],
            },
        ),
        ("v1", "PersistentVolumeClaim", {}, {"volumeMode": "Filesystem"}),
        ("apps/v1", "StatefulSet", None, {"podManagementPolicy": "OrderedReady", "replicas": 1}),
        ("apps/v1", "DaemonSet", None, {"revisionHistoryLimit": 10}),
        ("autoscaling/v2", "HorizontalPodAutoscaler", {"maxReplicas": 3}, {"minReplicas": 1}),
    ],
)
def test_defaults_of_other_kinds(
    world: World, api_version: str, kind: str, spec: Any, defaults: dict[str, Any]
) -> None:
    spec = deployment()["spec"] if spec is None else spec
    made = world.create(api_version, kind, {"metadata": {"name": "x"}, "spec": spec})
    assert {name: made["spec"][name] for name in defaults} == defaults


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"ports": []}, "spec.ports"),
        ({"ports": [{"port": 1}, {"port": 2, "name": "b"}]}, "spec.ports[0].name"),
        ({"ports": [{"port": 0}]}, "spec.ports[0].port"),
        ({"ports": [{"port": 1, "protocol": "HTTP"}]}, "spec.ports[0].protocol"),
        ({"type": "Best"}, "spec.type"),
    ],
)
def test_services_that_are_refused(world: World, spec: dict[str, Any], field: str) -> None:
    body = {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}], **spec}}
    status = refused(422, world.create, "v1", "Service", body)
    assert [cause["field"] for cause in status["details"]["causes"]] == [field]


def test_services_without_an_address(world: World) -> None:
    spec = {"type": "ExternalName", "externalName": "a.b"}
    made = world.create("v1", "Service", {"metadata": {"name": "x"}, "spec": spec})
    assert "clusterIP" not in made["spec"]
