"""What an author declares: a reconciler, what it returns, and which kinds matter to it.

Guarantees: plain data and protocols; nothing here runs.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from kaos.runtime.codec import Object
from kaos.runtime.resources import Request, Resource
from kaos.runtime.selection import Selection


@dataclass(frozen=True, slots=True)
class Result:
    """What to do after a reconcile that went well.

    Attributes:
        requeue_after: Seconds after which to reconcile again, even when nothing changes.
        children: The children the object is to have, of the kinds in `owns`: applied where they
            differ, and what it has beyond them is deleted (see `ApplySet`). None leaves them alone.
    """

    requeue_after: float | None = None
    children: Sequence[Mapping[str, Any]] | None = None


@runtime_checkable
class Reconciler(Protocol):
    """Brings the world to what one object asks for.

    An optional second method, ``async def finalize(self, obj: Object, /) -> None``, cleans up when
    the object is deleted. Only when it exists, a finalizer is put on every object before its first
    reconcile; an object that is being deleted is then given to `finalize` and not to `reconcile`.
    """

    async def reconcile(self, request: Request, /) -> Result | None:
        """Reconcile one object, which may be gone."""
        ...


Reconcile = Callable[[Request], Awaitable[Result | None]]
"""A reconciler that is just a function; it has no clean-up."""

Predicate = Callable[[Object | None, Object | None], bool]
"""Whether a change (old, new; None for created and deleted) is worth a reconcile."""


@dataclass(frozen=True, slots=True)
class Owns:
    """A kind of children: a change of one reconciles its controller.

    Attributes:
        resource: The kind.
        optional: Whether its CRD may be missing.
        select: What of it the cache keeps; see `Selection`.
        predicate: Which changes count; default: all.
    """

    resource: Resource
    optional: bool = False
    select: Selection | None = None
    predicate: Predicate | None = None


@dataclass(frozen=True, slots=True)
class Watches:
    """Another kind whose changes matter.

    Attributes:
        resource: The kind.
        to_requests: Which objects to reconcile; called for the old and for the new object.
        optional: Whether its CRD may be missing.
        predicate: Which changes count; default: all.
        select: What of it the cache keeps; see `Selection`.
    """

    resource: Resource
    to_requests: Callable[[Object], Iterable[Request]]
    optional: bool = False
    predicate: Predicate | None = None
    select: Selection | None = None
