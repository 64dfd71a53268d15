"""HTTPRoutes: keeps the gateway's table, and tells each route whether it is served.

Guarantees: `status.parents` as a Gateway controller writes it, one entry for each parent, with
Accepted and ResolvedRefs and the reasons of the Gateway API; entries of other controllers stay.
"""

import contextlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from kaos.local.node.endpoints import tcp_ports
from kaos.local.node.gateway import Gateway
from kaos.local.node.routes import MALFORMED, RouteTable, Unsupported, rules_of
from kaos.local.node.statuswriter import write_status
from kaos.runtime import (
    HTTP_ROUTE,
    SERVICE,
    Cache,
    Client,
    Object,
    Request,
    Result,
    condition,
    merge_conditions,
)

CONTROLLER = "kaos.tools/embedded"

Verdict = tuple[bool, str, str]
"""Status, reason and message of a condition."""


class HTTPRoutes:
    """Reconciler of HTTPRoutes."""

    def __init__(self, client: Client, cache: Cache, gateway: Gateway) -> None:
        self._client = client
        self._cache = cache
        self._gateway = gateway

    def leading_to(self, service: Object) -> list[Request]:
        """The routes that have a Service as a backend."""
        return [
            route.key
            for route in self._cache.list(HTTP_ROUTE)
            if service.key in _backends(route.key.namespace, route.spec)
        ]

    async def reconcile(self, request: Request, /) -> Result | None:
        """Take a change of a route over."""
        routes = self._cache.list(HTTP_ROUTE)
        # A few dozen routes at most: building the whole table is the simplest that is right.
        self._gateway.table = RouteTable.of(r.to_dict() for r in routes if not r.deleting)
        route = self._cache.get(HTTP_ROUTE, request.name, request.namespace)
        if route is None or route.deleting:
            return None
        status = self._status(route.to_dict())
        if status != route.status:
            await write_status(self._client, HTTP_ROUTE, route, status)
        return None

    def _status(self, route: Mapping[str, Any]) -> dict[str, Any]:
        verdicts = {"Accepted": self._accepted(route), "ResolvedRefs": self._resolved(route)}
        old = (route.get("status") or {}).get("parents") or []
        generation = route["metadata"].get("generation", 1)
        parents = [p for p in old if p.get("controllerName") != CONTROLLER]
        for ref in route.get("spec", {}).get("parentRefs") or []:
            known = [
                p["conditions"]
                for p in old
                if p.get("controllerName") == CONTROLLER and p.get("parentRef") == ref
            ]
            new = [
                condition(kind, ok, reason, message, generation=generation)
                for kind, (ok, reason, message) in verdicts.items()
            ]
            merged = merge_conditions(known[0] if known else [], new, now=datetime.now(UTC))
            parents.append({"parentRef": ref, "controllerName": CONTROLLER, "conditions": merged})
        return {"parents": parents}

    def _accepted(self, route: Mapping[str, Any]) -> Verdict:
        try:
            rules_of(route)
        except Unsupported as error:
            return False, "UnsupportedValue", f"not served by the embedded gateway: {error}"
        return True, "Accepted", "Route is accepted"

    def _resolved(self, route: Mapping[str, Any]) -> Verdict:
        try:
            return self._references(route)
        except MALFORMED:
            return self._accepted(route)  # which says so

    def _references(self, route: Mapping[str, Any]) -> Verdict:
        namespace = route["metadata"]["namespace"]
        for rule in (route.get("spec") or {}).get("rules") or []:
            for ref in rule.get("backendRefs") or []:
                if ref.get("kind", "Service") != "Service":
                    return False, "InvalidKind", f"{ref['kind']} {ref.get('name')} is no Service"
                if ref.get("namespace", namespace) != namespace:
                    text = f"Service {ref['namespace']}/{ref['name']} is in another namespace"
                    return False, "RefNotPermitted", text
                if missing := self._missing(namespace, ref):
                    return False, "BackendNotFound", missing
        return True, "ResolvedRefs", "All references are resolved"

    def _missing(self, namespace: str, ref: Mapping[str, Any]) -> str:
        service = self._cache.get(SERVICE, ref["name"], namespace)
        if service is None:
            return f"there is no Service {namespace}/{ref['name']}"
        if all(port.get("port") != ref.get("port") for port in tcp_ports(service.to_dict())):
            return f"Service {namespace}/{ref['name']} has no port {ref.get('port')}"
        return ""


def _backends(namespace: str, spec: Mapping[str, Any]) -> set[Request]:
    with contextlib.suppress(*MALFORMED):
        return {
            Request(ref.get("namespace") or namespace, ref["name"])
            for rule in spec.get("rules") or []
            for ref in rule.get("backendRefs") or []
        }
    return set()
