"""Objects that `kubectl apply` applies too: what a file has lost is lost, whoever applies it next.

`kubectl apply` finds what was removed from a file by an annotation that holds the file as it was
before; a server-side apply finds it by the fields that its manager owns. Guaranteed: what we apply
has that annotation, and the fields that kubectl owns from its own applies become ours before we
apply (as `kubectl apply --server-side` does it). Without, each kept in silence what the other had
set.

Not done: kubectl's fields under another version of the kind than ours stay kubectl's. A Secret gets
no annotation: what it holds would be among its metadata, which more may read.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from kaos.runtime import Client, NotFound, Object
from kaos.runtime.requests import object_path, refusal
from kaos.runtime.transport import HttpRequest, send

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_KUBECTL = "kubectl-client-side-apply"
_MOST = 200_000  # bytes; all annotations of an object together may have 256 KiB

Entry = Mapping[str, Any]


def remembered(body: Mapping[str, Any]) -> dict[str, Any]:
    """``body`` with itself as the annotation, unless it is too large for one, or secret."""
    if body.get("kind") == "Secret":
        return dict(body)
    metadata = dict(body["metadata"])
    annotations = dict(metadata.get("annotations") or {})
    annotations.pop(LAST_APPLIED, None)
    bare = {**body, "metadata": {**metadata, "annotations": annotations}}
    text = json.dumps(bare, separators=(",", ":"), ensure_ascii=False) + "\n"
    if len(text.encode()) <= _MOST:
        annotations = {**annotations, LAST_APPLIED: text}
    if annotations or "annotations" in metadata:
        metadata["annotations"] = annotations
    return {**body, "metadata": metadata}


async def take_over(client: Client, body: Mapping[str, Any]) -> None:
    """Make the fields of the live object that `kubectl apply` owns our own.

    Raises:
        Conflict: somebody has written it in between; try again.
    """
    resource = await client.resolve(Object.from_dict(body))
    name, namespace = body["metadata"]["name"], body["metadata"].get("namespace", "")
    # Of its own, for the client's objects come without managedFields.
    request = HttpRequest("GET", object_path(resource, name, namespace), idempotent=True)
    answer = await send(client.transport, request)
    if answer.status >= 300:
        error = refusal(answer, request)
        if isinstance(error, NotFound):
            return
        raise error
    metadata = json.loads(answer.body)["metadata"]
    entries = taken_over(metadata.get("managedFields") or (), client.field_manager)
    if entries is not None:
        version = metadata["resourceVersion"]
        patch = [
            {"op": "replace", "path": "/metadata/managedFields", "value": entries},
            {"op": "replace", "path": "/metadata/resourceVersion", "value": version},
        ]
        await client.patch(resource, name, namespace, patch, type="json")


def taken_over(entries: Sequence[Entry], manager: str) -> list[Entry] | None:
    """The entries when kubectl's is ``manager``'s; None when there is none to take over."""

    def find(name: str, operation: str) -> Entry | None:
        wanted = (name, operation, "")
        for entry in entries:
            found = (entry.get("manager"), entry.get("operation"), entry.get("subresource", ""))
            if found == wanted:
                return entry
        return None

    theirs, ours = find(_KUBECTL, "Update"), find(manager, "Apply")
    if theirs is None or (ours and ours.get("apiVersion") != theirs.get("apiVersion")):
        return None
    fields = _union(theirs.get("fieldsV1") or {}, (ours or {}).get("fieldsV1") or {})
    merged = {**theirs, "manager": manager, "operation": "Apply", "fieldsV1": fields}
    return [*(entry for entry in entries if entry is not theirs and entry is not ours), merged]


def _union(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    both = {key: _union(one[key], other[key]) for key in one.keys() & other.keys()}
    return {**one, **other, **both}
