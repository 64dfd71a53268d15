"""One object as `kubectl get` shows it: what the tests of tables share."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from kaos.local.apiserver.builtin_kinds import builtin_kinds
from kaos.local.apiserver.registry import Kind
from kaos.local.apiserver.tables import render_table

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
KINDS = {(k.group, k.plural): k for k in builtin_kinds()}


def ago(**parts: float) -> str:
    return (NOW - timedelta(**parts)).strftime("%Y-%m-%dT%H:%M:%SZ")


def row(kind: Kind, obj: Mapping[str, Any], *, wide: bool = False) -> dict[str, Any]:
    """The cells of an object by column name, as kubectl shows them."""
    table = render_table(kind, [obj], list_metadata={}, now=NOW)
    cells = table["rows"][0]["cells"]
    columns = zip(table["columnDefinitions"], cells, strict=True)
    return {c["name"]: cell for c, cell in columns if wide or not c["priority"]}


def named(name: str, **fields: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "creationTimestamp": ago(minutes=3)}, **fields}
