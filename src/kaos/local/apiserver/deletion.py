"""Deleting: at once, after finalizers, or after a pod's grace period.

Guarantees that an object with finalizers is only marked and goes with the last
of them; that ``propagationPolicy`` Foreground and Orphan are finalizers which
garbage collection takes off when its work is done; that a pod which runs on a
node is the node's to remove (a second delete with grace 0 does it).
"""

from typing import Any

from kaos.local.apiserver import metadata as meta
from kaos.local.apiserver.definitions import CLEANUP, DEFINITIONS
from kaos.local.apiserver.errors import conflict, forbidden
from kaos.local.apiserver.options import DeleteOptions
from kaos.local.apiserver.registry import Kind
from kaos.local.apiserver.resources import Resources
from kaos.local.apiserver.store import Record
from kaos.local.apiserver.versions import load_as

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"
_IMMORTAL = ("default", "kube-system", "kube-public")
_POLICIES = {"Foreground": FOREGROUND, "Orphan": ORPHAN}


def delete(
    resources: Resources, kind: Kind, namespace: str, name: str, options: DeleteOptions
) -> tuple[dict[str, Any], bool]:
    """Delete an object; returns it and whether it is gone already.

    Raises:
        StatusError: 404, or 409 when a precondition does not hold.
    """
    return delete_record(resources, kind, resources.record(kind, namespace, name), options)


def delete_record(
    resources: Resources, kind: Kind, record: Record, options: DeleteOptions
) -> tuple[dict[str, Any], bool]:
    """Delete an object whose current revision is at hand."""
    if kind.resource == "namespaces" and record.key[1] in _IMMORTAL:
        raise forbidden(kind, record.key[1], "this namespace may not be deleted")
    obj = load_as(kind, record)
    metadata = obj["metadata"]
    _check(kind, metadata, options)
    _set_policy(metadata, options.propagation)
    if kind.resource == DEFINITIONS and CLEANUP not in metadata.get("finalizers", ()):
        metadata["finalizers"] = [*metadata.get("finalizers", ()), CLEANUP]
    grace = _grace(kind, obj, options)
    if kind.resource == "namespaces":
        obj["status"] = {**(obj.get("status") or {}), "phase": "Terminating"}
    waits = metadata.get("finalizers")
    if kind.resource == "namespaces":
        waits = waits or obj["spec"].get("finalizers")
    if not waits and not grace:
        if "deletionTimestamp" not in metadata:
            meta.mark_deleted(obj, resources.now())
        return resources.remove(kind, record, obj, dry_run=options.dry_run), True
    marked = "deletionTimestamp" in metadata
    shorter = marked and grace < metadata.get("deletionGracePeriodSeconds", 0)
    if not marked or shorter:
        meta.mark_deleted(obj, resources.now(), grace)
        if kind.resource in {"namespaces", DEFINITIONS}:
            # These two are taken down by a controller and not by a grace period.
            del metadata["deletionGracePeriodSeconds"]
    if not options.dry_run and obj != load_as(kind, record):
        obj = resources.rewrite(kind, record, lambda stored: stored.update(obj))
    return obj, False


def _check(kind: Kind, metadata: dict[str, Any], options: DeleteOptions) -> None:
    for name, wanted, found in (
        ("UID", options.uid, metadata["uid"]),
        ("ResourceVersion", options.resource_version, metadata["resourceVersion"]),
    ):
        if wanted and wanted != found:
            why = (
                f"Precondition failed: {name} in precondition: {wanted},"
                f" {name} in object meta: {found}"
            )
            raise conflict(kind, metadata["name"], why)


def _set_policy(metadata: dict[str, Any], propagation: str) -> None:
    finalizers = list(metadata.get("finalizers") or ())
    if propagation:
        finalizers = [f for f in finalizers if f not in _POLICIES.values()]
        if propagation in _POLICIES:
            finalizers.append(_POLICIES[propagation])
    if finalizers:
        metadata["finalizers"] = finalizers
    else:
        metadata.pop("finalizers", None)


def _grace(kind: Kind, obj: dict[str, Any], options: DeleteOptions) -> int:
    """How long a pod has to end: nobody waits for one that runs nowhere."""
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    if kind.resource != "pods" or not spec.get("nodeName"):
        return 0
    if status.get("phase") in {"Succeeded", "Failed"}:
        return 0
    default: int = spec.get("terminationGracePeriodSeconds", 30)
    return default if options.grace is None else options.grace
