"""The MCPServer's reconciler.

Which tools a server has is asked beside it (see `server_tools`); here the answer gets into the
status, and what stood in the way of one.
"""

from typing import Any
from urllib.parse import urlsplit

from kaos.api import MCPServer
from kaos.reconcilers import runtimes
from kaos.reconcilers.availability import Availability
from kaos.reconcilers.children.mcpserver import endpoint, mcpserver_children, remote_url
from kaos.reconcilers.conditions import Finding, Reason, Type
from kaos.reconcilers.server_tools import ServerTools
from kaos.reconcilers.settings import Settings
from kaos.reconcilers.workload import Plan, WorkloadReconciler
from kaos.runtime import CONFIG_MAP, HTTP_ROUTE, Manager


class MCPServerReconciler(WorkloadReconciler[MCPServer]):
    """MCPServer → Deployment, Service, HTTPRoute; nothing for a remote one."""

    MODEL = MCPServer

    def __init__(self, manager: Manager, settings: Settings, tools: ServerTools) -> None:
        super().__init__(manager, settings)
        self._tools = tools

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
            message = f"runs elsewhere; agents call {_shown(url)}"
            elsewhere = Finding(Type.AVAILABLE, True, Reason.REMOTE, message)
            available = self._tools.of(resource).beside(elsewhere)
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
        """Which tools it has, by what it said."""
        finding, extra = await super().observe(resource, seen)
        told = self._tools.of(resource)
        if told.tools:
            extra["availableTools"] = told.tools
        return told.beside(finding), extra


def _shown(url: str) -> str:
    """A URL without what may be secret in it: a password before the host, a token in the query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
