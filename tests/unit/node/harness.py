"""A whole small cluster for tests: the embedded API server and a node, in this process."""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio

from kaos.local.apiserver import APIServer
from kaos.local.node import Node, NodeSettings
from kaos.local.node.images import Image, ImageTable
from kaos.runtime import (
    DEPLOYMENT,
    POD,
    SERVICE,
    Client,
    ClusterConfig,
    NotFound,
    Object,
    ResourceType,
)

IMAGE = "test/python"
SERVER = """
import http.server, os, sys
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = os.environ.get("ANSWER", "hello").encode() + b" " + self.path.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_POST = do_GET
    def log_message(self, *a): print("request", self.path, flush=True)
host, _, port = os.environ["LISTEN"].rpartition(":")
print("listening", flush=True)
http.server.ThreadingHTTPServer((host, int(port)), H).serve_forever()
"""
FAST = {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1}


@dataclass
class Cluster:
    url: str
    client: Client
    node: Node
    folder: Path

    async def pod(self, name: str, namespace: str = "default") -> Object:
        return await self.client.get(POD, name, namespace)

    async def pods(self, *, deleting: bool = False) -> list[Object]:
        found = await self.client.list(POD, "default")
        return [pod for pod in found if deleting or not pod.deleting]

    async def until(
        self,
        kind: ResourceType,
        name: str,
        true: Callable[[Object], object],
        *,
        seconds: float = 8,
    ) -> Object:
        """Wait for an object to be as wanted; fails with what it was at last."""
        deadline = time.monotonic() + seconds
        last: Object | None = None
        while time.monotonic() < deadline:
            with contextlib.suppress(NotFound):
                last = await self.client.get(kind, name, "default")
                if true(last):
                    return last
            await asyncio.sleep(0.02)
        raise AssertionError(f"{kind.kind} {name} stayed {last.status if last else 'missing'}")

    async def until_gone(self, kind: ResourceType, name: str, *, seconds: float = 8) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                await self.client.get(kind, name, "default")
            except NotFound:
                return
            await asyncio.sleep(0.02)
        raise AssertionError(f"{kind.kind} {name} is still there")


@contextlib.asynccontextmanager
async def cluster(
    folder: Path, *, database: Path | None = None, restart_delay: float = 0.1, **settings: Any
) -> AsyncIterator[Cluster]:
    """Run a cluster for the length of the block."""
    server = APIServer(database=database)
    table = ImageTable({IMAGE: Image(image_id="test://python")})
    chosen = NodeSettings(
        images=table,
        restart_delay=restart_delay,
        shutdown_grace=2,
        cluster_domain="cluster.local",
        **settings,
    )
    async with server.serve() as url:
        config = ClusterConfig.direct(url)
        node = Node(config, folder, gateway_port=0, settings=chosen)
        server.node = node
        started = anyio.Event()

        async def run() -> None:
            await node.run(started=started)

        async with (
            Client.connect(config, field_manager="test") as client,
            anyio.create_task_group() as group,
        ):
            group.start_soon(run)
            with anyio.fail_after(10):
                await started.wait()
            yield Cluster(url, client, node, folder)
            group.cancel_scope.cancel()


async def eventually(true: Callable[[], Awaitable[object]], *, seconds: float = 8) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if await true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came true")


def container(code: str = SERVER, **fields: Any) -> dict[str, Any]:
    return {"name": "main", "image": IMAGE, "command": [sys.executable, "-c", code], **fields}


def server_container(**fields: Any) -> dict[str, Any]:
    env = [{"name": "LISTEN", "value": "0.0.0.0:8000"}, *fields.pop("env", [])]
    ports = [{"name": "http", "containerPort": 8000}]
    return container(SERVER, ports=ports, env=env, readinessProbe=FAST, **fields)


def pod(name: str, *containers: Mapping[str, Any], **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 2, "containers": list(containers), **spec},
    }


def deployment(name: str, *containers: Mapping[str, Any], **spec: Any) -> dict[str, Any]:
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"terminationGracePeriodSeconds": 2, "containers": list(containers)},
            },
            **spec,
        },
    }


def service(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "selector": {"app": name},
            "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
            **spec,
        },
    }


def route(name: str, prefix: str, **rule: Any) -> dict[str, Any]:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "parentRefs": [{"name": "kaos-gateway", "namespace": "kaos-gateway"}],
            "rules": [
                {
                    "matches": [{"path": {"type": "PathPrefix", "value": prefix}}],
                    "filters": [
                        {
                            "type": "URLRewrite",
                            "urlRewrite": {
                                "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}
                            },
                        }
                    ],
                    "backendRefs": [{"name": name, "port": 80}],
                    **rule,
                }
            ],
        },
    }


def ready(obj: Object) -> bool:
    conditions = obj.status.get("conditions") or []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def available(obj: Object) -> bool:
    status = obj.status
    wanted = obj.spec.get("replicas", 1)
    return (
        status.get("observedGeneration") == obj.metadata.generation
        and status.get("updatedReplicas", 0) == status.get("replicas", 0) == wanted
        and status.get("availableReplicas", 0) == wanted
    )


__all__ = ["DEPLOYMENT", "POD", "SERVICE", "Cluster"]


def main_status(obj: Object, name: str = "main") -> dict[str, Any]:
    status = obj.status
    groups = [*status.get("containerStatuses", []), *status.get("initContainerStatuses", [])]
    return next((c for c in groups if c["name"] == name), {"state": {}, "lastState": {}})


def waiting(obj: Object) -> dict[str, Any]:
    found: dict[str, Any] = main_status(obj)["state"].get("waiting", {})
    return found


def process_of(obj: Object, name: str = "main") -> int:
    return int(main_status(obj, name)["containerID"].removeprefix("process://"))


async def logs(small: Cluster, name: str, container: str = "main", **options: Any) -> str:
    pieces = [p async for p in small.node.read_logs("default", name, container, **options)]
    return b"".join(pieces).decode()
