"""Which kinds the API server serves, asked only for kinds the built-in table does not know.

Guarantees: at most one look-up at a time; an answer is kept; a kind that is missing is looked for
again at most every half second, so a CRD that was installed meanwhile is found.
The aggregated form (one request a root, Kubernetes ≥ 1.27) is tried first, then one per group.
"""

import asyncio
from typing import Any

import msgspec

from kaos.runtime.errors import UnknownKind, from_status
from kaos.runtime.resources import BUILT_IN, ResourceType, split_api_version
from kaos.runtime.transport import JSON, HttpRequest, Transport, send

_AGGREGATED = f"{JSON};v=v2;g=apidiscovery.k8s.io;as=APIGroupDiscoveryList,{JSON}"
_ASK_AGAIN_AFTER = 0.5


class Discovery:
    """Finds the ResourceType of an apiVersion and kind."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._known: dict[tuple[str, str], ResourceType] = {}
        self._asked = float("-inf")
        self._lock = asyncio.Lock()

    async def find(self, api_version: str, kind: str) -> ResourceType:
        """The type; raises UnknownKind when it is not served."""
        key = (api_version, kind)
        found = BUILT_IN.get(key) or self._known.get(key)
        if found is None:
            await self._refresh(key)
            found = self._known.get(key)
        if found is None:
            raise UnknownKind(f"{kind} in {api_version}")
        return found

    async def _refresh(self, wanted: tuple[str, str]) -> None:
        async with self._lock:
            now = asyncio.get_running_loop().time()
            # Others that waited for the lock profit from the answer that was just fetched.
            if wanted in self._known or now - self._asked < _ASK_AGAIN_AFTER:
                return
            found: dict[tuple[str, str], ResourceType] = {}
            for root in ("/api", "/apis"):
                answer = await self._get(root, _AGGREGATED)
                if "items" in answer:
                    _read_aggregated(answer, found)
                else:
                    await self._read_plain(root, answer, found)
            self._known = found
            self._asked = now

    async def _read_plain(
        self, root: str, answer: dict[str, Any], found: dict[tuple[str, str], ResourceType]
    ) -> None:
        paths = [f"{root}/{v}" for v in answer.get("versions") or ()]
        for group in answer.get("groups") or ():
            paths += [f"{root}/{v['groupVersion']}" for v in group.get("versions") or ()]
        for path in paths:
            listed = await self._get(path, JSON)
            group, version = split_api_version(listed.get("groupVersion", ""))
            for r in listed.get("resources") or ():
                if "/" not in r["name"]:
                    resource = ResourceType(group, version, r["kind"], r["name"], r["namespaced"])
                    found[resource.api_version, resource.kind] = resource

    async def _get(self, path: str, accept: str) -> dict[str, Any]:
        request = HttpRequest("GET", path, accept=accept, idempotent=True)
        answer = await send(self._transport, request)
        if answer.status != 200:
            raise from_status(answer.status, answer.body, request=str(request))
        return msgspec.json.decode(answer.body, type=dict[str, Any])


def _read_aggregated(answer: dict[str, Any], found: dict[tuple[str, str], ResourceType]) -> None:
    for item in answer["items"] or ():
        group = (item.get("metadata") or {}).get("name", "")
        for version in item.get("versions") or ():
            for r in version.get("resources") or ():
                kind = (r.get("responseKind") or {}).get("kind", "")
                resource = ResourceType(
                    group, version["version"], kind, r["resource"], r.get("scope") != "Cluster"
                )
                found[resource.api_version, kind] = resource
