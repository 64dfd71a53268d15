"""An API server with the controllers on it; no node runs.

A test plays the Deployment controller and the Gateway by writing their statuses.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio

from kaos import api
from kaos.runtime import DEPLOYMENT, POD, Client, Manager, NotFound, Object, Resource, UnknownKind

HOSTED = {"mode": "Hosted", "hostedConfig": {"model": "smollm2:135m"}}
ECHO = {"type": "python-runtime", "config": {"mcp": "test-mcp-echo-server"}}


class Logs:
    """A node that has nothing but logs, by the pod's name."""

    def __init__(self) -> None:
        self.lines: dict[str, list[bytes]] = {}
        self.reads = 0

    async def open_port(
        self, namespace: str, pod: str, port: int
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        raise LookupError("no pod runs here")

    async def read_logs(
        self, namespace: str, pod: str, container: str, **options: Any
    ) -> AsyncIterator[bytes]:
        if pod not in self.lines:
            raise LookupError(f"pod {pod} has no log")
        self.reads += 1
        for line in self.lines[pod]:
            yield line + b"\n"


class Cluster:
    """An API server with the controllers on it."""

    def __init__(self, client: Client, manager: Manager, logs: "Logs") -> None:
        self.client = client
        self.manager = manager
        self.logs = logs

    async def cached(self, resource: Resource, name: str) -> Object:
        """An object as the controllers see it."""
        with anyio.fail_after(5):
            while (found := self.manager.cache.get(resource, name, "default")) is None:  # noqa: ASYNC110 - a watch decides
                await asyncio.sleep(0.01)
        return found

    async def apply(
        self, kind: str, name: str, spec: dict[str, Any], namespace: str = "default"
    ) -> Object:
        return await self.client.apply(
            {
                "apiVersion": "kaos.tools/v1alpha1",
                "kind": kind,
                "metadata": {"name": name, "namespace": namespace},
                "spec": spec,
            }
        )

    async def eventually(
        self,
        resource: Resource,
        name: str,
        check: Callable[[Object], Any],
        namespace: str = "default",
        seconds: float = 5,
    ) -> Object:
        """Wait until an object is as it shall be."""
        seen: Object | None = None
        try:
            with anyio.fail_after(seconds):
                while True:
                    try:
                        seen = await self.client.get(resource, name, namespace)
                        if check(seen):
                            return seen
                    except NotFound:
                        pass
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"not so: {seen.to_dict() if seen else 'absent'}") from None

    async def gone(self, resource: Resource, name: str, namespace: str = "default") -> None:
        """Wait until an object does not exist."""
        with anyio.fail_after(5):
            while any(  # noqa: ASYNC110 - another process decides
                o.name == name for o in await self.client.list(resource, namespace)
            ):
                await asyncio.sleep(0.01)

    async def roll_out(
        self,
        name: str,
        *,
        available: int | None = None,
        replicas: int = 1,
        namespace: str = "default",
    ) -> None:
        """Say what the Deployment controller says when all pods serve (or so many)."""
        found = await self.eventually(DEPLOYMENT, name, lambda _: True, namespace)
        serve = replicas if available is None else available
        status = {
            "observedGeneration": found.metadata.generation,
            "replicas": replicas,
            "updatedReplicas": replicas,
            "readyReplicas": serve,
            "availableReplicas": serve,
        }
        await self.client.patch(
            DEPLOYMENT, name, namespace, {"status": status}, subresource="status"
        )

    async def granted(self, grant: dict[str, Any]) -> Object:
        """Apply a ReferenceGrant, as soon as its kind is served."""
        with anyio.fail_after(5):
            while True:
                try:
                    return await self.client.apply(grant)
                except (NotFound, UnknownKind):
                    await asyncio.sleep(0.05)

    async def start_pod(self, deployment: str, name: str) -> None:
        """A pod of a Deployment that serves; its log is read from `logs`."""
        found = await self.eventually(DEPLOYMENT, deployment, lambda _: True)
        template = found.spec["template"]
        metadata = {**template["metadata"], "name": name, "namespace": "default"}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
        await self.client.create(body)
        status = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
        await self.client.patch(POD, name, "default", status, subresource="status")

    async def ready_model(self) -> None:
        await self.apply("ModelAPI", "ollama", HOSTED)
        await self.roll_out("modelapi-ollama")
        await self.eventually(api.ModelAPI, "ollama", ready)


def ready(obj: Object) -> bool:
    return bool(obj.status.get("ready"))


def says(type_: str, reason: str) -> Callable[[Object], bool]:
    def check(obj: Object) -> bool:
        return any(
            c["type"] == type_ and c["reason"] == reason for c in obj.status.get("conditions", ())
        )

    return check
