"""Controllers (surface; body follows)."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from kaos.runtime.codec import Object
from kaos.runtime.resources import Request, Resource


@dataclass(frozen=True, slots=True)
class Result:
    """What to do after a reconcile that went well.

    Attributes:
        requeue_after: Seconds after which to reconcile again, even when nothing changes.
    """

    requeue_after: float | None = None


class Reconciler(Protocol):
    """Brings the world to what one object asks for.

    An optional second method, ``async def finalize(self, obj: Object, /) -> None``, cleans up when
    the object is deleted; the finalizer that makes time for it is added only when it exists.
    """

    async def reconcile(self, request: Request, /) -> Result | None:
        """Reconcile one object, which may be gone."""
        ...


Predicate = Callable[[Object | None, Object | None], bool]
"""Whether a change (old, new; None for created and deleted) is worth a reconcile."""


@dataclass(frozen=True, slots=True)
class Owns:
    """A kind of children: a change of one reconciles its controller.

    Attributes:
        resource: The kind.
        optional: Whether its CRD may be missing.
    """

    resource: Resource
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Watches:
    """Another kind whose changes matter.

    Attributes:
        resource: The kind.
        to_requests: Which objects to reconcile; called for the old and for the new object.
        optional: Whether its CRD may be missing.
        predicate: Which changes count; default: all.
    """

    resource: Resource
    to_requests: Callable[[Object], Iterable[Request]]
    optional: bool = False
    predicate: Predicate | None = None


class Controller:
    """Runs a reconciler for the objects of one kind."""

    def __init__(
        self,
        name: str,
        reconciler: Reconciler,
        *,
        for_: Resource,
        owns: Sequence[Resource | Owns] = (),
        watches: Sequence[Watches] = (),
        workers: int = 1,
        reconcile_timeout: float | None = None,
        predicate: Predicate | None = None,
    ) -> None:
        raise NotImplementedError
