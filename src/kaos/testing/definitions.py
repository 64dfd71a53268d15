"""Definitions of kinds for the length of a test.

Guarantees: within the block the kind is served; after it the definition is gone, with its objects,
whatever finalizers a stopped manager left on them. A definition that no test made is neither
changed nor removed: on a cluster of somebody's that would take all their objects along.
Which failure taught it: an API server says Established a moment before it serves the kind, and its
discovery tells of it another moment later, so the first create of a test failed now and then.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from kaos.runtime import (
    CUSTOM_RESOURCE_DEFINITION,
    ApiError,
    Client,
    CustomResource,
    NotFound,
    ResourceType,
    UnknownKind,
    crd,
)

_LABEL = "kaos.tools/test"
_PAUSE = 0.05
_WITHIN = 30.0


@asynccontextmanager
async def defined(
    client: Client, kind: type[CustomResource] | Mapping[str, Any]
) -> AsyncIterator[None]:
    """Define a kind for the length of the block.

    Args:
        client: A client that may.
        kind: The model, or the whole manifest.

    Raises:
        RuntimeError: When the kind is defined already, and not by a test.
    """
    body = dict(kind) if isinstance(kind, Mapping) else crd(kind)
    name = body["metadata"]["name"]
    body["metadata"] = {**body["metadata"], "labels": {_LABEL: "true"}}
    async with asyncio.timeout(_WITHIN):
        await _free(client, name)
        await client.create(body)
        await _served(client, body)
    try:
        yield
    finally:
        async with asyncio.timeout(_WITHIN):
            await undefine(client, name)


async def undefine(client: Client, name: str) -> None:
    """Remove a definition and its objects, and wait until it is gone.

    Args:
        client: A client that may.
        name: The definition's name, e.g. ``websites.example.com``.
    """
    with contextlib.suppress(NotFound):
        await client.delete(CUSTOM_RESOURCE_DEFINITION, name)
        while True:
            found = await client.get(CUSTOM_RESOURCE_DEFINITION, name)
            kind = _type(found.to_dict())
            with contextlib.suppress(ApiError):  # the objects may be gone before the definition
                for obj in await client.list(kind):
                    if obj.metadata.finalizers:
                        free = {"metadata": {"finalizers": None}}
                        await client.patch(kind, obj.name, obj.namespace, free)
            await asyncio.sleep(_PAUSE)


async def _free(client: Client, name: str) -> None:
    """See that nobody's definition has this name; one of an earlier test is removed."""
    try:
        found = await client.get(CUSTOM_RESOURCE_DEFINITION, name)
    except NotFound:
        return
    if found.metadata.labels.get(_LABEL) != "true":
        raise RuntimeError(
            f"{name} is defined on this cluster already, and not by a test: use another cluster"
        )
    await undefine(client, name)


async def _served(client: Client, body: Mapping[str, Any]) -> None:
    kind = _type(body)
    while True:
        with contextlib.suppress(NotFound, UnknownKind):
            await client.discovery.find(kind.api_version, kind.kind)
            await client.list(kind, page_size=1)
            return
        await asyncio.sleep(_PAUSE)


def _type(body: Mapping[str, Any]) -> ResourceType:
    spec = body["spec"]
    names = spec["names"]
    version = next(v["name"] for v in spec["versions"] if v["served"])
    namespaced = spec["scope"] == "Namespaced"
    return ResourceType(spec["group"], version, names["kind"], names["plural"], namespaced)
