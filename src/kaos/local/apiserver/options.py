"""The options of a request, read from query and body once.

Guarantees that every option is of its type or the request fails with 400 (a
misread ``limit`` or ``timeoutSeconds`` must not fall silently back to a default).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kaos.local.apiserver.errors import bad_request, field_unsupported, invalid_options

Query = Mapping[str, str]


def flag(query: Query, name: str) -> bool:
    """A boolean option: "1", "true" and the bare name mean yes."""
    value = query.get(name)
    if value is None or value.lower() in {"0", "f", "false"}:
        return False
    if value.lower() in {"", "1", "t", "true"}:
        return True
    raise bad_request(f"invalid value {value!r} for {name}: want true or false")


def number(query: Query, name: str) -> int | None:
    """A number that is not negative."""
    value = query.get(name)
    if not value:
        return None
    if not value.isascii() or not value.isdigit():
        raise bad_request(f"invalid value {value!r} for {name}: want a number")
    return int(value)


def dry_run(query: Query) -> bool:
    """Whether nothing is to be kept."""
    value = query.get("dryRun", "")
    if value not in {"", "All"}:
        raise invalid_options("CreateOptions", field_unsupported("dryRun", [value], ["All"]))
    return value == "All"


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """How to write: on trial, by whom, how strictly, over whose objections."""

    manager: str = "unknown"
    dry_run: bool = False
    validation: str = ""  # Strict, Warn, Ignore; not asked for: warnings where they are cheap
    force: bool = False

    @classmethod
    def of(cls, query: Query, user_agent: str = "") -> "WriteOptions":
        """Read the options of a create, update or patch."""
        validation = query.get("fieldValidation", "")
        if validation not in {"", "Strict", "Warn", "Ignore"}:
            raise bad_request(f"invalid value {validation!r} for fieldValidation")
        manager = query.get("fieldManager") or user_agent.partition("/")[0][:128] or "unknown"
        if len(manager) > 128 or not manager.isprintable():
            raise bad_request("fieldManager: must be printable, at most 128 characters")
        return cls(manager, dry_run(query), validation, flag(query, "force"))


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """How to delete: how soon, what becomes of dependents, on which condition."""

    grace: int | None = None
    propagation: str = ""
    uid: str = ""
    resource_version: str = ""
    dry_run: bool = False

    @classmethod
    def of(cls, query: Query, body: Mapping[str, Any]) -> "DeleteOptions":
        """Read the options of a delete; the body goes before the query."""
        grace = body.get("gracePeriodSeconds", number(query, "gracePeriodSeconds"))
        if grace is not None and (not isinstance(grace, int) or grace < 0):
            raise bad_request(f"invalid value {grace!r} for gracePeriodSeconds")
        propagation = body.get("propagationPolicy") or query.get("propagationPolicy") or ""
        orphan = body.get("orphanDependents")
        if orphan is not None:
            propagation = "Orphan" if orphan else "Background"
        if propagation not in ("", "Background", "Foreground", "Orphan"):
            raise bad_request(
                f'propagationPolicy: Unsupported value: "{propagation}": supported values: '
                '"Background", "Foreground", "Orphan"'
            )
        condition = body.get("preconditions") or {}
        if not isinstance(condition, dict):
            raise bad_request("preconditions: want an object")
        return cls(
            grace,
            propagation,
            condition.get("uid") or "",
            condition.get("resourceVersion") or "",
            dry_run(query) or "All" in (body.get("dryRun") or ()),
        )
