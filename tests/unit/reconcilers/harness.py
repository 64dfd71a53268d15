"""An API server with the controllers on it; no node runs.

A test plays the Deployment controller and the Gateway by writing their statuses. On a real cluster
(`--kaos-kubeconfig`) the Deployment controller is the real one, and a test plays the kubelet: its
pods name a scheduler that does not exist, so nobody else touches them.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest

from kaos import api
from kaos.reconcilers.mcp_query import CannotAsk
from kaos.runtime import (
    CUSTOM_RESOURCE_DEFINITION,
    DEPLOYMENT,
    POD,
    Client,
    Manager,
    NotFound,
    Object,
    Resource,
    UnknownKind,
)

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


class Servers:
    """MCP servers that nobody runs: what they answer when they are asked for their tools.

    Attributes:
        tools: by a part of the URL; a text is why one cannot be asked.
        asked: URLs, and whether only public addresses were meant.
    """

    def __init__(self) -> None:
        self.tools: dict[str, list[str] | str] = {}
        self.asked: list[tuple[str, bool]] = []

    async def ask(self, url: str, *, public: bool) -> list[str]:
        self.asked.append((url, public))
        found = next((found for part, found in self.tools.items() if part in url), [])
        if isinstance(found, str):
            raise CannotAsk(found)
        return found


class Cluster:
    """An API server with the controllers on it.

    Attributes:
        namespace: where a test's objects are.
        elsewhere: another namespace, for what reaches across.
        patience: seconds after which what has not come will not come.
    """

    def __init__(
        self,
        client: Client,
        manager: Manager,
        logs: "Logs",
        namespace: str = "default",
        elsewhere: str = "elsewhere",
    ) -> None:
        self.client = client
        self.manager = manager
        self._logs = logs
        self.servers = Servers()
        self.namespace = namespace
        self.elsewhere = elsewhere
        self.patience = 5.0

    @property
    def logs(self) -> "Logs":
        return self._logs

    async def cached(self, resource: Resource, name: str) -> Object:
        """An object as the controllers see it."""
        with anyio.fail_after(self.patience):
            while (found := self.manager.cache.get(resource, name, self.namespace)) is None:  # noqa: ASYNC110 - a watch decides
                await asyncio.sleep(0.01)
        return found

    async def put(self, body: dict[str, Any]) -> Object:
        """Apply what is no resource of ours, in the test's namespace unless it says another."""
        metadata = {"namespace": self.namespace, **body["metadata"]}
        return await self.client.apply({**body, "metadata": metadata})

    async def read(self, resource: Resource, name: str) -> Object:
        return await self.client.get(resource, name, self.namespace)

    async def patch(
        self, resource: Resource, name: str, patch: dict[str, Any], subresource: str = ""
    ) -> Object:
        return await self.client.patch(
            resource, name, self.namespace, patch, subresource=subresource
        )

    async def delete(self, resource: Resource, name: str) -> None:
        await self.client.delete(resource, name, self.namespace)

    async def apply(
        self, kind: str, name: str, spec: dict[str, Any], namespace: str = ""
    ) -> Object:
        return await self.client.apply(
            {
                "apiVersion": "kaos.tools/v1alpha1",
                "kind": kind,
                "metadata": {"name": name, "namespace": namespace or self.namespace},
                "spec": spec,
            }
        )

    async def eventually(
        self,
        resource: Resource,
        name: str,
        check: Callable[[Object], Any],
        namespace: str = "",
        seconds: float = 0,
    ) -> Object:
        """Wait until an object is as it shall be."""
        seen: Object | None = None
        try:
            with anyio.fail_after(seconds or self.patience):
                while True:
                    try:
                        seen = await self.client.get(resource, name, namespace or self.namespace)
                        if check(seen):
                            return seen
                    except NotFound:
                        pass
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"not so: {seen.to_dict() if seen else 'absent'}") from None

    async def gone(self, resource: Resource, name: str) -> None:
        """Wait until an object does not exist."""
        with anyio.fail_after(self.patience):
            while any(  # noqa: ASYNC110 - another process decides
                o.name == name for o in await self.client.list(resource, self.namespace)
            ):
                await asyncio.sleep(0.01)

    async def roll_out(
        self,
        name: str,
        *,
        available: int | None = None,
        replicas: int = 1,
        namespace: str = "",
    ) -> None:
        """Say what the Deployment controller says when all pods serve (or so many)."""
        namespace = namespace or self.namespace
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

    async def install(self, definition: dict[str, Any]) -> None:
        """Let a kind of somebody else's be served."""
        await self.client.apply(definition)

    def passes(self, result: str) -> float:
        """How many passes ended so; "requeue_after" is one that asks for another, come what may."""
        name = "controller_runtime_reconcile_total"
        labels = [{"controller": model.KIND.lower(), "result": result} for model in api.MODELS]
        found = (self.manager.metrics.registry.get_sample_value(name, one) for one in labels)
        return sum(value or 0 for value in found)

    async def granted(self, grant: dict[str, Any]) -> Object:
        """Apply a ReferenceGrant, as soon as its kind is served."""
        with anyio.fail_after(self.patience):
            while True:
                try:
                    return await self.client.apply(grant)
                except (NotFound, UnknownKind):
                    await asyncio.sleep(0.05)

    async def start_pod(self, deployment: str, name: str, **status: Any) -> None:
        """A pod of a Deployment, which serves unless told otherwise; `logs` has its log."""
        found = await self.eventually(DEPLOYMENT, deployment, lambda _: True)
        template = found.spec["template"]
        metadata = {**template["metadata"], "name": name, "namespace": self.namespace}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
        await self.client.create(body)
        serves = {"conditions": [{"type": "Ready", "status": "True"}]}
        await self.patch(POD, name, {"status": status or serves}, "status")

    async def ready_model(self) -> None:
        await self.apply("ModelAPI", "ollama", HOSTED)
        await self.roll_out("modelapi-ollama")
        await self.eventually(api.ModelAPI, "ollama", ready)


class RealCluster(Cluster):
    """A cluster with controllers of its own."""

    def __init__(self, client: Client, manager: Manager, namespace: str, elsewhere: str) -> None:
        super().__init__(client, manager, Logs(), namespace, elsewhere)
        self.patience = 30.0

    @property
    def logs(self) -> Logs:
        pytest.skip("no kubelet runs this pod, so it has no log")

    async def apply(
        self, kind: str, name: str, spec: dict[str, Any], namespace: str = ""
    ) -> Object:
        pods = {"schedulerName": "nobody", **spec.get("podSpec", {})}
        return await super().apply(kind, name, {**spec, "podSpec": pods}, namespace)

    async def roll_out(
        self,
        name: str,
        *,
        available: int | None = None,
        replicas: int = 1,
        namespace: str = "",
    ) -> None:
        """Say what kubelets say, until the Deployment controller has drawn its conclusion."""
        namespace = namespace or self.namespace
        await self.eventually(DEPLOYMENT, name, lambda _: True, namespace)
        with anyio.fail_after(self.patience):
            while True:
                found = await self.client.get(DEPLOYMENT, name, namespace)
                wanted = found.spec["replicas"]
                serve = wanted if available is None else available
                if _rolled_out(found, wanted, serve):
                    return
                await self._run_pods(found, available)
                await asyncio.sleep(0.05)

    async def install(self, definition: dict[str, Any]) -> None:
        name = definition["metadata"]["name"]
        try:
            await self.client.get(CUSTOM_RESOURCE_DEFINITION, name)
        except NotFound:
            pytest.skip(f"{name} is not defined here, and not for us to define")

    async def _run_pods(self, deployment: Object, available: int | None) -> None:
        labels = deployment.spec["selector"]["matchLabels"].items()
        selector = ",".join(f"{key}={value}" for key, value in labels)
        pods = await self.client.list(POD, deployment.namespace, label_selector=selector)
        serve = len(pods) if available is None else available  # all: also those of the old revision
        for number, pod in enumerate(pods):
            word = "True" if number < serve else "False"
            status = {"phase": "Running", "conditions": [{"type": "Ready", "status": word}]}
            with contextlib.suppress(NotFound):
                await self.client.patch(
                    POD, pod.name, pod.namespace, {"status": status}, subresource="status"
                )


def _rolled_out(deployment: Object, wanted: int, serve: int) -> bool:
    status = deployment.status
    counts = [status.get(f"{word}eplicas", 0) for word in ("r", "updatedR", "availableR")]
    observed = status.get("observedGeneration", 0) >= deployment.metadata.generation
    return observed and counts == [wanted, wanted, serve]


def ready(obj: Object) -> bool:
    return bool(obj.status.get("ready"))


def says(type_: str, reason: str) -> Callable[[Object], bool]:
    def check(obj: Object) -> bool:
        return any(
            c["type"] == type_ and c["reason"] == reason for c in obj.status.get("conditions", ())
        )

    return check


def lacks(type_: str) -> Callable[[Object], bool]:
    """Whether a condition is False, whatever the reason."""

    def check(obj: Object) -> bool:
        return any(
            c["type"] == type_ and c["status"] == "False" for c in obj.status.get("conditions", ())
        )

    return check
