"""What kubectl get prints of built-in kinds: columns, cells, ages."""

from typing import Any

import pytest

from tests.unit.apiserver.rows import KINDS, ago, named, row


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
