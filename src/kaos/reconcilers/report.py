"""The one way in which a reconciler writes a status, and tells of a change by an event.

Guarantees: nothing is written that says nothing new; an event is recorded when Ready changes its
status or its reason, never otherwise.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from kaos.reconcilers.conditions import Finding, Phase, Type, summary
from kaos.runtime import (
    Client,
    EventRecorder,
    NotFound,
    Object,
    condition,
    find_condition,
    merge_conditions,
)

REPORTED = ("observedGeneration", "conditions", "phase", "ready", "message")
"""The fields of a status that `report` writes by itself."""


async def report(
    client: Client,
    events: EventRecorder,
    obj: Object,
    findings: Sequence[Finding],
    phase: Phase,
    extra: dict[str, Any],
) -> None:
    """Write the status if it says something new, and record an event if Ready changed.

    Args:
        client: to write with.
        events: where events go.
        obj: the resource as it was read.
        findings: the conditions, without Ready.
        phase: the one word for them.
        extra: further fields of the status.
    """
    old = obj.status
    ready = summary(findings)
    generation = obj.metadata.generation
    fresh = [
        condition(f.type, f.ok, f.reason, f.message, generation=generation)
        for f in (ready, *findings)
    ]
    status = {
        "observedGeneration": generation,
        "conditions": merge_conditions(old.get("conditions", []), fresh, now=datetime.now(UTC)),
        "phase": str(phase),
        "ready": ready.ok,
        "message": ready.message,
        **extra,
    }
    if status == old:
        return
    body = {
        "apiVersion": obj.api_version,
        "kind": obj.kind,
        "metadata": {"name": obj.name, "namespace": obj.namespace},
        "status": status,
    }
    try:
        await client.apply(body, subresource="status")
    except NotFound:
        return  # deleted meanwhile; nobody is left to be told
    if said(old) != (ready.ok, str(ready.reason)):
        events.event(
            obj,
            type="Normal" if ready.ok or phase is not Phase.FAILED else "Warning",
            reason=ready.reason,
            note=ready.message,
            action="Reconcile",
        )


def said(status: dict[str, Any]) -> tuple[bool, str]:
    """What Ready said in a status: whether it was True, and its reason."""
    ready = find_condition(status.get("conditions", ()), Type.READY)
    return (False, "") if ready is None else (ready["status"] == "True", ready["reason"])
