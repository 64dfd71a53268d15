"""The HTTP face of the API server: one ASGI handler for every stored kind.

Guarantees bounded bodies, errors as Status objects (a bug in here too: 500, and
logged), and that every answer waits until what it shows is kept: a reader that
was shown a write which a crash takes back acts on it for ever.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from kaos.local.apiserver import deletion
from kaos.local.apiserver.admission import checked_doubles
from kaos.local.apiserver.auth import review
from kaos.local.apiserver.discovery import Discovery
from kaos.local.apiserver.errors import (
    StatusError,
    bad_request,
    field_required,
    invalid_options,
    method_not_allowed,
    no_such_resource,
    too_large_resource_version,
)
from kaos.local.apiserver.listing import list_bytes, list_page, resource_version, selection
from kaos.local.apiserver.negotiation import APPLY_PATCH, Wanted, media_type, parse_body
from kaos.local.apiserver.options import DeleteOptions, WriteOptions, flag
from kaos.local.apiserver.registry import Kind
from kaos.local.apiserver.requests import Target, resolve
from kaos.local.apiserver.resources import Resources, Written
from kaos.local.apiserver.scale import get_scale
from kaos.local.apiserver.store import Record, encode
from kaos.local.apiserver.streams import status_response
from kaos.local.apiserver.tables import render_table
from kaos.local.apiserver.versions import bytes_as, load_as
from kaos.local.apiserver.watch import WatchHub, WatchOptions, WatchResponse

BODY_LIMIT = 3 * 1024 * 1024
_SHAPES = frozenset({"Table", "PartialObjectMetadata", "PartialObjectMetadataList"})
# Deleting one of these answers with the object, any other with a Status.
_TOLD_WHOLE = frozenset(
    {"persistentvolumeclaims", "persistentvolumes", "pods", "serviceaccounts", "services"}
)
_DISCOVERY = frozenset({"APIGroupDiscoveryList"})
_log = logging.getLogger(__name__)


class ResourceApp:
    """ASGI: ``/api`` and ``/apis``.

    Args:
        resources: The verbs.
        hub: Wakes watches.
        discovery: The discovery documents.
        kept: Waits until everything written so far is on disk.
    """

    def __init__(
        self,
        resources: Resources,
        hub: WatchHub,
        discovery: Discovery,
        kept: Callable[[], Awaitable[None]],
    ) -> None:
        self._resources = resources
        self._store = resources.store
        self._hub = hub
        self._discovery = discovery
        self._kept = kept

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        try:
            try:
                response = await self._answer(request)
            except StatusError as error:
                response = status_response(error)
            await self._kept()
        except Exception as error:  # noqa: BLE001 - any bug is answered, and told
            _log.exception("%s %s failed", request.method, request.url.path)
            message = f"Internal error occurred: {type(error).__name__}: {error}"
            response = status_response(StatusError(500, "InternalError", message))
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> ASGIApp:
        path = request.url.path
        parts = path.strip("/").split("/")
        if len(parts) <= (2 if parts[0] == "api" else 3):
            return self._discover(request, parts)
        target = resolve(self._resources.registry, path)
        query = request.query_params
        match request.method:
            case "GET":
                return self._read(target, query, request.headers.get("accept", ""))
            case "POST" | "PUT" | "PATCH" | "DELETE":
                return await self._write(request, target)
            case _:
                raise method_not_allowed()

    # Discovery

    def _discover(self, request: Request, parts: list[str]) -> Response:
        if request.method != "GET":
            raise method_not_allowed()
        wanted = Wanted.of(request.headers.get("accept", ""), _DISCOVERY)
        core = parts[0] == "api"
        if len(parts) == 1 and wanted.shape:
            body = self._discovery.aggregated(core=core, version=wanted.version or "v2")
            form = f"application/json;g=apidiscovery.k8s.io;v={wanted.version};as={wanted.shape}"
            return Response(body, headers={"content-type": form})
        found: bytes | None
        if len(parts) == 1:
            found = self._discovery.core_versions() if core else self._discovery.groups()
        elif core:
            found = self._discovery.resources("", parts[1])
        elif len(parts) == 2:
            found = self._discovery.group(parts[1])
        else:
            found = self._discovery.resources(parts[1], parts[2])
        if found is None:
            raise no_such_resource()
        return _json(found)

    # Reading

    def _read(self, target: Target, query: QueryParams, accept: str) -> ASGIApp:
        kind, namespace, name, subresource = target
        if kind.virtual:
            raise method_not_allowed()
        address = (kind.group, kind.version, kind.plural)
        wanted = Wanted.of(accept, _SHAPES, query.get("includeObject") or "Metadata")
        if flag(query, "watch") and not subresource:
            return WatchResponse(
                self._store,
                self._hub,
                kind,
                selection(kind, query, namespace, name),
                WatchOptions.of(query, self._store.rv),
                lambda record: _shaped(kind, record, wanted),
                lambda: self._resources.registry.find(*address) is not None,
                self._kept,
            )
        if not name:
            page = list_page(self._store, kind, selection(kind, query, namespace), query)
            return _json(_list(kind, page.records, page.metadata, wanted))
        asked = resource_version(query.get("resourceVersion", "")) or 0
        if asked > self._store.rv:
            raise too_large_resource_version(asked, self._store.rv)
        record = self._resources.record(kind, namespace, name)
        if subresource == "scale":
            return _json(encode(get_scale(kind, load_as(kind, record))))
        return _json(_shaped(kind, record, wanted))

    # Writing

    async def _write(self, request: Request, target: Target) -> Response:
        _check_method(request.method, target)
        content_type = request.headers.get("content-type", "")
        raw = await _body(request)
        if request.method == "DELETE":
            body = parse_body(raw, content_type)[0] if raw.strip() else {}
            return self._delete(target, request.query_params, body)
        body, doubles = parse_body(raw, content_type)
        options = WriteOptions.of(request.query_params, request.headers.get("user-agent", ""))
        warnings = checked_doubles(target.kind, doubles, options)
        named = bool(request.query_params.get("fieldManager"))
        return self._change(
            request.method, target, body, options, content_type, warnings, named=named
        )

    def _change(
        self,
        method: str,
        target: Target,
        body: Any,
        options: WriteOptions,
        content_type: str,
        warnings: tuple[str, ...],
        *,
        named: bool,
    ) -> Response:
        kind, namespace, name, subresource = target
        resources = self._resources
        if method == "POST" and kind.virtual:
            if not isinstance(body, dict):
                raise bad_request("the body of the request is not an object")
            return _json(encode(review(kind, body)), 201)
        if method == "POST" and not name:
            written = resources.create(kind, namespace, body, options)
        elif method == "POST":
            return self._act(target, body, options)
        elif method == "PUT":
            written = resources.update(kind, namespace, name, body, options, subresource)
        elif media_type(content_type) == APPLY_PATCH:
            if not named:
                cause = field_required("fieldManager", "is required for apply patch")
                raise invalid_options("PatchOptions", cause)
            written = resources.apply(kind, namespace, name, body, options, subresource)
        else:
            patch = media_type(content_type)
            written = resources.patch(kind, namespace, name, patch, body, options, subresource)
        return _written(written, warnings)

    def _act(self, target: Target, body: Any, options: WriteOptions) -> Response:
        """The subresources of a pod that are deeds: binding, eviction."""
        kind, namespace, name, subresource = target
        if not isinstance(body, dict):
            raise bad_request("the body of the request is not an object")
        if subresource == "eviction":
            delete = DeleteOptions.of({}, body.get("deleteOptions") or {})
            deletion.delete(self._resources, kind, namespace, name, delete)
        else:
            node = (body.get("target") or {}).get("name")
            patch = {"spec": {"nodeName": node}}
            merge = "application/merge-patch+json"
            self._resources.patch(kind, namespace, name, merge, patch, options)
        return _json(encode({"kind": "Status", "apiVersion": "v1", "status": "Success"}), 201)

    def _delete(self, target: Target, query: QueryParams, body: Any) -> Response:
        kind, namespace, name, _ = target
        if not isinstance(body, dict):
            raise bad_request("the body of the request is not an object")
        options = DeleteOptions.of(query, body)
        if not name:
            page = list_page(self._store, kind, selection(kind, query, namespace), query)
            for record in page.records:
                deletion.delete_record(self._resources, kind, record, options)
            return _json(_list(kind, page.records, page.metadata, Wanted()))
        obj, gone = deletion.delete(self._resources, kind, namespace, name, options)
        if not gone or kind.resource in _TOLD_WHOLE:
            return _json(encode(obj))
        group = {"group": kind.group} if kind.group else {}
        details = {"name": name, **group, "kind": kind.plural, "uid": obj["metadata"]["uid"]}
        status = {"metadata": {}, "status": "Success", "details": details}
        return _json(encode({"kind": "Status", "apiVersion": "v1", **status}))


def _check_method(method: str, target: Target) -> None:
    kind, namespace, name, subresource = target
    deed = subresource in {"binding", "eviction"}
    match method:
        case "POST":
            allowed = deed if name else bool(namespace) or not kind.namespaced
        case "DELETE":
            allowed = not kind.virtual and not subresource
        case _:
            allowed = bool(name) and not kind.virtual and not deed
            if subresource == "finalize":
                allowed = method == "PUT"
    if not allowed:
        raise method_not_allowed()


async def _body(request: Request) -> bytes:
    chunks = bytearray()
    async for chunk in request.stream():
        chunks += chunk
        if len(chunks) > BODY_LIMIT:
            message = f"Request entity too large: limit is {BODY_LIMIT}"
            raise StatusError(413, "RequestEntityTooLarge", message)
    return bytes(chunks)


def _shaped(kind: Kind, record: Record, wanted: Wanted) -> bytes:
    if wanted.shape == "Table":
        obj = load_as(kind, record)
        metadata = {"resourceVersion": str(record.rv)}
        return encode(render_table(kind, [obj], list_metadata=metadata, include=wanted.include))
    if wanted.shape:
        return _partial(kind, record, wanted)
    return bytes_as(kind, record)


def _partial(kind: Kind, record: Record, wanted: Wanted) -> bytes:
    version = f"meta.k8s.io/{wanted.version or 'v1'}"
    metadata = load_as(kind, record)["metadata"]
    return encode({"kind": "PartialObjectMetadata", "apiVersion": version, "metadata": metadata})


def _list(kind: Kind, records: list[Record], metadata: dict[str, Any], wanted: Wanted) -> bytes:
    if wanted.shape == "Table":
        objects = [load_as(kind, record) for record in records]
        return encode(render_table(kind, objects, list_metadata=metadata, include=wanted.include))
    if wanted.shape:
        items = [_partial(kind, record, wanted) for record in records]
        head = {
            "kind": "PartialObjectMetadataList",
            "apiVersion": f"meta.k8s.io/{wanted.version or 'v1'}",
            "metadata": metadata,
        }
        return encode(head)[:-1] + b',"items":[' + b",".join(items) + b"]}"
    return list_bytes(kind, metadata, [bytes_as(kind, record) for record in records])


def _json(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(body, status, headers, media_type="application/json")


def _written(written: Written, warnings: tuple[str, ...]) -> Response:
    response = _json(encode(written.obj), 201 if written.created else 200)
    for warning in (*warnings, *written.warnings):
        text = warning.replace("\\", "\\\\").replace('"', '\\"')
        response.headers.append("warning", f'299 - "{text}"')
    return response
