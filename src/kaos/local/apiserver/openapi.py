"""OpenAPI over HTTP: the v3 index, a document per group version, and v2.

Guarantees: documents follow the registry; an address in the index carries the hash of
its document, so that kubectl may keep it for a year and still sees a new definition at
once; only what changed is computed again. v2 exists in JSON and in protobuf, because
kubectl still checks manifests of kind ``List`` against the protobuf form.
"""

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from kaos.local.apiserver.openapi_documents import (
    GVK,
    definitions_v2,
    document_v3,
    group_path,
)
from kaos.local.apiserver.registry import Kind, Registry
from kaos.local.apiserver.store import encode

JSON: Final = "application/json"
V2_PROTOBUF: Final = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
# The name that clients ask by; Go's parser refuses the "@" in an answer's Content-Type.
_V2_PROTOBUF_ASKED: Final = V2_PROTOBUF.replace(".v1.0", "@v1.0")
_LONG: Final = timedelta(days=365)


class OpenAPI:
    """The documents of a registry, encoded and kept until it changes."""

    def __init__(self, registry: Registry, *, version: str) -> None:
        self._registry = registry
        self._version = version
        self._generation = -1
        self._documents: dict[str, tuple[list[Kind], bytes, str]] = {}
        self._v2: dict[str, bytes] = {}

    def _refresh(self) -> None:
        if self._generation == self._registry.generation:
            return
        self._generation = self._registry.generation
        self._v2.clear()
        groups: dict[str, list[Kind]] = {}
        for kind in self._registry.kinds():
            groups.setdefault(group_path(kind), []).append(kind)
        old, self._documents = self._documents, {}
        for path, kinds in groups.items():
            known = old.get(path)
            self._documents[path] = known if known and known[0] == kinds else self._build(kinds)

    def _build(self, kinds: list[Kind]) -> tuple[list[Kind], bytes, str]:
        body = encode(document_v3(kinds, self._version))
        return kinds, body, _hash(body)

    def index(self) -> bytes:
        """The addresses of all documents."""
        self._refresh()
        addresses = {
            path: {"serverRelativeURL": _address(path, digest)}
            for path, (_, _, digest) in self._documents.items()
        }
        return encode({"paths": addresses})

    def document(self, path: str) -> tuple[bytes, str] | None:
        """The document at a path of the index, and its hash."""
        self._refresh()
        found = self._documents.get(path)
        return found[1:] if found else None

    def v2(self, media: str) -> bytes:
        """The v2 document: that the kinds exist, not what is in them."""
        self._refresh()
        if media not in self._v2:
            make = _v2_protobuf if media == V2_PROTOBUF else _v2_json
            self._v2[media] = make(self._registry.kinds(), self._version)
        return self._v2[media]


def openapi_routes(registry: Registry, *, version: str) -> list[Route]:
    """Routes for ``/openapi/v2`` and ``/openapi/v3``."""
    documents = OpenAPI(registry, version=version)

    async def index(request: Request) -> Response:
        body = documents.index()
        return _answer(request, body, _hash(body), JSON)

    async def document(request: Request) -> Response:
        path = request.path_params["path"]
        found = documents.document(path)
        if found is None:
            return Response("404 page not found\n", 404, media_type="text/plain")
        body, digest = found
        asked = request.query_params.get("hash")
        if asked is not None and asked != digest:
            return RedirectResponse(_address(path, digest), 301)
        return _answer(request, body, digest, JSON, for_ever=asked is not None)

    async def v2(request: Request) -> Response:
        accepted = request.headers.get("accept", "")
        protobuf = V2_PROTOBUF in accepted or _V2_PROTOBUF_ASKED in accepted
        media = V2_PROTOBUF if protobuf else JSON
        body = documents.v2(media)
        return _answer(request, body, _hash(body), media)

    return [
        Route("/openapi/v3", index),
        Route("/openapi/v3/{path:path}", document),
        Route("/openapi/v2", v2),
    ]


def _answer(
    request: Request, body: bytes, digest: str, media: str, *, for_ever: bool = False
) -> Response:
    headers = {"ETag": f'"{digest}"', "Vary": "Accept", "Cache-Control": "no-cache, private"}
    if for_ever:
        headers["Cache-Control"] = "public, immutable"
        headers["Expires"] = format_datetime(datetime.now(UTC) + _LONG, usegmt=True)
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type=media)


def _address(path: str, digest: str) -> str:
    return f"/openapi/v3/{path}?hash={digest}"


def _hash(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest().upper()


def _v2_json(kinds: Iterable[Kind], version: str) -> bytes:
    definitions = {
        name: {"description": description, GVK: [gvk]}
        for name, description, gvk in definitions_v2(kinds)
    }
    info = {"title": "Kubernetes", "version": f"v{version}"}
    return encode({"swagger": "2.0", "info": info, "paths": {}, "definitions": definitions})


# The same as a protobuf message (openapi.v2.Document of the gnostic project), written by
# hand: every field used is a string or a message, which are both "length, then bytes".
_SWAGGER, _INFO, _DEFINITIONS = 1, 2, 9
_ITEM = 1
_NAME, _VALUE = 1, 2
_DESCRIPTION, _EXTENSION = 4, 31
_YAML = 2


def _v2_protobuf(kinds: Iterable[Kind], version: str) -> bytes:
    definitions = b"".join(
        _field(_ITEM, _field(_NAME, name) + _field(_VALUE, _v2_schema(description, gvk)))
        for name, description, gvk in definitions_v2(kinds)
    )
    info = _field(_NAME, "Kubernetes") + _field(_VALUE, f"v{version}")
    return _field(_SWAGGER, "2.0") + _field(_INFO, info) + _field(_DEFINITIONS, definitions)


def _v2_schema(description: str, gvk: dict[str, str]) -> bytes:
    value = _field(_YAML, encode([gvk]))  # JSON is YAML
    extension = _field(_NAME, GVK) + _field(_VALUE, value)
    return _field(_DESCRIPTION, description) + _field(_EXTENSION, extension)


def _field(number: int, value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
