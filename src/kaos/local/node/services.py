"""Services: a local TCP relay for each port, the service map, and EndpointSlices.

Guarantees: a Service's port answers on one address of 127.0.0.1 for as long as the Service exists,
and on the same one after a restart of the cluster process if it is still free; connections go to
ready pods in turn, and past one that refuses; the service map (a JSON file) appears whole or not at
all.

Where the addresses are remembered: in the service map itself, not in an annotation of the Service,
so that the node writes nothing into objects that have an owner.

Does not: offer a Service on its cluster IP, which is a number only.
"""

import contextlib
import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import structlog

from kaos.local.node.endpoints import Endpoint, endpoints, matches, slices, tcp_ports
from kaos.local.node.ports import PortPool
from kaos.local.node.relay import Relay
from kaos.runtime import (
    ENDPOINT_SLICE,
    POD,
    SERVICE,
    Cache,
    Client,
    NotFound,
    Object,
    Request,
    Result,
    owner_reference,
)

log = structlog.get_logger("kaos.node")

FIELD_MANAGER = "kaos-node"


class NoBackend(LookupError):  # noqa: N818 - what it says, not an accident
    """A Service cannot take a request; the message says what is missing."""


class Backend:
    """One port of a Service: who is behind it now, and whose turn it is."""

    def __init__(self, service: Request, port: int) -> None:
        self.service = service
        self.port = port
        self.relay: Relay | None = None
        self.pods = 0
        self._ready: Sequence[int] = ()
        self._turn = itertools.count()

    def update(self, found: Iterable[Endpoint]) -> None:
        """Take over the present endpoints."""
        listed = list(found)
        self.pods = len(listed)
        self._ready = [e.ports[self.port] for e in listed if e.ready and self.port in e.ports]

    def choose(self) -> list[int]:
        """Host ports of the ready pods; a different one is first each time."""
        if not self._ready:
            return []
        first = next(self._turn) % len(self._ready)
        return [*self._ready[first:], *self._ready[:first]]


class ServiceMap:
    """The file that tells processes where Services are."""

    def __init__(self, path: Path, domain: str) -> None:
        self.path = path
        self._domain = domain
        self._entries: dict[str, str] = {}
        with contextlib.suppress(OSError, ValueError, AttributeError):
            known = json.loads(path.read_text(encoding="utf-8"))
            self._entries = {str(name): str(address) for name, address in known.items()}

    def name(self, service: Request, port: int) -> str:
        """The entry of a Service's port."""
        return f"{service.name}.{service.namespace}.svc.{self._domain}:{port}"

    def port_of(self, name: str) -> int | None:
        """The local port that an entry had last."""
        _, _, port = self._entries.get(name, "").rpartition(":")
        return int(port) if port.isdigit() else None

    def write(self, entries: dict[str, str]) -> None:
        """Replace the file's content, if it differs."""
        if entries == self._entries and self.path.exists():
            return
        self._entries = dict(entries)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        whole = self.path.with_suffix(".new")
        whole.write_text(json.dumps(entries, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        whole.replace(self.path)


class Services:
    """Reconciler of Services, and owner of their relays."""

    def __init__(
        self, client: Client, cache: Cache, pool: PortPool, service_map: ServiceMap
    ) -> None:
        self._client = client
        self._cache = cache
        self._pool = pool
        self._map = service_map
        self._backends: dict[tuple[Request, int], Backend] = {}

    def backend(self, namespace: str, name: str, port: int) -> Backend:
        """The backend for a Service's port.

        Raises:
            NoBackend: There is no such Service, port or ready pod.
        """
        service = Request(namespace, name)
        if (found := self._backends.get((service, port))) is not None:
            return found
        known = sorted(p for key, p in self._backends if key == service)
        if known:
            shown = ", ".join(map(str, known))
            raise NoBackend(f"Service {service} has no port {port}, only {shown}")
        raise NoBackend(f"there is no Service {service}")

    def selecting(self, pod: Object) -> list[Request]:
        """The Services that select a pod."""
        return [
            service.key
            for service in self._cache.list(SERVICE, pod.namespace)
            if matches(service.spec.get("selector"), pod.metadata.labels)
        ]

    async def reconcile(self, request: Request, /) -> Result | None:
        """Bring relays, map and slices in line with a Service and its pods."""
        service = self._cache.get(SERVICE, request.name, request.namespace)
        if service is None or service.deleting:
            await self._drop(request, keep=())
            self._write_map()
            return None
        body = service.to_dict()
        selector = body["spec"].get("selector")
        wanted = [int(port["port"]) for port in tcp_ports(body)] if selector else []
        pods = [
            pod.to_dict()
            for pod in self._cache.list(POD, request.namespace)
            if matches(selector, pod.metadata.labels)
        ]
        found = endpoints(body, pods)
        await self._drop(request, keep=wanted)
        for port in wanted:
            (await self._backend(request, port)).update(found)
        self._write_map()
        await self._write_slices(service, slices(body, found))
        return None

    async def close(self) -> None:
        """Stop all relays; the map stays, so that the addresses can be had again."""
        for backend in self._backends.values():
            if backend.relay is not None:
                await backend.relay.close()
        self._backends.clear()

    async def _backend(self, service: Request, port: int) -> Backend:
        if (known := self._backends.get((service, port))) is not None:
            return known
        backend = Backend(service, port)
        wanted = self._map.port_of(self._map.name(service, port))
        while True:
            relay = Relay(self._pool.take(wanted), backend.choose)
            try:
                await relay.start()
                break
            except OSError:
                wanted = None  # taken between the look and the call: the next one then
        backend.relay = relay
        self._backends[service, port] = backend
        return backend

    async def _drop(self, service: Request, *, keep: Iterable[int]) -> None:
        for key in [k for k in self._backends if k[0] == service and k[1] not in set(keep)]:
            backend = self._backends.pop(key)
            if backend.relay is not None:
                await backend.relay.close()
                self._pool.release([backend.relay.port])

    def _write_map(self) -> None:
        self._map.write(
            {
                self._map.name(service, port): f"127.0.0.1:{backend.relay.port}"
                for (service, port), backend in self._backends.items()
                if backend.relay is not None
            }
        )

    async def _write_slices(self, service: Object, wanted: list[dict[str, Any]]) -> None:
        known = {found.name: found for found in self._cache.owned_by(ENDPOINT_SLICE, service)}
        for body in wanted:
            body["metadata"]["ownerReferences"] = [owner_reference(service)]
            old = known.pop(body["metadata"]["name"], None)
            if old is None or any(old.get(f) != body[f] for f in ("endpoints", "ports")):
                with contextlib.suppress(NotFound):  # the namespace is going away
                    await self._client.apply(body, field_manager=FIELD_MANAGER)
        for name in known:
            with contextlib.suppress(NotFound):
                await self._client.delete(ENDPOINT_SLICE, name, service.namespace)
