"""The MCPServer's reconciler, and how it learns which tools a server has.

A tool server says in its log what it serves, before it is ready. The log is read through the API
server, as a model's progress is, so this works where the controller has no way to the pods: outside
of the cluster, or behind the NetworkPolicies that it makes itself. It is read once a pod.

Does not: know the tools of an image of the user's own or of a remote server that agents call.
"""

import contextlib
import json
from collections.abc import AsyncGenerator
from typing import Any, cast

from kaos.api import MCPServer
from kaos.reconcilers import runtimes
from kaos.reconcilers.availability import Availability
from kaos.reconcilers.children.mcpserver import (
    CONTAINER,
    endpoint,
    mcpserver_children,
    remote_url,
    says_its_tools,
)
from kaos.reconcilers.children.names import Ref, selector
from kaos.reconcilers.conditions import Finding, Reason, Type
from kaos.reconcilers.settings import Settings
from kaos.reconcilers.workload import PODS_OF, Plan, WorkloadReconciler, workload_key
from kaos.runtime import CONFIG_MAP, HTTP_ROUTE, POD, ApiError, Manager, Object

FIRST_LINES = 1000  # a package may say much before it serves
SAYS = "serving tools"


class MCPServerReconciler(WorkloadReconciler[MCPServer]):
    """MCPServer → Deployment, Service, HTTPRoute; nothing for a remote one."""

    MODEL = MCPServer

    def __init__(self, manager: Manager, settings: Settings) -> None:
        super().__init__(manager, settings)
        self._told: dict[Ref, tuple[str, list[str]]] = {}  # by server: a pod's uid, its tools

    def plan(self, resource: MCPServer) -> Plan:
        """Decide what shall exist for a tool server.

        Raises:
            InvalidSpecError: its runtime is not in the registry, or cannot be used.
        """
        registry = self.cache.get(CONFIG_MAP, runtimes.NAME, self.settings.namespace)
        resource = runtimes.resolved(resource, registry)
        routes = self.cache.synced(HTTP_ROUTE)
        available, unrouted = None, ""
        if url := remote_url(resource):
            message = f"runs elsewhere; agents call {url}, and nobody here has asked if it answers"
            available = Finding(Type.AVAILABLE, True, Reason.REMOTE, message)
            unrouted = "a remote server has no route here"
        elif resource.spec.headers:
            unrouted = "who came through the gateway would act with the headers' rights"
        return Plan(
            accepted=Finding(Type.ACCEPTED, True, Reason.SPEC_VALID, "the spec is valid"),
            children=mcpserver_children(
                resource, self.settings, routes=routes, guests=self.guests(resource)
            ),
            endpoint=endpoint(resource, self.settings),
            available=available,
            unrouted=unrouted,
        )

    async def observe(
        self, resource: MCPServer, seen: Availability
    ) -> tuple[Finding, dict[str, Any]]:
        """Which tools are served, by what a pod that serves said when it started."""
        finding, extra = await super().observe(resource, seen)
        if says_its_tools(resource):
            tools = await self._tools(resource) if seen.available else self._known(resource)
            if tools:
                extra["availableTools"] = tools
        return finding, extra

    def _known(self, resource: MCPServer) -> list[str]:
        return self._told.get(
            Ref(resource.namespace, resource.name), ("", resource.status.available_tools)
        )[1]

    async def _tools(self, resource: MCPServer) -> list[str]:
        key = workload_key(resource.namespace, selector(resource))
        pods = [p for p in self.cache.by_index(POD, PODS_OF, key) if not p.deleting and _ready(p)]
        if not pods:
            return self._known(resource)
        newest = max(pods, key=lambda pod: (pod.metadata.creation_timestamp, pod.name))
        me = Ref(resource.namespace, resource.name)
        told = self._told.get(me)
        if told is None or told[0] != newest.uid:
            found = await self._said(newest)
            if found is None:
                return self._known(resource)
            self._told[me] = newest.uid, found
        return self._known(resource)

    async def _said(self, pod: Object) -> list[str] | None:
        """What a pod's log says, near its beginning; None when it does not."""
        lines = self.client.logs(pod.name, pod.namespace, container=CONTAINER)
        # Closed at once when it is found: the rest of the log is of no interest.
        async with contextlib.aclosing(cast("AsyncGenerator[bytes, None]", lines)) as stream:
            count = 0
            try:
                async for line in stream:
                    count += 1
                    if (found := parse_tools(line)) is not None:
                        return found
                    if count == FIRST_LINES:
                        break
            except ApiError:
                return None  # the pod has just gone; the next one will tell
        return None


def parse_tools(line: bytes) -> list[str] | None:
    """Read one line of a tool server's log; None when it does not tell the tools."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    if not isinstance(record, dict) or record.get("event") != SAYS:
        return None
    tools = record.get("tools")
    return sorted(str(tool) for tool in tools) if isinstance(tools, list) else None


def _ready(pod: Object) -> bool:
    return any(
        condition.get("type") == "Ready" and condition.get("status") == "True"
        for condition in pod.status.get("conditions", ())
    )
