"""The gateway of the embedded cluster: an HTTP reverse proxy on loopback.

Guarantees: requests and answers stream both ways as they come, nothing is gathered (an answer of a
model reaches the client token by token); when a client goes away the request to the pod ends too;
a request without an answer of its own gets one line of JSON that names what is missing: 404 no
route, 502 the pod broke off, 503 nobody behind the Service, 504 the route's time is over.

Does not: WebSocket (501), TLS, or any limit of its own on size and time: those are the route's and
the agent's. There is no time limit unless the route has one; a model may think for minutes.
"""

import asyncio
import contextlib
import random
import socket
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp
import structlog
from aiohttp import hdrs, web
from aiohttp.http import SERVER_SOFTWARE
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from kaos.local.node.routes import BackendRef, HeaderChange, RouteTable, Rule
from kaos.local.node.services import Backend, NoBackend

log = structlog.get_logger("kaos.node")

FindBackend = Callable[[str, str, int], Backend]
"""(namespace, service, port) → backend; raises NoBackend."""

_CONNECT_SECONDS = 5.0
_CLOSE_SECONDS = 1.0
# RFC 9110 §7.6.1: these belong to one connection and are never passed on.
_HOP_BY_HOP = frozenset(
    name.lower()
    for name in (
        hdrs.CONNECTION, hdrs.KEEP_ALIVE, hdrs.PROXY_AUTHENTICATE, hdrs.PROXY_AUTHORIZATION,
        hdrs.TE, hdrs.TRAILER, hdrs.TRANSFER_ENCODING, hdrs.UPGRADE, "Proxy-Connection",
    )
)  # fmt: skip


class PortTaken(OSError):  # noqa: N818
    """The gateway's port is in use; the message says what to do."""


class Gateway:
    """The reverse proxy."""

    def __init__(self, find_backend: FindBackend) -> None:
        self.table = RouteTable()
        self.port = 0
        self._find_backend = find_backend
        self._runner: web.AppRunner | None = None
        self._client: aiohttp.ClientSession | None = None

    async def start(self, port: int) -> None:
        """Listen on 127.0.0.1 and, where the machine has it, on [::1].

        Args:
            port: The port; 0 for any.

        Raises:
            PortTaken: Another program has it.
        """
        app = web.Application()
        app.on_response_prepare.append(_unsigned)
        app.router.add_route("*", "/{path:.*}", self._handle)
        # The handler ends with its client's connection, and the request to the pod with it.
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
        await self._runner.setup()
        self._client = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=(hdrs.USER_AGENT, hdrs.ACCEPT_ENCODING, hdrs.CONTENT_TYPE),
            trust_env=False,
        )
        sockets = _listen(port)
        self.port = sockets[0].getsockname()[1]
        for listening in sockets:
            await web.SockSite(self._runner, listening).start()

    async def close(self) -> None:
        """Stop listening and end what is under way."""
        if self._runner is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await self._runner.cleanup()
        if self._client is not None:
            await self._client.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        host = request.host.rpartition(":")[0] if _has_port(request.host) else request.host
        path = request.raw_path.partition("?")[0]
        rule = self.table.find(host, path, request.method, request.headers)
        if rule is None:
            return self._index() if path == "/" else self._no_route(path)
        if hdrs.UPGRADE in request.headers:
            return _error(501, "upgrade_unsupported", "this gateway does not pass on WebSockets")
        try:
            backend = self._backend(rule)
        except NoBackend as error:
            return _error(503, "no_backend", f"route {_name(rule)}: {error}")
        timeout = asyncio.timeout(rule.timeout)
        try:
            async with timeout:
                return await self._forward(request, rule, backend)
        except TimeoutError:
            if not timeout.expired():
                raise
            # `_forward` has cut the connection off if the answer was already under way.
            text = f"route {_name(rule)}: no complete answer within {rule.timeout:g}s"
            return _error(504, "timeout", text)

    def _backend(self, rule: Rule) -> Backend:
        if not rule.backends:
            raise NoBackend("it has no backendRefs")
        chosen = random.choices(  # noqa: S311 - a share of the load, not a secret
            rule.backends, weights=[max(0, ref.weight) for ref in rule.backends] if any(
                ref.weight > 0 for ref in rule.backends
            ) else None,
        )[0]  # fmt: skip
        return self._find(rule, chosen)

    def _find(self, rule: Rule, ref: BackendRef) -> Backend:
        if ref.namespace != rule.route[0]:
            text = (
                f"Service {ref.namespace}/{ref.name} is in another namespace, which nobody allows"
            )
            raise NoBackend(text)
        return self._find_backend(ref.namespace, ref.name, ref.port)

    async def _forward(
        self, request: web.Request, rule: Rule, backend: Backend
    ) -> web.StreamResponse:
        assert self._client is not None  # noqa: S101 - started
        path, query = request.raw_path.partition("?")[::2]
        target = rule.rewritten(path) + (f"?{query}" if query else "")
        headers = _request_headers(request, rule)
        ports = backend.choose()
        if not ports:
            return _error(503, "no_endpoints", _nobody(backend))
        has_body = request.can_read_body
        for port in ports:
            try:
                answer = await self._client.request(
                    request.method,
                    URL(f"http://127.0.0.1:{port}{target}", encoded=True),
                    headers=headers,
                    data=request.content if has_body else None,
                    allow_redirects=False,
                )
            except aiohttp.ClientConnectorError:
                continue  # nothing was sent yet: the next pod may have it
            except (aiohttp.ClientError, OSError) as error:
                text = f"Service {backend.service}:{backend.port} broke off: {_words(error)}"
                return _error(502, "bad_gateway", text)
            async with answer:
                return await _pass_on(request, answer, rule)
        text = f"Service {backend.service}:{backend.port}: no ready pod accepts connections"
        return _error(503, "connection_refused", text)

    def _index(self) -> web.Response:
        listing = self.table.listing()
        lines = ["KAOS gateway (embedded cluster)", ""]
        width = max((len(path) for path, _ in listing), default=0)
        lines += [f"  {path:<{width}}  ->  {backend}" for path, backend in listing]
        if not listing:
            lines.append("  no routes yet: apply an Agent, or look at `kaos status`")
        return web.Response(text="\n".join(lines) + "\n")

    def _no_route(self, path: str) -> web.Response:
        paths = sorted({path for path, _ in self.table.listing()})
        shown = ", ".join(paths) or "none yet"
        return _error(404, "route_not_found", f"no HTTPRoute matches {path}; there are: {shown}")


async def _unsigned(_request: web.Request, response: web.StreamResponse) -> None:
    # A pod's own `Server` header is passed on; whose library the gateway is built on is not told.
    if response.headers.get(hdrs.SERVER) == SERVER_SOFTWARE:
        del response.headers[hdrs.SERVER]


async def _pass_on(
    request: web.Request, answer: aiohttp.ClientResponse, rule: Rule
) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, reason=answer.reason)
    response.headers.extend(_end_to_end(answer.headers))
    _change(response.headers, rule.response_headers)
    await response.prepare(request)
    try:
        async for chunk in answer.content.iter_any():
            await response.write(chunk)
    except (aiohttp.ClientError, OSError, asyncio.CancelledError) as error:
        # Too late for a status: a connection that is cut says that the answer is not complete.
        if request.transport is not None:
            request.transport.abort()
        if isinstance(error, asyncio.CancelledError):
            raise
        log.info("pod broke off an answer", route=_name(rule), error=_words(error))
        return response
    await response.write_eof()
    return response


def _request_headers(request: web.Request, rule: Rule) -> CIMultiDict[str]:
    headers = _end_to_end(request.headers)
    forwarded = headers.get("X-Forwarded-For")
    remote = request.remote or "127.0.0.1"
    headers["X-Forwarded-For"] = f"{forwarded}, {remote}" if forwarded else remote
    headers["X-Forwarded-Host"] = request.host
    headers["X-Forwarded-Proto"] = request.scheme
    headers.popall("X-Forwarded-Prefix", None)
    if prefix := rule.removed_prefix:
        headers["X-Forwarded-Prefix"] = prefix  # a pod names its own addresses by it
    if rule.rewrite_host:
        headers[hdrs.HOST] = rule.rewrite_host
    _change(headers, rule.request_headers)
    return headers


def _end_to_end(headers: "CIMultiDictProxy[str]") -> CIMultiDict[str]:
    named = {name.strip().lower() for name in headers.get(hdrs.CONNECTION, "").split(",")}
    dropped = _HOP_BY_HOP | named
    return CIMultiDict((k, v) for k, v in headers.items() if k.lower() not in dropped)


def _change(headers: CIMultiDict[str], change: HeaderChange) -> None:
    for name in change.remove:
        headers.popall(name, None)
    for name, value in change.set:
        headers[name] = value
    for name, value in change.add:
        headers.add(name, value)


def _error(status: int, code: str, message: str) -> web.Response:
    kind = "not_found_error" if status == 404 else "gateway_error"
    body: Mapping[str, Any] = {"error": {"message": message, "type": kind, "code": code}}
    return web.json_response(body, status=status)


def _nobody(backend: Backend) -> str:
    where = f"Service {backend.service}:{backend.port}"
    if backend.pods:
        return f"{where}: none of its {backend.pods} pod(s) is ready; see `kubectl get pods`"
    return f"{where}: no pod matches its selector"


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _name(rule: Rule) -> str:
    return "/".join(rule.route)


def _has_port(host: str) -> bool:
    return host.rpartition(":")[2].isdigit() and not host.endswith("]")


def _listen(port: int) -> list[socket.socket]:
    first = _socket(socket.AF_INET, "127.0.0.1", port)
    found = [first]
    # Users type "localhost", which many machines resolve to ::1 first.
    if socket.has_ipv6:
        with contextlib.suppress(OSError):
            found.append(_socket(socket.AF_INET6, "::1", first.getsockname()[1]))
    return found


def _socket(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        text = f"port {port} on {host} cannot be used for the gateway ({error.strerror}): "
        raise PortTaken(error.errno, text + "choose another one with --port") from error
    return listening
