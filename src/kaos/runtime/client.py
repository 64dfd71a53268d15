"""Requests to the API server (surface; body follows)."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Literal, Self, TypeAlias

from kaos.runtime.codec import Object
from kaos.runtime.config import ClusterConfig
from kaos.runtime.resources import Resource

Target: TypeAlias = Resource | Object
"""What the client takes for "a kind": a ResourceType, a model class, or an object of that kind."""


class Client:
    """Reads and writes objects; each method is one request (plus retries when safe)."""

    @classmethod
    def connect(cls, config: ClusterConfig, *, field_manager: str = "kaos-runtime") -> "Client":
        """A client of its own connections; use it as an async context manager, or close it."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        raise NotImplementedError

    async def __aexit__(self, *exc: object) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        """Close the connections."""

    async def get(self, resource: Target, name: str, namespace: str = "") -> Object:
        """Read one object; raises NotFound."""
        raise NotImplementedError

    async def list(
        self,
        resource: Target,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
    ) -> list[Object]:
        """Read all objects of a kind, in pages; of all namespaces when none is given."""
        raise NotImplementedError

    async def create(self, body: Mapping[str, Any], *, dry_run: bool = False) -> Object:
        """Create an object; raises AlreadyExists."""
        raise NotImplementedError

    async def update(self, body: Mapping[str, Any], *, subresource: str = "") -> Object:
        """Replace an object; raises Conflict when its resourceVersion is stale."""
        raise NotImplementedError

    async def patch(
        self,
        resource: Target,
        name: str,
        namespace: str,
        patch: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        type: Literal["merge", "json"] = "merge",  # noqa: A002
        subresource: str = "",
    ) -> Object:
        """Patch an object by a merge patch or a JSON patch."""
        raise NotImplementedError

    async def apply(
        self,
        body: Mapping[str, Any],
        *,
        field_manager: str | None = None,
        force: bool = True,
        subresource: str = "",
        dry_run: bool = False,
    ) -> Object:
        """Server-side apply."""
        raise NotImplementedError

    async def delete(
        self,
        resource: Target,
        name: str,
        namespace: str = "",
        *,
        propagation: Literal["Background", "Foreground", "Orphan"] = "Background",
        uid: str | None = None,
    ) -> None:
        """Delete an object; raises NotFound, and Conflict when its uid is another one."""
        raise NotImplementedError

    def logs(
        self,
        name: str,
        namespace: str,
        *,
        container: str = "",
        tail_lines: int | None = None,
        follow: bool = False,
        previous: bool = False,
    ) -> AsyncIterator[bytes]:
        """The lines of a container's log."""
        raise NotImplementedError
