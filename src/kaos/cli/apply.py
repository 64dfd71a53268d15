"""Apply manifests: server-side apply, in file order, one after the other.

A field that the kind does not have is refused, as kubectl does: a misspelled one would be dropped.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

from kaos.cli.client_errors import explain
from kaos.cli.errors import CliError
from kaos.cli.kubectl_apply import remembered, take_over
from kaos.cli.manifests import Manifest
from kaos.runtime import Client, Conflict, NotFound, Object, RuntimeFailure, UnknownKind

CLUSTER_SCOPED = ("Namespace", "CustomResourceDefinition", "GatewayClass")
_PATIENCE = 10  # attempts; half a second apart for a CRD, which is served a moment later


async def apply_all(client: Client, manifests: Iterable[Manifest]) -> list[Object]:
    """Apply each manifest.

    Raises:
        CliError: the server refused one; those before it are applied.
    """
    return [await _apply(client, manifest) for manifest in manifests]


async def _apply(client: Client, manifest: Manifest) -> Object:
    what = f"{manifest.where()}: {manifest.kind}/{manifest.name}"
    for attempt in range(_PATIENCE):
        try:
            body = remembered(placed(manifest))
            await take_over(client, body)
            return await client.apply(body, field_validation="Strict")
        except Conflict as error:  # somebody wrote it in the same moment
            if attempt + 1 == _PATIENCE:
                raise explain(error, what) from error
        except UnknownKind as error:
            if attempt + 1 == _PATIENCE or not manifest.api_version.partition("/")[2]:
                raise explain(error, what) from error
            await asyncio.sleep(0.5)
        except NotFound as error:
            if manifest.namespace and "namespaces" in str(error):
                raise CliError(
                    f"{what}: there is no namespace {manifest.namespace}: put a Namespace of that "
                    "name before it, or leave metadata.namespace out"
                ) from error
            raise explain(error, what) from error
        except RuntimeFailure as error:
            raise explain(error, what) from error
    raise AssertionError


def placed(manifest: Manifest) -> dict[str, Any]:
    """The object as it is sent: in namespace default unless it says otherwise, without a status."""
    body = {key: value for key, value in manifest.body.items() if key != "status"}
    metadata = {
        key: value
        for key, value in body["metadata"].items()
        # What `kubectl get -o yaml` adds and the server refuses or must not believe.
        if key not in ("managedFields", "resourceVersion", "uid", "creationTimestamp", "generation")
    }
    if not manifest.namespace and manifest.kind not in CLUSTER_SCOPED:
        metadata["namespace"] = "default"
    return body | {"metadata": metadata}
