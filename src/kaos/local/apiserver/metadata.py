"""Object metadata: what the server sets, what the client may set, and what names look like.

Guarantees that uid, creationTimestamp, generation and the deletion mark are the
server's alone, and that a name, a label or an owner reference that the real
server refuses is refused here with the same words.
"""

import re
import secrets
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from kaos.local.apiserver.errors import (
    Cause,
    field_forbidden,
    field_invalid,
    field_required,
    field_too_long,
)
from kaos.local.apiserver.registry import Kind

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_DNS1035 = r"[a-z]([-a-z0-9]*[a-z0-9])?"
_LABEL_VALUE = r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?"
_QUALIFIED = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"

_SUBDOMAIN_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.',"
    " and must start and end with an alphanumeric character (e.g. 'example.com', regex used for"
    f" validation is '{_SUBDOMAIN}')"
)
_LABEL_TEXT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must"
    " start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for"
    f" validation is '{_LABEL}')"
)
_DNS1035_TEXT = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an"
    " alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123',"
    f" regex used for validation is '{_DNS1035}')"
)
_LABEL_VALUE_TEXT = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.',"
    " and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or"
    f" '12345', regex used for validation is '{_LABEL_VALUE}')"
)
_QUALIFIED_TEXT = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end"
    " with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for"
    f" validation is '{_QUALIFIED}')"
)
_is_subdomain = re.compile(_SUBDOMAIN).fullmatch
_is_label = re.compile(_LABEL).fullmatch
_is_dns1035 = re.compile(_DNS1035).fullmatch
_is_label_value = re.compile(_LABEL_VALUE).fullmatch
_is_qualified = re.compile(_QUALIFIED).fullmatch

_ANNOTATIONS_SIZE = 256 * 1024
_SUFFIX_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_SERVER_OWNED = (
    "uid",
    "creationTimestamp",
    "generation",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
)


def timestamp(now: datetime) -> str:
    """A moment as metadata carries it."""
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def prepare_create(kind: Kind, obj: dict[str, Any], namespace: str, now: datetime) -> None:
    """Fill in what the server owns in a new object, dropping what the client put there."""
    metadata = obj["metadata"]
    for field in (*_SERVER_OWNED, "selfLink", "resourceVersion"):
        metadata.pop(field, None)
    if not metadata.get("name") and metadata.get("generateName"):
        suffix = "".join(secrets.choice(_SUFFIX_LETTERS) for _ in range(5))
        metadata["name"] = metadata["generateName"][:58] + suffix
    if kind.namespaced:
        metadata["namespace"] = namespace
    else:
        metadata.pop("namespace", None)
    metadata["uid"] = str(uuid.uuid4())
    metadata["creationTimestamp"] = timestamp(now)
    if kind.generation:
        metadata["generation"] = 1
    _drop_empty(metadata)


def prepare_update(obj: dict[str, Any], old: dict[str, Any]) -> None:
    """Keep what the server owns as it was."""
    metadata, before = obj["metadata"], old["metadata"]
    for field in (*_SERVER_OWNED, "name", "namespace", "generateName", "resourceVersion"):
        if field in before:
            metadata[field] = before[field]
        else:
            metadata.pop(field, None)
    metadata.pop("selfLink", None)
    _drop_empty(metadata)


def _drop_empty(metadata: dict[str, Any]) -> None:
    for field in ("labels", "annotations", "finalizers", "ownerReferences", "managedFields"):
        if field in metadata and not metadata[field]:
            del metadata[field]


def bump_generation(kind: Kind, obj: dict[str, Any], old: dict[str, Any]) -> None:
    """Count a change of anything but metadata (and status, where it is apart)."""
    if not kind.generation:
        return
    aside = {"metadata", "apiVersion", "kind"} | ({"status"} if kind.has_status else set())
    fields = (obj.keys() | old.keys()) - aside
    if any(obj.get(field) != old.get(field) for field in fields):
        metadata = obj["metadata"]
        metadata["generation"] = old["metadata"].get("generation", 0) + 1


def mark_deleted(obj: dict[str, Any], now: datetime, grace: int = 0) -> None:
    """Set the deletion mark, which counts as a change of generation."""
    metadata = obj["metadata"]
    metadata["deletionTimestamp"] = timestamp(
        datetime.fromtimestamp(now.timestamp() + grace, tz=UTC)
    )
    metadata["deletionGracePeriodSeconds"] = grace
    if "generation" in metadata:
        metadata["generation"] += 1


def drop_finalizer(obj: dict[str, Any], finalizer: str) -> None:
    """Take a finalizer off an object."""
    metadata = obj["metadata"]
    metadata["finalizers"] = [f for f in metadata.get("finalizers") or () if f != finalizer]
    _drop_empty(metadata)


def validate(kind: Kind, obj: dict[str, Any], old: dict[str, Any] | None = None) -> list[Cause]:
    """What is wrong with the metadata of an object about to be written."""
    metadata = obj["metadata"]
    causes = [] if old is not None else _validate_name(kind, metadata.get("name") or "")
    causes += _validate_labels("metadata.labels", metadata.get("labels"))
    causes += _validate_keys("metadata.annotations", metadata.get("annotations") or {})
    causes += _validate_size(metadata.get("annotations") or {})
    causes += _validate_owners(metadata.get("ownerReferences") or [])
    if old is not None and "deletionTimestamp" in old["metadata"]:
        known = set(old["metadata"].get("finalizers") or ())
        added = [f for f in metadata.get("finalizers") or () if f not in known]
        if added:
            found = " ".join(f'"{finalizer}"' for finalizer in added)
            causes.append(
                field_forbidden(
                    "metadata.finalizers",
                    "no new finalizers can be added if the object is being deleted, found new"
                    f" finalizers []string{{{found}}}",
                )
            )
    return causes


def _validate_name(kind: Kind, name: str) -> list[Cause]:
    field = "metadata.name"
    if not name:
        return [field_required(field, "name or generateName is required")]
    if kind.group == "rbac.authorization.k8s.io":
        if name in {".", ".."} or "/" in name or "%" in name:
            return [field_invalid(field, name, "may not contain '/' or '%' or be '.' or '..'")]
        return []
    limit, matches, text = 253, _is_subdomain, _SUBDOMAIN_TEXT
    if kind.resource == "namespaces":
        limit, matches, text = 63, _is_label, _LABEL_TEXT
    elif kind.resource == "services":
        limit, matches, text = 63, _is_dns1035, _DNS1035_TEXT
    causes = []
    if len(name) > limit:
        causes.append(field_invalid(field, name, f"must be no more than {limit} characters"))
    if not matches(name):
        causes.append(field_invalid(field, name, text))
    return causes


def _validate_labels(field: str, labels: dict[str, Any] | None) -> list[Cause]:
    causes = _validate_keys(field, labels or {})
    for value in (labels or {}).values():
        if len(value) > 63:
            causes.append(field_invalid(field, value, "must be no more than 63 characters"))
        elif not _is_label_value(value):
            causes.append(field_invalid(field, value, _LABEL_VALUE_TEXT))
    return causes


def _validate_keys(field: str, keys: Iterable[str]) -> list[Cause]:
    causes = []
    for key in keys:
        prefix, slash, name = key.rpartition("/")
        if slash and not _is_subdomain(prefix):
            causes.append(field_invalid(field, key, f"prefix part {_SUBDOMAIN_TEXT}"))
        if not name:
            causes.append(field_invalid(field, key, "name part must be non-empty"))
        elif len(name) > 63:
            text = "name part must be no more than 63 characters"
            causes.append(field_invalid(field, key, text))
        elif not _is_qualified(name):
            causes.append(field_invalid(field, key, _QUALIFIED_TEXT))
    return causes


def _validate_size(annotations: dict[str, str]) -> list[Cause]:
    size = sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items())
    too_long = field_too_long("metadata.annotations", _ANNOTATIONS_SIZE)
    return [too_long] if size > _ANNOTATIONS_SIZE else []


def _validate_owners(owners: list[dict[str, Any]]) -> list[Cause]:
    field = "metadata.ownerReferences"
    causes = [
        field_invalid(f"{field}.{name}", owner.get(name) or "", "must not be empty")
        for owner in owners
        for name in ("apiVersion", "kind", "name", "uid")
        if not owner.get(name)
    ]
    controllers = [owner.get("name", "") for owner in owners if owner.get("controller")]
    if len(controllers) > 1:
        text = (
            'Only one reference can have Controller set to true. Found "true" in references for '
            f"{controllers[0]} and {controllers[1]}"
        )
        causes.append(field_invalid(field, owners, text))
    return causes


def malformed(kind: Kind, obj: Any) -> str:
    """Why this cannot be an object at all; empty when it can.

    The write path trusts these types, so that it need not ask again at every step.
    """
    if not isinstance(obj, dict):
        return "json: cannot unmarshal the body into an object"
    metadata = obj.setdefault("metadata", {})
    if not isinstance(metadata, dict):
        return "json: cannot unmarshal metadata into an object"
    for field in ("name", "generateName", "namespace", "uid", "resourceVersion"):
        if not isinstance(metadata.get(field, ""), str | None):
            return f"json: cannot unmarshal metadata.{field} into a string"
    for field in ("labels", "annotations"):
        pairs = metadata.get(field) or {}
        if not isinstance(pairs, dict) or not all(isinstance(v, str) for v in pairs.values()):
            return f"json: cannot unmarshal metadata.{field} into a map of strings"
    for field, sort in (("finalizers", str), ("ownerReferences", dict), ("managedFields", dict)):
        items = metadata.get(field) or []
        if not isinstance(items, list) or not all(isinstance(item, sort) for item in items):
            return f"json: cannot unmarshal metadata.{field} into a list of {sort.__name__}"
    for field in () if kind.crd else ("spec", "status"):
        if not isinstance(obj.get(field) or {}, dict):
            return f"json: cannot unmarshal {field} into an object"
    return ""
