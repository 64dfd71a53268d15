"""What kubectl get prints: columns, cells, ages; for every kind, and for odd objects."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kaos.local.apiserver.builtin_kinds import builtin_kinds
from kaos.local.apiserver.jsonpath import compile_path
from kaos.local.apiserver.registry import Kind
from kaos.local.apiserver.table_cells import duration, selector
from kaos.local.apiserver.tables import render_table

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
KINDS = {(k.group, k.plural): k for k in builtin_kinds()}


def ago(**parts: float) -> str:
    return (NOW - timedelta(**parts)).strftime("%Y-%m-%dT%H:%M:%SZ")


def row(kind: Kind, obj: Mapping[str, Any], *, wide: bool = False) -> dict[str, Any]:
    """The cells of an object by column name, as kubectl shows them."""
    table = render_table(kind, [obj], list_metadata={}, now=NOW)
    cells = table["rows"][0]["cells"]
    columns = zip(table["columnDefinitions"], cells, strict=True)
    return {c["name"]: cell for c, cell in columns if wide or not c["priority"]}


def named(name: str, **fields: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "creationTimestamp": ago(minutes=3)}, **fields}


def container(ready: bool, **state: Any) -> dict[str, Any]:
    return {"name": "main", "ready": ready, "restartCount": 0, "state": state}


RUNNING = container(True, running={"startedAt": ago(minutes=1)})


def waiting(reason: str) -> dict[str, Any]:
    return container(False, waiting={"reason": reason})


def ended(code: int = 0, reason: str = "", **more: Any) -> dict[str, Any]:
    return container(False, terminated={"exitCode": code, "reason": reason, **more})


def pod(
    *statuses: dict[str, Any], phase: str = "Running", init: list[Any] | None = None, **more: Any
) -> dict[str, Any]:
    status = {"phase": phase, "containerStatuses": list(statuses), **more}
    spec: dict[str, Any] = {"containers": [{"name": "main"}] * max(1, len(statuses))}
    if init is not None:
        status["initContainerStatuses"] = init
        spec["initContainers"] = [{"name": f"init-{i}"} for i in range(2)]
    return named("web", spec=spec, status=status)


@pytest.mark.parametrize(
    ("obj", "ready", "status"),
    [
        (pod(phase="Pending"), "0/1", "Pending"),
        (pod(waiting("ContainerCreating"), phase="Pending"), "0/1", "ContainerCreating"),
        (pod(RUNNING), "1/1", "Running"),
        (pod(RUNNING, waiting("CrashLoopBackOff")), "1/2", "CrashLoopBackOff"),
        (pod(waiting("ErrImageNeverPull"), RUNNING), "1/2", "ErrImageNeverPull"),
        (pod(ended(reason="Completed"), phase="Succeeded"), "0/1", "Completed"),
        (pod(ended(1, "Error"), phase="Failed"), "0/1", "Error"),
        (pod(ended(3)), "0/1", "ExitCode:3"),
        (pod(ended(137, signal=9)), "0/1", "Signal:9"),
        (pod(phase="Failed", reason="Evicted"), "0/1", "Evicted"),
        (pod(ended(reason="Completed"), RUNNING), "1/2", "NotReady"),
        (
            pod(
                ended(reason="Completed"), RUNNING, conditions=[{"type": "Ready", "status": "True"}]
            ),
            "1/2",
            "Running",
        ),
        (pod(phase="Pending", init=[ended(0), container(False, running={})]), "0/1", "Init:1/2"),
        (pod(phase="Pending", init=[ended(2, "Error")]), "0/1", "Init:Error"),
        (pod(phase="Pending", init=[ended(2)]), "0/1", "Init:ExitCode:2"),
        (pod(phase="Pending", init=[waiting("CrashLoopBackOff")]), "0/1", "Init:CrashLoopBackOff"),
        (pod(phase="Pending", init=[waiting("PodInitializing")]), "0/1", "Init:0/2"),
        (pod(RUNNING, init=[ended(0), ended(0)]), "1/1", "Running"),
    ],
)
def test_pod_status(obj: dict[str, Any], ready: str, status: str) -> None:
    cells = row(KINDS["", "pods"], obj)
    assert (cells["Ready"], cells["Status"]) == (ready, status)


def test_pod_that_is_being_deleted_says_so_unless_it_has_ended() -> None:
    going = pod(RUNNING)
    going["metadata"]["deletionTimestamp"] = ago(seconds=1)
    assert row(KINDS["", "pods"], going)["Status"] == "Terminating"
    going["status"]["phase"] = "Succeeded"
    assert row(KINDS["", "pods"], going)["Status"] == "Succeeded"


def test_sidecar_counts_as_a_container() -> None:
    obj = pod(RUNNING, init=[])
    obj["spec"]["initContainers"] = [{"name": "side", "restartPolicy": "Always"}]
    side = {"name": "side", "ready": True, "started": True, "restartCount": 2, "state": {}}
    obj["status"]["initContainerStatuses"] = [side]
    cells = row(KINDS["", "pods"], obj)
    assert (cells["Ready"], cells["Status"], cells["Restarts"]) == ("2/2", "Running", "2")


def test_restarts_tell_when() -> None:
    again = {
        **RUNNING,
        "restartCount": 3,
        "lastState": {"terminated": {"finishedAt": ago(seconds=5)}},
    }
    cells = row(KINDS["", "pods"], pod(again, {**RUNNING, "restartCount": 1}))
    assert cells["Restarts"] == "4 (5s ago)"
    assert row(KINDS["", "pods"], pod(RUNNING))["Restarts"] == "0"


def test_wide_pod_tells_ip_and_node() -> None:
    obj = pod(RUNNING, podIP="127.0.0.1")
    cells = row(KINDS["", "pods"], obj, wide=True)
    assert (cells["IP"], cells["Node"], cells["Nominated Node"]) == (
        "127.0.0.1",
        "<none>",
        "<none>",
    )


@pytest.mark.parametrize(
    ("address", "obj", "cells"),
    [
        (
            ("apps", "deployments"),
            named(
                "d",
                spec={"replicas": 3},
                status={"readyReplicas": 1, "updatedReplicas": 2, "availableReplicas": 1},
            ),
            {"Name": "d", "Ready": "1/3", "Up-to-date": 2, "Available": 1, "Age": "3m"},
        ),
        (
            ("apps", "replicasets"),
            named("r", spec={"replicas": 0}, status={"replicas": 1}),
            {"Name": "r", "Desired": 0, "Current": 1, "Ready": 0, "Age": "3m"},
        ),
        (
            ("", "services"),
            named(
                "s",
                spec={
                    "type": "NodePort",
                    "clusterIP": "10.0.0.1",
                    "ports": [
                        {"port": 80, "nodePort": 30080, "protocol": "TCP"},
                        {"port": 53, "protocol": "UDP"},
                    ],
                },
            ),
            {
                "Name": "s",
                "Type": "NodePort",
                "Cluster-IP": "10.0.0.1",
                "External-IP": "<none>",
                "Port(s)": "80:30080/TCP,53/UDP",
                "Age": "3m",
            },
        ),
        (
            ("", "services"),
            named("s", spec={"type": "LoadBalancer"}),
            {
                "Name": "s",
                "Type": "LoadBalancer",
                "Cluster-IP": "<none>",
                "External-IP": "<pending>",
                "Port(s)": "<none>",
                "Age": "3m",
            },
        ),
        (
            ("", "configmaps"),
            named("c", data={"a": "1"}, binaryData={"b": "Mg=="}),
            {"Name": "c", "Data": 2, "Age": "3m"},
        ),
        (
            ("", "secrets"),
            named("s", type="Opaque", data={"a": "MQ=="}),
            {"Name": "s", "Type": "Opaque", "Data": 1, "Age": "3m"},
        ),
        (
            ("", "namespaces"),
            named("n", status={"phase": "Active"}),
            {"Name": "n", "Status": "Active", "Age": "3m"},
        ),
        (
            ("", "nodes"),
            {
                "metadata": {
                    "name": "local",
                    "creationTimestamp": ago(days=3),
                    "labels": {"node-role.kubernetes.io/control-plane": ""},
                },
                "spec": {"unschedulable": True},
                "status": {
                    "conditions": [{"type": "Ready", "status": "True"}],
                    "nodeInfo": {"kubeletVersion": "v1.34.0"},
                },
            },
            {
                "Name": "local",
                "Status": "Ready,SchedulingDisabled",
                "Roles": "control-plane",
                "Age": "3d",
                "Version": "v1.34.0",
            },
        ),
        (
            ("coordination.k8s.io", "leases"),
            named("l", spec={"holderIdentity": "me"}),
            {"Name": "l", "Holder": "me", "Age": "3m"},
        ),
        (
            ("discovery.k8s.io", "endpointslices"),
            named(
                "e",
                addressType="IPv4",
                ports=[{"port": 80}, {}],
                endpoints=[{"addresses": [f"10.0.0.{n}"]} for n in range(5)],
            ),
            {
                "Name": "e",
                "AddressType": "IPv4",
                "Ports": "80,*",
                "Endpoints": "10.0.0.0,10.0.0.1,10.0.0.2 + 2 more...",
                "Age": "3m",
            },
        ),
        (
            ("", "endpoints"),
            named("e", subsets=[{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]}]),
            {"Name": "e", "Endpoints": "10.0.0.1:80", "Age": "3m"},
        ),
        (
            ("", "persistentvolumeclaims"),
            named(
                "p",
                spec={"volumeName": "v", "storageClassName": "standard"},
                status={
                    "phase": "Bound",
                    "capacity": {"storage": "1Gi"},
                    "accessModes": ["ReadWriteOnce", "ReadOnlyMany"],
                },
            ),
            {
                "Name": "p",
                "Status": "Bound",
                "Volume": "v",
                "Capacity": "1Gi",
                "Access Modes": "RWO,ROX",
                "StorageClass": "standard",
                "Age": "3m",
            },
        ),
        (
            ("autoscaling", "horizontalpodautoscalers"),
            named(
                "h",
                spec={
                    "scaleTargetRef": {"kind": "Deployment", "name": "d"},
                    "maxReplicas": 5,
                    "metrics": [
                        {
                            "type": "Resource",
                            "resource": {"name": "cpu", "target": {"averageUtilization": 80}},
                        }
                    ],
                },
            ),
            {
                "Name": "h",
                "Reference": "Deployment/d",
                "Targets": "cpu: <unknown>/80%",
                "MinPods": "<unset>",
                "MaxPods": 5,
                "Replicas": 0,
                "Age": "3m",
            },
        ),
        (
            ("policy", "poddisruptionbudgets"),
            named("b", spec={"maxUnavailable": "50%"}, status={"disruptionsAllowed": 1}),
            {
                "Name": "b",
                "Min Available": "N/A",
                "Max Unavailable": "50%",
                "Allowed Disruptions": 1,
                "Age": "3m",
            },
        ),
        (
            ("gateway.networking.k8s.io", "httproutes"),
            named("r", spec={"hostnames": ["a", "b"]}),
            {"Name": "r", "Hostnames": '["a","b"]', "Age": "3m"},
        ),
        (
            ("", "events"),
            {
                **named("e"),
                "type": "Warning",
                "reason": "Failed",
                "involvedObject": {"kind": "Pod", "name": "web"},
                "message": "no",
                "lastTimestamp": ago(seconds=9),
            },
            {
                "Last Seen": "9s",
                "Type": "Warning",
                "Reason": "Failed",
                "Object": "pod/web",
                "Message": "no",
            },
        ),
        (
            ("events.k8s.io", "events"),
            {
                **named("e"),
                "type": "Normal",
                "reason": "Created",
                "regarding": {"kind": "Agent", "name": "a"},
                "note": "yes",
                "eventTime": ago(minutes=2),
            },
            {
                "Last Seen": "2m",
                "Type": "Normal",
                "Reason": "Created",
                "Object": "agent/a",
                "Message": "yes",
            },
        ),
        (("", "limitranges"), named("other"), {"Name": "other", "Age": "3m"}),
    ],
)
def test_columns_of_built_in_kinds(
    address: tuple[str, str], obj: dict[str, Any], cells: dict[str, Any]
) -> None:
    assert row(KINDS[address], obj) == cells


def test_wide_deployment_tells_containers_and_selector() -> None:
    template = {"spec": {"containers": [{"name": "a", "image": "x:1"}, {"name": "b"}]}}
    obj = named("d", spec={"selector": {"matchLabels": {"app": "d"}}, "template": template})
    cells = row(KINDS["apps", "deployments"], obj, wide=True)
    assert (cells["Containers"], cells["Images"], cells["Selector"]) == (
        "a,b",
        "x:1,<none>",
        "app=d",
    )


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


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "<invalid>"),
        (-1, "0s"),
        (119, "119s"),
        (120, "2m"),
        (200, "3m20s"),
        (600, "10m"),
        (3 * 3600, "3h"),
        (3 * 3600 + 60, "3h1m"),
        (8 * 3600 + 60, "8h"),
        (2 * 86400, "2d"),
        (2 * 86400 + 3 * 3600, "2d3h"),
        (8 * 86400 + 3600, "8d"),
        (730 * 86400, "2y"),
        (740 * 86400, "2y10d"),
        (9 * 365 * 86400 + 86400, "9y"),
    ],
)
def test_durations_read_as_kubectls(seconds: int, text: str) -> None:
    assert duration(seconds) == text


def test_selectors_read_as_after_dash_l() -> None:
    rules = [
        {"key": "tier", "operator": "In", "values": ["a", "b"]},
        {"key": "x", "operator": "NotIn", "values": ["c"]},
        {"key": "y", "operator": "Exists"},
        {"key": "z", "operator": "DoesNotExist"},
    ]
    value = {"matchLabels": {"b": "2", "a": "1"}, "matchExpressions": rules}
    assert selector(value) == "a=1,b=2,tier in (a,b),x notin (c),y,!z"
    assert selector(None) == "<none>"


DOCUMENT = {
    "a": {"b.c": 1, "d": [10, 20, 30]},
    "list": [{"n": "x", "v": 1}, {"n": "y", "v": 2}, {"n": "y"}, "odd"],
}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".a.d[0]", [10]),
        ("{.a.d[-1]}", [30]),
        ("$.a.d[5]", []),
        (".a.d[1:]", [20, 30]),
        (".a.d[0:3:2]", [10, 30]),
        (".a.d[*]", [10, 20, 30]),
        (".a['b.c']", [1]),
        (r".a.b\.c", [1]),
        (".list[?(@.n=='y')].v", [2]),
        ('.list[?(@.n != "y")].n', ["x"]),
        (".list[?(@.v>1)].n", ["y"]),
        (".list[?(@.v>='1')].n", []),
        (".list[?(@.v)].n", ["x", "y"]),
        ("..v", [1, 2]),
        (".nothing.here", []),
        (".list.n", []),
    ],
)
def test_paths_find(path: str, found: list[Any]) -> None:
    assert compile_path(path)(DOCUMENT) == found


@pytest.mark.parametrize("path", [".a[", "a b", ".a[?(b)]", ".a..", ".list[?(@.n==)]"])
def test_paths_that_are_none_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match="no path"):
        compile_path(path)
