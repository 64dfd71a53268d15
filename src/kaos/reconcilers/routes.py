"""What became of a resource's HTTPRoute, in the words of the Gateway that serves it."""

from typing import Any

from kaos.api import CustomResource
from kaos.reconcilers.children.route import paths
from kaos.reconcilers.conditions import Finding, Reason, Type


def routed(
    resource: CustomResource,
    status: dict[str, Any] | None,
    *,
    installed: bool,
    generation: int = 0,
    unrouted: str = "",
    conflict: str = "",
) -> Finding:
    """The Routed condition.

    Args:
        resource: whose route it is.
        status: the HTTPRoute's status; None when there is no such object.
        installed: whether the cluster has the Gateway API.
        generation: the HTTPRoute's; what a Gateway said of an earlier one does not count.
        unrouted: why no route is wanted; empty when one is.
        conflict: who has the short path that this resource would have had.
    """

    def finding(ok: bool, reason: Reason | str, message: str) -> Finding:
        return Finding(Type.ROUTED, ok, reason, message)

    if unrouted:
        return finding(False, Reason.NOT_EXPOSED, unrouted)
    if not installed:
        message = "the Gateway API (HTTPRoute) is not installed; the Service works without it"
        return finding(False, Reason.GATEWAY_API_MISSING, message)
    if conflict:
        message = f"/{resource.name} belongs to {conflict}; served at {paths(resource)[-1]} only"
        return finding(False, Reason.ROUTE_CONFLICT, message)
    current = [
        said
        for parent in (status or {}).get("parents", ())
        for said in parent.get("conditions", ())
        if said.get("observedGeneration", generation) >= generation
    ]
    for said in current:
        if said.get("type") in ("Accepted", "ResolvedRefs") and said.get("status") == "False":
            return finding(False, said.get("reason", "Refused"), said.get("message", ""))
    accepted = any(
        said.get("type") == "Accepted" and said.get("status") == "True" for said in current
    )
    if not accepted:
        return finding(False, Reason.ROUTE_PENDING, "no Gateway has taken the HTTPRoute up yet")
    return finding(True, Reason.ROUTE_ACCEPTED, "served at " + ", ".join(paths(resource)))
