"""What is asked of a body before it is worked on: shape, place, namespace, revision.

Guarantees that what passes is an object of the kind that the path names, whose
metadata has the types that the rest of the write path trusts.
"""

from typing import Any

from kaos.local.apiserver import metadata as meta
from kaos.local.apiserver.errors import (
    Cause,
    bad_request,
    conflict,
    forbidden,
    not_found,
    unconditional,
)
from kaos.local.apiserver.options import WriteOptions
from kaos.local.apiserver.registry import Kind, Registry
from kaos.local.apiserver.store import Store

Object = dict[str, Any]

# Kinds that the real server lets nobody update without a resourceVersion.
_LOCKED = frozenset({"leases.coordination.k8s.io", "poddisruptionbudgets.policy"})


def accept(kind: Kind, namespace: str, name: str, body: Any) -> Object:
    """Check that a body is an object of the kind and place that the path names.

    Raises:
        StatusError: 400.
    """
    if why := meta.malformed(kind, body):
        raise bad_request(
            f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: {why}'
        )
    obj: Object = {"kind": kind.kind, "apiVersion": kind.api_version, **body}
    if obj["apiVersion"] != kind.api_version:
        raise bad_request(
            f"the API version in the data ({obj['apiVersion']}) does not match the expected API"
            f" version ({kind.api_version})"
        )
    if obj["kind"] != kind.kind:
        raise bad_request(
            f"the kind in the data ({obj['kind']}) does not match the expected kind ({kind.kind})"
        )
    metadata = obj["metadata"]
    if kind.namespaced and (metadata.get("namespace") or namespace) != namespace:
        raise bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    if name and (metadata.get("name") or name) != name:
        raise bad_request(
            f"the name of the object ({metadata['name']}) does not match the name on the URL"
            f" ({name})"
        )
    return obj


def require_namespace(
    registry: Registry, store: Store, kind: Kind, namespace: str, name: str
) -> None:
    """Check that new objects may come into a namespace.

    Raises:
        StatusError: 404, there is none; 403, it is going.
    """
    if not kind.namespaced:
        return
    found = store.get("/namespaces", "", namespace)
    if found is None:
        namespaces = registry.find("", "v1", "namespaces")
        if namespaces is not None:
            raise not_found(namespaces, namespace)
    elif b'"deletionTimestamp"' in found.raw and "deletionTimestamp" in found.load()["metadata"]:
        why = (
            f"unable to create new content in namespace {namespace} because it is being terminated"
        )
        message = f"namespace {namespace} is being terminated"
        cause = Cause("metadata.namespace", "NamespaceTerminating", message)
        raise forbidden(kind, name, why, cause)


def check_lock(kind: Kind, obj: Object, old: Object) -> None:
    """Check that an update means the object and the revision that is there.

    Raises:
        StatusError: 409, it means another; 422, it does not say.
    """
    metadata, before = obj["metadata"], old["metadata"]
    name = before["name"]
    if metadata.get("uid") and metadata["uid"] != before["uid"]:
        raise conflict(
            kind,
            name,
            f"Precondition failed: UID in precondition: {metadata['uid']},"
            f" UID in object meta: {before['uid']}",
        )
    version = metadata.get("resourceVersion") or ""
    if version in {"", "0"}:
        if kind.crd or kind.resource in _LOCKED:
            raise unconditional(kind, name)
    elif version != before["resourceVersion"]:
        raise conflict(kind, name)


def told(kind: Kind, found: list[str], options: WriteOptions) -> tuple[str, ...]:
    """What to say about fields that are not as they should be.

    Raises:
        StatusError: 400 when validation is strict.
    """
    if found and options.validation == "Strict":
        raise bad_request(
            f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}:'
            f" strict decoding error: {', '.join(found)}"
        )
    return () if options.validation == "Ignore" else tuple(found)


def checked_doubles(kind: Kind, doubles: list[str], options: WriteOptions) -> tuple[str, ...]:
    """What to say about fields that a body names twice.

    Raises:
        StatusError: 400 when validation is strict.
    """
    return told(kind, [f'duplicate field "{path}"' for path in doubles], options)
