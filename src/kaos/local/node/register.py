"""The Node object of this machine: registered at the start, its heartbeat kept.

Guarantees: `kubectl get nodes` shows one node, Ready while the cluster process lives. A heartbeat
that cannot be written is logged and tried again; it is no reason to stop running pods.
"""

import asyncio
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import structlog

from kaos.local.node.status import ADDRESS, condition_of, timestamp
from kaos.local.node.statuswriter import write_status
from kaos.runtime import NODE, AlreadyExists, Client, NotFound, Object, RuntimeFailure

log = structlog.get_logger("kaos.node")

_HEARTBEAT_SECONDS = 60.0
_RETRY_SECONDS = 5.0
_PODS = "250"
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


async def keep_registered(client: Client, name: str, version: str) -> None:
    """Register the node and write its heartbeat until cancelled."""
    while True:
        delay = _HEARTBEAT_SECONDS
        try:
            node = await _node(client, name)
            await write_status(client, NODE, node, node_status(node.to_dict(), version))
        except RuntimeFailure as error:
            log.warning("node heartbeat not written", error=str(error))
            delay = _RETRY_SECONDS
        await asyncio.sleep(delay)


async def _node(client: Client, name: str) -> Object:
    try:
        return await client.get(NODE, name)
    except NotFound:
        pass
    try:
        return await client.create(node_body(name))
    except AlreadyExists:
        return await client.get(NODE, name)


def node_body(name: str) -> dict[str, Any]:
    """The Node object to create."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": platform.system().lower(),
                "kubernetes.io/arch": _architecture(),
                "node-role.kubernetes.io/control-plane": "",
            },
        },
        "spec": {},
    }


def node_status(node: Mapping[str, Any], version: str) -> dict[str, Any]:
    """The node's status now."""
    now = timestamp(datetime.now(UTC))
    ready = condition_of(node, "Ready")
    since = ready.get("lastTransitionTime", now) if ready.get("status") == "True" else now
    capacity = {"cpu": str(os.cpu_count() or 1), "memory": f"{_memory_kib()}Ki", "pods": _PODS}
    return {
        "capacity": capacity,
        "allocatable": capacity,
        "addresses": [
            {"type": "InternalIP", "address": ADDRESS},
            {"type": "Hostname", "address": node["metadata"]["name"]},
        ],
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "NodeReady",
                "message": "pods run as processes of this machine",
                "lastHeartbeatTime": now,
                "lastTransitionTime": since,
            }
        ],
        "nodeInfo": {
            "architecture": _architecture(),
            "operatingSystem": platform.system().lower(),
            "osImage": platform.platform(terse=True),
            "kernelVersion": platform.release(),
            "kubeletVersion": version,
            "containerRuntimeVersion": f"process://{platform.python_version()}",
            "machineID": "", "systemUUID": "", "bootID": "", "kubeProxyVersion": "",
        },
    }  # fmt: skip


def _architecture() -> str:
    machine = platform.machine().lower()
    return _MACHINES.get(machine, machine)


def _memory_kib() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1024
