"""Which pods stand behind a Service, and on which host ports. Pure.

Guarantees: the rules of the endpoint slice controller (all pods that the selector matches; ready,
serving and terminating as it says them), with one difference: addresses are 127.0.0.1 and ports are
host ports, and because each pod has host ports of its own, each pod has a slice of its own.

Does not: serve UDP, or Services without a selector (they have no pods to lead to).
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kaos.local.node import ports
from kaos.local.node.environment import host_port_names
from kaos.local.node.status import ADDRESS, is_ready

SERVICE_LABEL = "kubernetes.io/service-name"
MANAGER_LABEL = "endpointslice.kubernetes.io/managed-by"
MANAGER = "node.kaos.tools"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A pod behind a Service."""

    pod: str
    uid: str
    node: str
    ready: bool
    terminating: bool
    ports: Mapping[int, int]
    """Host port by the Service's port; a port that the pod does not declare is missing."""


def matches(selector: Mapping[str, str] | None, labels: Mapping[str, str]) -> bool:
    """Whether a Service's selector selects a pod; no selector selects none."""
    return bool(selector) and all(labels.get(k) == v for k, v in (selector or {}).items())


def tcp_ports(service: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The TCP ports of a Service."""
    return [
        port
        for port in service.get("spec", {}).get("ports") or []
        if port.get("protocol", "TCP") == "TCP"
    ]


def endpoints(service: Mapping[str, Any], pods: Iterable[Mapping[str, Any]]) -> list[Endpoint]:
    """The endpoints of a Service, by the names of their pods.

    Args:
        service: The Service.
        pods: The pods of its namespace.
    """
    selector = service.get("spec", {}).get("selector")
    found = []
    for pod in pods:
        metadata, status = pod["metadata"], pod.get("status") or {}
        if not matches(selector, metadata.get("labels") or {}):
            continue
        if status.get("phase") in ("Succeeded", "Failed") or not pod["spec"].get("nodeName"):
            continue
        terminating = bool(metadata.get("deletionTimestamp"))
        found.append(
            Endpoint(
                pod=metadata["name"],
                uid=metadata["uid"],
                node=pod["spec"]["nodeName"],
                ready=is_ready(pod) and not terminating,
                terminating=terminating,
                ports=_host_ports(service, pod),
            )
        )
    return sorted(found, key=lambda endpoint: endpoint.pod)


def _host_ports(service: Mapping[str, Any], pod: Mapping[str, Any]) -> dict[int, int]:
    given = ports.recorded(pod["metadata"].get("annotations") or {})
    names: dict[str, int] = {}
    for container in pod["spec"].get("containers") or []:
        names = host_port_names(container) | names
    found = {}
    for port in tcp_ports(service):
        target = port.get("targetPort") or port["port"]
        number = target if isinstance(target, int) else names.get(str(target))
        if number is None and str(target).isdigit():
            number = int(target)
        if number in given:
            found[int(port["port"])] = given[number]
    return found


def slices(service: Mapping[str, Any], found: Iterable[Endpoint]) -> list[dict[str, Any]]:
    """The EndpointSlices of a Service: one for each pod that has a host port."""
    metadata = service["metadata"]
    named = {int(port["port"]): port for port in tcp_ports(service)}
    labels = {
        **(metadata.get("labels") or {}),
        SERVICE_LABEL: metadata["name"],
        MANAGER_LABEL: MANAGER,
    }
    return [
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": slice_name(metadata["name"], endpoint.uid),
                "namespace": metadata["namespace"],
                "labels": labels,
            },
            "addressType": "IPv4",
            "endpoints": [_entry(endpoint, metadata["namespace"])],
            "ports": [
                {"name": named[port].get("name", ""), "port": host, "protocol": "TCP"}
                for port, host in endpoint.ports.items()
            ],
        }
        for endpoint in found
        if endpoint.ports
    ]


def _entry(endpoint: Endpoint, namespace: str) -> dict[str, Any]:
    serving = endpoint.ready or endpoint.terminating
    return {
        "addresses": [ADDRESS],
        "conditions": {
            "ready": endpoint.ready,
            "serving": serving,
            "terminating": endpoint.terminating,
        },
        "nodeName": endpoint.node,
        "targetRef": {
            "kind": "Pod",
            "namespace": namespace,
            "name": endpoint.pod,
            "uid": endpoint.uid,
        },
    }


def slice_name(service: str, uid: str) -> str:
    """The name of the slice of one pod."""
    return f"{service[:55]}-{hashlib.sha256(uid.encode()).hexdigest()[:6]}"
