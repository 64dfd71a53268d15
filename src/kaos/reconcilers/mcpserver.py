"""The MCPServer's reconciler."""

from kaos.api import MCPServer
from kaos.reconcilers.children.mcpserver import endpoint, mcpserver_children, remote_url
from kaos.reconcilers.conditions import Finding, Reason, Type
from kaos.reconcilers.workload import Plan, WorkloadReconciler
from kaos.runtime import HTTP_ROUTE


class MCPServerReconciler(WorkloadReconciler[MCPServer]):
    """MCPServer → Deployment, Service, HTTPRoute; nothing for a remote one."""

    MODEL = MCPServer

    def plan(self, resource: MCPServer) -> Plan:
        """Decide what shall exist for a tool server."""
        routes = self.cache.synced(HTTP_ROUTE)
        available, unrouted = None, ""
        if url := remote_url(resource):
            message = f"runs elsewhere; agents call {url}, and nobody here has asked if it answers"
            available = Finding(Type.AVAILABLE, True, Reason.REMOTE, message)
            unrouted = "a remote server has no route here"
        return Plan(
            accepted=Finding(Type.ACCEPTED, True, Reason.SPEC_VALID, "the spec is valid"),
            children=mcpserver_children(
                resource, self.settings, routes=routes, guests=self.guests(resource)
            ),
            endpoint=endpoint(resource, self.settings),
            available=available,
            unrouted=unrouted,
        )
