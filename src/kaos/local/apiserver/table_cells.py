"""What table cells are made of: columns, ages, selectors.

Guarantees that a cell reads as kubectl's user knows it, and that no object, however
incomplete, raises: a field that is missing or of another type is ``<none>`` or
``<unknown>``.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from kaos.local.apiserver.jsonpath import compile_path

NONE: Final = "<none>"
UNKNOWN: Final = "<unknown>"

Obj = Mapping[str, Any]
Cell = Callable[[Obj, datetime], Any]

_MINUTE, _HOUR, _DAY, _YEAR = 60, 3600, 86400, 365 * 86400


@dataclass(frozen=True, slots=True)
class Column:
    """One column; with ``priority`` above 0 it shows only with ``-o wide``."""

    name: str
    cell: Cell
    type: str = "string"
    priority: int = 0
    format: str = ""
    description: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The columnDefinition."""
        return {
            "name": self.name,
            "type": self.type,
            "format": self.format,
            "description": self.description or self.name,
            "priority": self.priority,
        }


def at(obj: Any, *path: str) -> Any:
    """The value at a path of field names; None where it leads nowhere."""
    for name in path:
        if not isinstance(obj, Mapping):
            return None
        obj = obj.get(name)
    return obj


def mapping(obj: Any, *path: str) -> Mapping[str, Any]:
    """The object at a path, empty where there is none."""
    found = at(obj, *path)
    return found if isinstance(found, Mapping) else {}


def items(obj: Any, *path: str) -> list[Any]:
    """The list at a path, empty where there is none."""
    found = at(obj, *path)
    return found if isinstance(found, list) else []


def number(obj: Any, *path: str, default: int = 0) -> int:
    """The integer at a path."""
    found = at(obj, *path)
    return found if isinstance(found, int) else default


def text(obj: Any, *path: str, default: str = NONE) -> str:
    """The value at a path as text."""
    found = at(obj, *path)
    return default if found is None or found == "" else str(found)


def duration(seconds: float) -> str:
    """A length of time in the two units that matter: 45s, 3m20s, 5h, 2d3h, 400d, 3y10d."""
    whole = int(seconds)
    if whole < -1:
        return "<invalid>"
    whole = max(whole, 0)
    if whole < 2 * _MINUTE:
        return f"{whole}s"
    if whole < 10 * _MINUTE:
        return _two(whole, _MINUTE, "m", 1, "s")
    if whole < 3 * _HOUR:
        return f"{whole // _MINUTE}m"
    if whole < 8 * _HOUR:
        return _two(whole, _HOUR, "h", _MINUTE, "m")
    if whole < 2 * _DAY:
        return f"{whole // _HOUR}h"
    if whole < 8 * _DAY:
        return _two(whole, _DAY, "d", _HOUR, "h")
    if whole < 2 * _YEAR:
        return f"{whole // _DAY}d"
    if whole < 8 * _YEAR:
        return _two(whole, _YEAR, "y", _DAY, "d")
    return f"{whole // _YEAR}y"


def _two(seconds: int, big: int, big_name: str, small: int, small_name: str) -> str:
    rest = seconds % big // small
    return f"{seconds // big}{big_name}" + (f"{rest}{small_name}" if rest else "")


def parse_time(value: Any) -> datetime | None:
    """A Kubernetes timestamp, or None."""
    try:
        parsed = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def since(value: Any, now: datetime) -> str:
    """How long ago a timestamp was."""
    parsed = parse_time(value)
    return UNKNOWN if parsed is None else duration((now - parsed).total_seconds())


def age(obj: Obj, now: datetime) -> str:
    """The age of an object."""
    return since(at(obj, "metadata", "creationTimestamp"), now)


def labels(pairs: Mapping[str, Any]) -> str:
    """``a=1,b=2`` in the order of the names."""
    return ",".join(f"{name}={value}" for name, value in sorted(pairs.items())) or NONE


def selector(value: Any) -> str:
    """A label selector as it is typed after ``-l``."""
    parts = [f"{k}={v}" for k, v in sorted(mapping(value, "matchLabels").items())]
    for rule in items(value, "matchExpressions"):
        key, values = text(rule, "key"), ",".join(map(str, items(rule, "values")))
        match at(rule, "operator"):
            case "In":
                parts.append(f"{key} in ({values})")
            case "NotIn":
                parts.append(f"{key} notin ({values})")
            case "Exists":
                parts.append(key)
            case "DoesNotExist":
                parts.append(f"!{key}")
    return ",".join(parts) or NONE


def shortened(values: Iterable[str], limit: int = 3) -> str:
    """A list in one cell: the first ones and how many more there are."""
    every = list(values)
    rest = len(every) - limit
    return ",".join(every[:limit]) + (f" + {rest} more..." if rest > 0 else "") or NONE


def name_column() -> Column:
    """The first column of every table."""
    return Column("Name", lambda obj, _: text(obj, "metadata", "name", default=""), format="name")


def age_column() -> Column:
    """The last column of nearly every table."""
    return Column("Age", age)


def condition(obj: Obj, kind: str) -> Mapping[str, Any]:
    """The status condition of a type, empty when it is not there."""
    found = (c for c in items(obj, "status", "conditions") if at(c, "type") == kind)
    return next(found, {})


def path_column(definition: Mapping[str, Any]) -> Column:
    """A column of a CustomResourceDefinition's ``additionalPrinterColumns``."""
    kind = str(definition.get("type", "string"))
    try:
        find = compile_path(str(definition.get("jsonPath", "")))
    except ValueError:
        # The definition has been accepted; one bad column must not hide the others.
        find = _nowhere

    def cell(obj: Obj, now: datetime) -> Any:
        found = find(obj)
        return _typed(kind, found[0], now) if found and found[0] is not None else None

    return Column(
        str(definition.get("name", "")),
        cell,
        kind,
        number(definition, "priority"),
        text(definition, "format", default=""),
        text(definition, "description", default=""),
    )


def _nowhere(_: Any) -> list[Any]:
    return []


def _typed(kind: str, value: Any, now: datetime) -> Any:
    match kind:
        case "date":
            parsed = parse_time(value)
            return "<invalid>" if parsed is None else duration((now - parsed).total_seconds())
        case "integer":
            return int(value) if _is_number(value) else None
        case "number":
            return float(value) if _is_number(value) else None
        case "boolean":
            return value if isinstance(value, bool) else None
        case _ if isinstance(value, str):
            return value
        case _:
            return compact(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def compact(value: Any) -> str:
    """A value that is no string in a cell for strings: as JSON."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def container_columns(path: Sequence[str] = ("spec", "template", "spec")) -> tuple[Column, Column]:
    """The wide columns of a workload."""

    def of(field: str) -> Cell:
        return lambda obj, _: ",".join(text(c, field) for c in items(obj, *path, "containers"))

    return Column("Containers", of("name"), priority=1), Column("Images", of("image"), priority=1)
