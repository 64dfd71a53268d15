"""Lists: which state they show, in which pages, as which bytes.

Guarantees that all pages of one list show one state (that of the first page) or
the list fails with 410, never a mixture; the 410 carries a token with which a
client may knowingly go on in the present.
"""

import base64
import binascii
from dataclasses import dataclass
from typing import Any

import msgspec

from kaos.local.apiserver.errors import (
    StatusError,
    bad_request,
    expired,
    too_large_resource_version,
)
from kaos.local.apiserver.options import Query, number
from kaos.local.apiserver.registry import Kind
from kaos.local.apiserver.selectors import Selection, parse_fields, parse_labels
from kaos.local.apiserver.store import ExpiredError, FutureError, Key, Record, Store, encode

_TOO_OLD = (
    "The provided continue parameter is too old to display a consistent list result. You can start"
    " a new list without the continue parameter, or use the continue token in this response to"
    " retrieve the remainder of the results. Continuing with the provided token results in an"
    " inconsistent list - objects that were created, modified, or deleted between the time the"
    " first chunk was returned and now may show up in the list."
)


# What field selectors may name: fewer fields than an object has, as on a real cluster.
_FIELDS = frozenset({"metadata.name", "metadata.namespace"})
_OF_EVENT = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
_FIELDS_OF: dict[str, frozenset[str]] = {
    "pods": frozenset(
        {
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        }
    ),
    "nodes": frozenset({"spec.unschedulable"}),
    "namespaces": frozenset({"status.phase"}),
    "secrets": frozenset({"type"}),
    "services": frozenset({"spec.clusterIP", "spec.type"}),
    "replicasets": frozenset({"status.replicas"}),
    "jobs": frozenset({"status.successful"}),
    "events": frozenset(
        {
            *(f"involvedObject.{name}" for name in _OF_EVENT),
            "reason",
            "reportingComponent",
            "source",
            "type",
        }
    ),
}


class _Token(msgspec.Struct):
    rv: int  # 0: go on in the present
    namespace: str
    name: str


class ExpiredTokenError(StatusError):
    """410 for a page of a state that is forgotten, with the token to go on without it."""

    def __init__(self, token: str) -> None:
        super().__init__(410, "Expired", _TOO_OLD)
        self._token = token

    def to_dict(self) -> dict[str, Any]:
        """The Status object, whose metadata carries the token."""
        return {**super().to_dict(), "metadata": {"continue": self._token}}


@dataclass(frozen=True, slots=True)
class Listing:
    """One page: its objects and what the list's metadata says."""

    records: list[Record]
    metadata: dict[str, Any]


def selection(kind: Kind, query: Query, namespace: str, name: str = "") -> Selection:
    """What the selectors of a request choose; ``name`` narrows it to one object."""
    text = query.get("fieldSelector", "")
    if kind.group == "events.k8s.io":  # stored in the core form, which has another word
        text = text.replace("involvedObject.", "unknown.").replace("regarding.", "involvedObject.")
    fields = parse_fields(text)
    for requirement in fields:
        path = ".".join(requirement.path)
        if path not in _FIELDS and path not in _FIELDS_OF.get(kind.plural, ()):
            raise bad_request(f"field label not supported: {path}")
    if name:
        fields = (*fields, *parse_fields(f"metadata.name={name}"))
    return Selection(namespace, parse_labels(query.get("labelSelector", "")), fields)


def chosen(record: Record, what: Selection) -> bool:
    """Whether a revision is selected."""
    return what.matches(record.key[0], record.labels, record.load)


def resource_version(text: str) -> int | None:
    """The resourceVersion of a request: None for "" (the newest), 0 for any.

    Raises:
        StatusError: 400, it is no number.
    """
    if not text:
        return None
    if not text.isascii() or not text.isdigit():
        raise bad_request(
            f'invalid resource version: resourceVersion: Invalid value: "{text}": invalid syntax'
        )
    return int(text)


def list_page(store: Store, kind: Kind, what: Selection, query: Query) -> Listing:
    """The page that the query asks for.

    Raises:
        StatusError: 400 for options that make no sense, 410 for a forgotten state,
            504 for one that is still to come.
    """
    limit = number(query, "limit") or 0
    rv, after = store.rv, None
    asked = resource_version(query.get("resourceVersion", ""))
    if token := query.get("continue", ""):
        if asked:
            raise bad_request("specifying resource version is not allowed when using continue")
        records, rv, after = _resume(store, kind, what, token)
    elif asked and asked > store.rv:
        raise too_large_resource_version(asked, store.rv)
    elif asked and query.get("resourceVersionMatch") == "Exact":
        records, rv = _at(store, kind, what, asked), asked
    else:
        records = store.current(kind.bucket, what.namespace)
    if after is not None:
        records = [record for record in records if record.key > after]
    if not what.everything:
        records = [record for record in records if chosen(record, what)]
    metadata: dict[str, Any] = {"resourceVersion": str(rv)}
    if limit and len(records) > limit:
        last = records[limit - 1].key
        metadata["continue"] = _token(rv, last)
        if what.everything:
            metadata["remainingItemCount"] = len(records) - limit
        records = records[:limit]
    return Listing(records, metadata)


def _resume(store: Store, kind: Kind, what: Selection, text: str) -> tuple[list[Record], int, Key]:
    try:
        token = msgspec.json.decode(base64.urlsafe_b64decode(text), type=_Token)
    except (binascii.Error, msgspec.DecodeError, ValueError) as error:
        raise bad_request(f"continue key is not valid: {error}") from error
    after = (token.namespace, token.name)
    if not token.rv:
        return store.current(kind.bucket, what.namespace), store.rv, after
    try:
        return store.list_at(kind.bucket, token.rv, what.namespace), token.rv, after
    except (ExpiredError, FutureError) as error:
        raise ExpiredTokenError(_token(0, after)) from error


def _token(rv: int, last: Key) -> str:
    raw = msgspec.json.encode(_Token(rv, *last))
    return base64.urlsafe_b64encode(raw).decode()


def _at(store: Store, kind: Kind, what: Selection, rv: int) -> list[Record]:
    try:
        return store.list_at(kind.bucket, rv, what.namespace)
    except ExpiredError as error:
        raise expired(f"The resourceVersion for the provided list is too old ({rv})") from error


def list_bytes(kind: Kind, metadata: dict[str, Any], items: list[bytes]) -> bytes:
    """A list object around items that are encoded already."""
    head = {"kind": kind.list_kind, "apiVersion": kind.api_version, "metadata": metadata}
    return encode(head)[:-1] + b',"items":[' + b",".join(items) + b"]}"
