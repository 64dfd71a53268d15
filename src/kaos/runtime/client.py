"""Requests to the API server: read, write, apply, delete, logs.

Guarantees: plain dicts go out and `Object`s come back; a refusal is raised as the class that names
it; a write is announced to an observer before it is sent and after it was answered, which lets
the cache show it at once and recognise its echo in the watch; a write is refused locally when the
guard says so (the leader lease is not held).
Does not: cache (see `Cache`), or limit its own rate: the server's priority and fairness does that.
"""

import builtins
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, Self, TypeAlias

from kaos.runtime.codec import Object, Page, decode_object, decode_page, encode
from kaos.runtime.config import ClusterConfig
from kaos.runtime.discovery import Discovery
from kaos.runtime.errors import Gone, from_status
from kaos.runtime.pool import HttpTransport
from kaos.runtime.requests import (
    Body,
    after_delete,
    body_version,
    lines,
    list_params,
    object_key,
    object_path,
    plain,
    refusal,
    tested_version,
)
from kaos.runtime.resources import POD, Request, Resource, ResourceType
from kaos.runtime.transport import HttpRequest, HttpResponse, Transport, send

Target: TypeAlias = Resource | Object
"""What the client takes for "a kind": a ResourceType, a model class, or an object of that kind."""

PAGE_SIZE = 500
_MERGE = "application/merge-patch+json"
_JSON_PATCH = "application/json-patch+json"
_APPLY = "application/apply-patch+yaml"  # JSON is YAML

Origin: TypeAlias = tuple[str, Request]
"""Who writes: the controller's name and the object it reconciles."""

origin: ContextVar[Origin | None] = ContextVar("kaos_runtime_origin", default=None)


@dataclass(eq=False, slots=True)
class Write:
    """A write under way.

    Attributes:
        resource: Its kind.
        key: Which object; the name ends with ``*`` when the server is to complete it.
        origin: Who writes.
        based_on: The resourceVersion the write was conditional on, "" when on none.
        merge: The body of a merge patch.
        before: For the observer: the object before.
    """

    resource: ResourceType
    key: Request
    origin: Origin | None
    based_on: str = ""
    merge: Mapping[str, Any] | None = None
    before: Object | None = None


class WriteObserver(Protocol):
    """Whoever wants to know of writes: the cache."""

    def write_started(self, write: Write) -> None:
        """Before it is sent."""
        ...

    def write_ended(
        self, write: Write, written: Object | None, *, created: bool = False, gone: str = ""
    ) -> None:
        """After the answer: the object as it is now, or the uid that is gone, or neither."""
        ...


class Client:
    """Reads and writes objects; each method is one request (plus retries when safe)."""

    def __init__(self, transport: Transport, *, field_manager: str = "kaos-runtime") -> None:
        self.transport = transport
        self.discovery = Discovery(transport)
        self.field_manager = field_manager
        self._observer: WriteObserver | None = None
        self._guard: Callable[[], None] | None = None

    @classmethod
    def connect(cls, config: ClusterConfig, *, field_manager: str = "kaos-runtime") -> "Client":
        """A client of its own connections; use it as an async context manager, or close it."""
        return cls(HttpTransport(config), field_manager=field_manager)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self.transport.close()

    def observe(self, observer: WriteObserver) -> None:
        """Tell this observer of all writes."""
        self._observer = observer

    def guard(self, check: Callable[[], None]) -> None:
        """Call this before each write; it raises to refuse."""
        self._guard = check

    async def resolve(self, target: Target) -> ResourceType:
        """The ResourceType of a kind or of an object; raises UnknownKind."""
        if isinstance(target, Object):
            return await self.discovery.find(target.api_version, target.kind)
        return ResourceType.of(target)

    async def get(
        self, resource: Target, name: str, namespace: str = "", *, resource_version: str = ""
    ) -> Object:
        """Read one object; raises NotFound.

        Args:
            resource: Its kind.
            name: Its name.
            namespace: Its namespace.
            resource_version: "0" for whatever state the server has at hand, a version for one that
                is no older, "" for the newest.
        """
        path = object_path(await self.resolve(resource), name, namespace)
        params = {"resourceVersion": resource_version} if resource_version else {}
        return decode_object(await self._read(HttpRequest("GET", path, params, idempotent=True)))

    async def create(self, body: Body, *, dry_run: bool = False) -> Object:
        """Create an object; raises AlreadyExists."""
        body = plain(body)
        resource, key = await self._identify(body)
        params = self._params(dry_run=dry_run)
        path = resource.path(key.namespace)
        request = HttpRequest("POST", path, params, encode(body))
        return await self._write(Write(resource, key, origin.get()), request)

    async def update(self, body: Body, *, subresource: str = "", dry_run: bool = False) -> Object:
        """Replace an object; raises Conflict when its resourceVersion is stale."""
        body = plain(body)
        resource, key = await self._identify(body)
        path = object_path(resource, key.name, key.namespace, subresource)
        request = HttpRequest("PUT", path, self._params(dry_run=dry_run), encode(body))
        return await self._write(Write(resource, key, origin.get(), body_version(body)), request)

    async def patch(
        self,
        resource: Target,
        name: str,
        namespace: str,
        patch: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        type: Literal["merge", "json"] = "merge",  # noqa: A002 - what kubectl calls it
        subresource: str = "",
        dry_run: bool = False,
    ) -> Object:
        """Patch an object by a merge patch or a JSON patch."""
        kind = await self.resolve(resource)
        path = object_path(kind, name, namespace, subresource)
        write = Write(kind, object_key(kind, namespace, name), origin.get())
        if isinstance(patch, Mapping):
            write.merge, write.based_on = patch, body_version(patch)
        else:
            write.based_on = tested_version(patch)
        content_type = _MERGE if type == "merge" else _JSON_PATCH
        params = self._params(dry_run=dry_run)
        request = HttpRequest("PATCH", path, params, encode(patch), content_type)
        return await self._write(write, request)

    async def apply(
        self,
        body: Body,
        *,
        field_manager: str | None = None,
        force: bool = True,
        subresource: str = "",
        dry_run: bool = False,
        field_validation: str = "",
    ) -> Object:
        """Server-side apply.

        Args:
            body: The fields we care for, with apiVersion, kind and name.
            field_manager: Who owns them; default: the client's field manager.
            force: Whether to take fields over that others own; without, that is a Conflict.
            subresource: e.g. ``status``.
            dry_run: Whether to only ask what would happen.
            field_validation: ``Strict`` refuses unknown fields; default: the server's own way.
        """
        body = plain(body)
        resource, key = await self._identify(body)
        params = self._params(dry_run=dry_run, field_manager=field_manager)
        params["force"] = "true" if force else "false"
        params |= {"fieldValidation": field_validation} if field_validation else {}
        path = object_path(resource, key.name, key.namespace, subresource)
        # Applying the same fields twice is applying them once: safe to try again.
        request = HttpRequest("PATCH", path, params, encode(body), _APPLY, idempotent=True)
        return await self._write(Write(resource, key, origin.get(), body_version(body)), request)

    async def delete(
        self,
        resource: Target,
        name: str,
        namespace: str = "",
        *,
        propagation: Literal["Background", "Foreground", "Orphan"] = "Background",
        uid: str | None = None,
        resource_version: str | None = None,
        grace_period: int | None = None,
        dry_run: bool = False,
    ) -> None:
        """Delete an object; raises NotFound, and Conflict when a precondition is not met.

        Args:
            resource: Its kind.
            name: Its name.
            namespace: Its namespace.
            propagation: What happens to the objects it owns.
            uid: Delete only this very object.
            resource_version: Delete it only if it has not changed since.
            grace_period: Seconds a pod gets to end; 0 removes it at once.
            dry_run: Whether to only ask whether it would be done.
        """
        kind = await self.resolve(resource)
        path = object_path(kind, name, namespace)
        options: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": propagation,
        }
        conditions = {"uid": uid, "resourceVersion": resource_version}
        if wanted := {name: value for name, value in conditions.items() if value}:
            options["preconditions"] = wanted
        if dry_run:
            options["dryRun"] = ["All"]
        if grace_period is not None:
            options["gracePeriodSeconds"] = grace_period
        request = HttpRequest("DELETE", path, {}, encode(options))
        write = Write(kind, object_key(kind, namespace, name), origin.get())
        left: Object | None = None
        gone = ""
        observer = None if dry_run else self._observer
        if observer is not None:
            observer.write_started(write)
        try:
            answer = await self._send(request)
            left, gone = after_delete(answer.body, kind)
        finally:
            if observer is not None:
                observer.write_ended(write, left, gone=gone)

    async def logs(
        self,
        name: str,
        namespace: str,
        *,
        container: str = "",
        tail_lines: int | None = None,
        follow: bool = False,
        previous: bool = False,
    ) -> AsyncIterator[bytes]:
        """The lines of a container's log, without their line ends.

        With `follow` it goes on until the container ends: run it in a scope that can be cancelled.
        """
        params: dict[str, str] = {"container": container} if container else {}
        if tail_lines is not None:
            params["tailLines"] = str(tail_lines)
        params |= {k: "true" for k, on in (("follow", follow), ("previous", previous)) if on}
        path = POD.path(namespace, name, "log")
        request = HttpRequest("GET", path, params, accept="*/*", idempotent=True)
        async with self.transport.stream(request) as stream:
            if stream.status != 200:
                raise from_status(stream.status, await stream.read(), request=str(request))
            async for line in lines(stream.chunks()):
                yield line

    async def page(self, resource: ResourceType, namespace: str, params: Mapping[str, str]) -> Page:
        """One LIST request as it is: for the reflector."""
        request = HttpRequest("GET", resource.path(namespace), params, idempotent=True)
        return decode_page(await self._read(request), resource)

    async def pages(
        self,
        resource: Target,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        page_size: int = PAGE_SIZE,
        resource_version: str = "",
    ) -> AsyncGenerator[Page, None]:
        """All objects of a kind page by page, so that they never are in memory all at once.

        Args:
            resource: Their kind.
            namespace: Their namespace; "" for all.
            label_selector: As kubectl takes it.
            field_selector: As kubectl takes it.
            page_size: Objects per request; 0 for one request.
            resource_version: See `get`; a server answers "0" in one page.

        Raises:
            Gone: When the caller took so long that the server forgot the rest.
        """
        kind = await self.resolve(resource)
        params = list_params(label_selector, field_selector, page_size, resource_version)
        while True:
            found = await self.page(kind, namespace, params)
            yield found
            if not found.continue_token:
                return
            params.pop("resourceVersion", None)
            params["continue"] = found.continue_token

    async def list(
        self,
        resource: Target,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        page_size: int = PAGE_SIZE,
        resource_version: str = "",
    ) -> builtins.list[Object]:
        """Read all objects of a kind; see `pages`. What the server forgot is read in one piece."""
        for size in (page_size, 0):
            items: builtins.list[Object] = []
            try:
                async for found in self.pages(
                    resource,
                    namespace,
                    label_selector=label_selector,
                    field_selector=field_selector,
                    page_size=size,
                    resource_version=resource_version,
                ):
                    items += found.items
            except Gone:
                # Only a continue token can be too old; once more, without any.
                if not items or not size:
                    raise
            else:
                return items
        raise AssertionError

    async def _identify(self, body: Mapping[str, Any]) -> tuple[ResourceType, Request]:
        api_version, kind = body.get("apiVersion"), body.get("kind")
        metadata = body.get("metadata") or {}
        if not api_version or not kind:
            raise ValueError("a body needs apiVersion and kind")
        resource = await self.discovery.find(api_version, kind)
        name = metadata.get("name") or f"{metadata.get('generateName') or ''}*"
        return resource, object_key(resource, metadata.get("namespace") or "", name)

    def _params(self, *, dry_run: bool = False, field_manager: str | None = None) -> dict[str, str]:
        params = {"fieldManager": field_manager or self.field_manager}
        if dry_run:
            params["dryRun"] = "All"
        return params

    async def _read(self, request: HttpRequest) -> bytes:
        answer = await send(self.transport, request)
        if answer.status >= 300:
            raise refusal(answer, request)
        return answer.body

    async def _send(self, request: HttpRequest) -> HttpResponse:
        answer = await send(self.transport, replace(request, check=self._guard))
        if answer.status >= 300:
            raise refusal(answer, request)
        return answer

    async def _write(self, write: Write, request: HttpRequest) -> Object:
        observer = self._observer if "dryRun" not in request.params else None
        if observer is None:
            return decode_object((await self._send(request)).body)
        observer.write_started(write)
        written: Object | None = None
        created = False
        try:
            answer = await self._send(request)
            written = decode_object(answer.body)
            created = answer.status == 201
        finally:
            # Other subresources (scale, eviction, ...) answer with an object of another kind.
            ours = written is not None and written.kind == write.resource.kind
            observer.write_ended(write, written if ours else None, created=created)
        return written
