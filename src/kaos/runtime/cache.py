"""Informers and reads from them (surface; body follows)."""

from collections.abc import Callable, Iterable, Mapping

from kaos.runtime.codec import Object
from kaos.runtime.resources import Resource


class Cache:
    """Synchronous reads of what the watches delivered, and of our own writes at once."""

    def get(self, resource: Resource, name: str, namespace: str = "") -> Object | None:
        """One object, or None."""
        raise NotImplementedError

    def add_index(
        self, resource: Resource, index: str, keys: Callable[[Object], Iterable[str]]
    ) -> None:
        """Keep an index of a kind; `keys` gives the keys under which an object is found."""
        raise NotImplementedError

    def by_index(self, resource: Resource, index: str, key: str) -> list[Object]:
        """The objects under a key of an index."""
        raise NotImplementedError

    def owned_by(self, resource: Resource, owner: Object) -> list[Object]:
        """The objects of a kind that this owner (by uid) controls."""
        raise NotImplementedError

    def synced(self, resource: Resource) -> bool:
        """Whether the kind is served and was listed."""
        raise NotImplementedError

    def list(
        self, resource: Resource, namespace: str = "", *, labels: Mapping[str, str] | None = None
    ) -> list[Object]:
        """The objects of a kind; of all namespaces when none is given."""
        raise NotImplementedError
