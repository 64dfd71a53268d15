"""Status conditions: built in one way, merged so that the time of a change is kept.

Guarantees: `lastTransitionTime` moves only when the status of a condition does, so writing the same
conclusion twice gives the same bytes, and a status patch without a change is a no-op.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

_WORDS = {True: "True", False: "False", None: "Unknown"}


def timestamp(moment: datetime | None = None) -> str:
    """A time as the API writes it: RFC 3339, UTC, whole seconds."""
    return (moment or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def condition(
    type: str,  # noqa: A002 - the API's own name
    status: bool | None,
    reason: str,
    message: str,
    *,
    generation: int,
) -> dict[str, Any]:
    """One condition, without its transition time (`merge_conditions` adds it).

    Args:
        type: e.g. ``Ready``.
        status: True, False, or None for Unknown.
        reason: One CamelCase word for programs.
        message: One sentence for people.
        generation: The generation this was concluded from.
    """
    return {
        "type": type,
        "status": _WORDS[status],
        "reason": reason,
        "message": message,
        "observedGeneration": generation,
    }


def merge_conditions(
    old: Sequence[Mapping[str, Any]],
    new: Iterable[Mapping[str, Any]],
    *,
    now: datetime | str | None = None,
) -> list[dict[str, Any]]:
    """The conditions to write: `new` over `old`, in the order of `old`, new types at the end.

    Args:
        old: What the object has now. Types that `new` does not name are kept.
        new: The conditions concluded now.
        now: The time of a transition; default: the wall clock.
    """
    moment = now if isinstance(now, str) else timestamp(now)
    merged = {str(known.get("type")): dict(known) for known in old}
    for wanted in new:
        known = merged.get(wanted["type"])
        same = known is not None and known.get("status") == wanted["status"]
        since = known.get("lastTransitionTime") if known is not None and same else None
        merged[wanted["type"]] = {**wanted, "lastTransitionTime": since or moment}
    return list(merged.values())


def find_condition(
    conditions: Iterable[Mapping[str, Any]],
    type: str,  # noqa: A002 - the API's own name
) -> Mapping[str, Any] | None:
    """The condition of this type, if it is there."""
    return next((c for c in conditions if c.get("type") == type), None)


def is_true(conditions: Iterable[Mapping[str, Any]], type: str) -> bool:  # noqa: A002
    """Whether the condition is there and True."""
    found = find_condition(conditions, type)
    return found is not None and found.get("status") == "True"
