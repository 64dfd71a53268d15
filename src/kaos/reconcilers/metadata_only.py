"""A client that cannot read what is in a Secret.

Guarantees: whatever asks for Secrets through this transport (a list, a watch, a single read) gets
their metadata and no data, because the request itself says so and the API server leaves the rest
out. So no secret value enters the controller's memory, its cache or a crash dump.

Does not: take the right away. The token that may list Secrets could be used by a thief to read them
(RBAC knows no "metadata only"); see docs/decisions/0008 for why the right is there and how to do
without it. An annotation is metadata: `kubectl apply` keeps a copy of what it applied in one.
"""

from contextlib import AbstractAsyncContextManager
from dataclasses import replace

from kaos.runtime import SECRET
from kaos.runtime.transport import HttpRequest, HttpResponse, Stream, Transport

_FORM = "application/json;as={};g=meta.k8s.io;v=v1"
ONE, MANY = _FORM.format("PartialObjectMetadata"), _FORM.format("PartialObjectMetadataList")


class MetadataOnly:
    """A transport that asks for no more than the metadata of Secrets.

    Args:
        inner: what carries the requests.
    """

    def __init__(self, inner: Transport) -> None:
        self._inner = inner

    async def request(self, request: HttpRequest) -> HttpResponse:
        """One exchange."""
        return await self._inner.request(narrowed(request))

    def stream(self, request: HttpRequest) -> AbstractAsyncContextManager[Stream]:
        """A streamed answer."""
        return self._inner.stream(narrowed(request))

    async def close(self) -> None:
        """Close all connections."""
        await self._inner.close()


def narrowed(request: HttpRequest) -> HttpRequest:
    """The request, for metadata alone if it is about Secrets."""
    parts = request.path.strip("/").split("/")
    if request.method != "GET" or parts[:2] != ["api", "v1"]:
        return request
    rest = parts[4:] if parts[2:3] == ["namespaces"] and len(parts) > 4 else parts[2:]
    if rest[:1] != [SECRET.plural]:
        return request
    collection = len(rest) == 1 and "watch" not in request.params
    return replace(request, accept=MANY if collection else ONE)
