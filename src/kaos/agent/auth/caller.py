"""The caller's identity, on its way from the guard to the rooms behind it."""

from typing import Any

from starlette.types import Scope

_STATE = "caller"


def set_caller(scope: Scope, identity: str) -> None:
    """Note who called."""
    scope.setdefault("state", {})[_STATE] = identity


def caller_of(scope: Scope) -> str:
    """Return who called: nothing when nobody was asked."""
    state: Any = scope.get("state") or {}
    return str(state.get(_STATE, ""))
