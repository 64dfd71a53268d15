"""The way of an object between the version it is stored in and the one it is asked for.

Guarantees that an object of the stored version passes as the bytes it is kept
in. Versions of a custom resource differ by apiVersion only (conversion ``None``);
conversion webhooks are not supported.
"""

from typing import Any

from kaos.local.apiserver.registry import Kind
from kaos.local.apiserver.store import Record, encode


def stored_as(kind: Kind, obj: dict[str, Any]) -> dict[str, Any]:
    """An object of this version in the version it is stored in."""
    if kind.to_storage is not None:
        return kind.to_storage(obj)
    return {**obj, "apiVersion": kind.storage_api_version}


def load_as(kind: Kind, record: Record) -> dict[str, Any]:
    """A fresh copy of a stored object in this version."""
    obj = record.load()
    if kind.from_storage is not None:
        return kind.from_storage(obj)
    obj["apiVersion"] = kind.api_version
    return obj


def bytes_as(kind: Kind, record: Record) -> bytes:
    """The bytes of a stored object in this version."""
    if kind.api_version == kind.storage_api_version:
        return record.raw
    return encode(load_as(kind, record))
