"""Tables: what ``kubectl get`` prints, made by the server (meta.k8s.io/v1 Table).

Guarantees: built-in kinds have the columns of the real server (``tables_builtin``),
custom ones those of their definition, others NAME and AGE; a row carries the object in
the form that was asked for (kubectl needs its metadata for ``--show-labels``, sorting and
watching). No object, however odd, makes a table fail.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from kaos.local.apiserver.registry import Kind
from kaos.local.apiserver.table_cells import Column, age_column, name_column, path_column
from kaos.local.apiserver.tables_builtin import BUILTIN_COLUMNS


def render_table(
    kind: Kind,
    objects: Sequence[Mapping[str, Any]],
    *,
    list_metadata: Mapping[str, Any],
    now: datetime | None = None,
    include: str = "Metadata",
) -> dict[str, Any]:
    """Make the Table of these objects.

    Args:
        kind: Their kind.
        objects: In the order of the rows.
        list_metadata: The metadata of the list (resourceVersion, continue).
        now: What ages are counted from; the clock's time unless given.
        include: The query's ``includeObject``: None, Metadata or Object.
    """
    columns = columns_of(kind)
    now = now or datetime.now(UTC)
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": dict(list_metadata),
        "columnDefinitions": [column.to_dict() for column in columns],
        "rows": [
            {
                "cells": [column.cell(obj, now) for column in columns],
                "object": _included(obj, include),
            }
            for obj in objects
        ],
    }


def columns_of(kind: Kind) -> tuple[Column, ...]:
    """The columns of a kind."""
    if kind.printer_columns:
        return (name_column(), *map(path_column, kind.printer_columns))
    builtin = None if kind.crd else BUILTIN_COLUMNS.get((kind.group, kind.plural))
    return builtin or (name_column(), age_column())


def _included(obj: Mapping[str, Any], include: str) -> Mapping[str, Any] | None:
    match include:
        case "None":
            return None
        case "Object":
            return obj
        case _:
            head = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}
            return {**head, "metadata": obj.get("metadata") or {}}
