"""The webhook server of a manager: its certificate kept fresh, its calls answered over TLS.

Guarantees: it serves on every replica, leader or not, from before the controllers work until they
have ended; a certificate is loaded into the running server, without a restart and without a lost
call; configurations that somebody changed or deleted are put right within a minute; what cannot be
done now (no rights, no server, a certificate that TLS refuses) is logged, tried again, and told by
/readyz until there is a certificate to serve.
Does not: know who calls. The API server presents no credentials by default: let a NetworkPolicy
admit it alone, and let handlers have no side effects.
Which failures taught it: certificates that expired a year after the installation, and operators
that had to be restarted to read the new one; here nothing but this process is needed for either. A
Secret with another certificate's key ended the operator, at each start anew. Over HTTP/2 every
thousandth call on a connection, and those beside it, got no answer: hypercorn says goodbye to a
connection after a thousand requests and forgets the ones it has.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import anyio
import structlog
from hypercorn.asyncio import serve
from hypercorn.config import Config
from prometheus_client import Counter, Gauge, Histogram
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from kaos.runtime.client import Client
from kaos.runtime.errors import NotFound
from kaos.runtime.metrics import Metrics
from kaos.runtime.resources import SECRET, Resource
from kaos.runtime.webhooks.certificates import State, load, make, next_state, state_of, utc_now
from kaos.runtime.webhooks.hooks import Endpoint, Hook, Hooks, Operation
from kaos.runtime.webhooks.review import Handler, answer, chain
from kaos.runtime.writes import retry_on_conflict

_CHECK_EVERY = 60.0
_TRY_AGAIN = 5.0
_KEPT_IDLE = 120.0  # an API server uses a connection again for up to 90 s
_LONGEST = 30.0  # no API server waits longer
_LARGEST = 8 << 20  # two objects of the largest size etcd takes, and the envelope
_log = structlog.get_logger("kaos.runtime")


class Webhooks:
    """Admission webhooks of a manager; see `Manager.beside`.

    Args:
        name: The name of the webhook configurations, e.g. that of the operator.
        endpoint: Where they are served and how the API server reaches them.
        register: Whether to apply the configurations; else only the Secret is kept.
    """

    name = "webhooks"

    def __init__(self, name: str, endpoint: Endpoint, *, register: bool = True) -> None:
        self._name = name
        self._endpoint = endpoint
        self._register = register
        self._hooks = Hooks()
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.minimum_version = ssl.TLSVersion.TLSv1_2
        self._tls.set_alpn_protocols(["http/1.1"])
        self._served: State | None = None
        self._why = "no certificate yet"
        self.port = endpoint.port

    def validate(
        self,
        resource: Resource,
        *,
        operations: Sequence[Operation] = ("CREATE", "UPDATE"),
        **options: Any,
    ) -> Callable[[Handler], Handler]:
        """Decorate an async function that raises `Denied` to refuse.

        Args:
            resource: The kind.
            operations: What it is asked about.
            options: Other fields of the webhook, e.g. ``failurePolicy="Ignore"``.
        """
        return self._hooks.add(resource, defaults=False, operations=operations, options=options)

    def default(
        self,
        resource: Resource,
        *,
        operations: Sequence[Operation] = ("CREATE", "UPDATE"),
        **options: Any,
    ) -> Callable[[Handler], Handler]:
        """Decorate an async function that changes ``admission.object``; see `validate`."""
        return self._hooks.add(resource, defaults=True, operations=operations, options=options)

    def not_ready(self) -> str:
        """Why there is nothing to serve yet; "" when there is."""
        return "" if self._served is not None else self._why

    async def run(self, client: Client, metrics: Metrics, stop: anyio.Event) -> None:
        """Serve until `stop`; raises OSError when the address is taken."""
        async with anyio.create_task_group() as group:
            ready = anyio.Event()
            group.start_soon(self._keep, client, ready)
            group.start_soon(_when_set, stop, ready)
            await ready.wait()
            if not stop.is_set():
                await self._serve(application(self._hooks, metrics), stop)
            group.cancel_scope.cancel()

    async def refresh(self, client: Client) -> None:
        """One look at the certificate: made, replaced or taken over, and told to the API server."""
        # Another replica may be faster: then take what it wrote.
        state = await retry_on_conflict(lambda: self._agree(client))
        known = self._served
        if self._register:
            configurations = self._hooks.configurations(self._name, self._endpoint, state.bundle)
            for body in configurations:
                await client.apply(body)
        if known is None or known.current != state.current:
            load(self._tls, state.current)
            expires = state.current.parsed.not_valid_after_utc.isoformat()
            _log.info("webhook.certificate", expires=expires)
        self._served = state

    async def _agree(self, client: Client) -> State:
        name = self._endpoint.secret or f"{self._name}-webhooks"
        namespace = self._endpoint.secret_namespace
        try:
            secret = await client.get(SECRET, name, namespace)
        except NotFound:
            secret = None
        found = state_of(secret) if secret is not None else None
        known, names, now = found, self._endpoint.names, utc_now()
        if found is None and self._served is not None:
            # Deleted or spoilt while replicas serve it: a new one, but in the usual order.
            known = replace(self._served, next=self._served.next or make(names, now))
        wanted = next_state(known, names, now)
        if wanted == found:
            return wanted
        data = wanted.data()
        if secret is None:
            body = SECRET.body(name, namespace, type="kubernetes.io/tls", data=data)
            await client.create(body)
        else:
            await client.update({**secret.to_dict(), "data": data})
        return wanted

    async def _keep(self, client: Client, ready: anyio.Event) -> None:
        while True:
            try:
                await self.refresh(client)
            except Exception as error:  # noqa: BLE001 - a Secret may hold anything
                self._why = str(error) or type(error).__name__
                _log.warning("webhook.certificate_failed", error=self._why)
                await anyio.sleep(_TRY_AGAIN)
                continue
            ready.set()
            await anyio.sleep(_CHECK_EVERY)

    async def _serve(self, app: Starlette, stop: anyio.Event) -> None:
        host = self._endpoint.host
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, self._endpoint.port), family=family)
        self.port = listener.getsockname()[1]
        config = _Tls(self._tls)
        config.bind = [f"fd://{listener.detach()}"]
        config.graceful_timeout = 1.0
        config.keep_alive_timeout = _KEPT_IDLE
        config.include_server_header = False
        config.accesslog = None
        config.errorlog = None
        await serve(app, config, shutdown_trigger=stop.wait)  # type: ignore[arg-type]


class _Tls(Config):
    """Hypercorn's settings with a TLS context of ours, which can be given another certificate."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__()
        self._context = context

    @property
    def ssl_enabled(self) -> bool:
        return True

    def create_ssl_context(self) -> ssl.SSLContext:
        return self._context


async def _when_set(event: anyio.Event, then: anyio.Event) -> None:
    await event.wait()
    then.set()


def application(hooks: Hooks, metrics: Metrics) -> Starlette:
    """The webhooks as an ASGI application, with controller-runtime's metrics."""
    labels = ["webhook"]
    prefix, registry = "controller_runtime_webhook", metrics.registry
    latency = Histogram(f"{prefix}_latency_seconds", "Time to answer.", labels, registry=registry)
    in_flight = Gauge(f"{prefix}_requests_in_flight", "Open calls.", labels, registry=registry)
    total = Counter(f"{prefix}_requests", "Calls.", [*labels, "code"], registry=registry)
    panics = Counter(f"{prefix}_panics", "Handlers that failed.", registry=registry)

    def route(hook: Hook) -> Route:
        handler = chain(hook.handlers)
        path = hook.path
        for code in ("200", "400", "413"):
            total.labels(path, code)

        async def endpoint(request: HttpRequest) -> Response:
            with in_flight.labels(path).track_inprogress(), latency.labels(path).time():
                response = await respond(request)
            total.labels(path, str(response.status_code)).inc()
            return response

        async def respond(request: HttpRequest) -> Response:
            body = bytearray()
            async for chunk in request.stream():
                body += chunk
                if len(body) > _LARGEST:
                    return PlainTextResponse("too large", 413)
            try:
                async with asyncio.timeout(_LONGEST):
                    told = await answer(
                        bytes(body), handler, defaults=hook.defaults, failed=panics.inc
                    )
            except TimeoutError:
                return PlainTextResponse("the handler took too long", 504)
            except ValueError as error:
                return PlainTextResponse(str(error), 400)
            return Response(told, media_type="application/json")

        return Route(path, endpoint, methods=["POST"])

    return Starlette(routes=[route(hook) for hook in hooks])
