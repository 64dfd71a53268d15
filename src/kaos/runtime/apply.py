"""Apply sets (surface; body follows)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kaos.runtime.cache import Cache
from kaos.runtime.client import Client
from kaos.runtime.codec import Object
from kaos.runtime.resources import Request, Resource


@dataclass(slots=True)
class Applied:
    """What an apply did.

    Attributes:
        objects: The children as they are now, in the order they were desired.
        written: How many were created or changed.
        pruned: What was deleted, as "Kind namespace/name".
        waiting: Children of that name that are still being deleted: apply again when they are gone.
    """

    objects: list[Object] = field(default_factory=list)
    written: int = 0
    pruned: list[str] = field(default_factory=list)
    waiting: list[Request] = field(default_factory=list)


class ApplySet:
    """The children an object wants: applied when they differ, pruned when unwanted."""

    def __init__(
        self, client: Client, cache: Cache, *, kinds: Sequence[Resource], field_manager: str = ""
    ) -> None:
        raise NotImplementedError

    async def apply(
        self,
        owner: Object,
        desired: Sequence[Mapping[str, Any]],
        *,
        labels: Mapping[str, str] | None = None,
    ) -> Applied:
        """Make the owner's children of our kinds be exactly the desired ones.

        Args:
            owner: The object the children are controlled by (the reference is added here).
            desired: Their bodies. Kinds outside of `kinds` are refused.
            labels: Ownership labels: an object without a controller that carries all of them is
                adopted; without them it is a NameConflict.

        Raises:
            NameConflict: When a child's name is taken by somebody else's object.
        """
        raise NotImplementedError
