"""The streaming subresources of a pod: log, portforward, exec, and a clear no to attach.

Guarantees: a request is checked before a stream starts, so what is wrong with it is a
Status object and not a broken stream (also on a WebSocket, whose handshake is then
refused with it); a stream ends when the client leaves or the server stops.

Does not: speak SPDY outside a WebSocket, as kubectl before 1.31 does and newer ones do
when the WebSocket is refused. An ASGI server hands over no raw connection, so those
requests get a Status that names the way out. Authentication is the caller's matter.
"""

import asyncio
import contextlib
import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from kaos.local.apiserver import portforward, remotecommand
from kaos.local.apiserver.errors import StatusError, bad_request
from kaos.local.apiserver.forward_target import words
from kaos.local.apiserver.nodeproxy import NodeProxy
from kaos.local.apiserver.options import flag, number
from kaos.local.apiserver.remotecommand import ExecProxy

_POD: Final = "/api/v1/namespaces/{namespace}/pods/{pod}"
_FIRST_CHUNK_SECONDS: Final = 0.25
_QUEUE: Final = 32
_GOING_AWAY: Final = 1001
_END: Final = {"type": "http.response.body", "body": b"", "more_body": False}
_EXAMPLE: Final = "2026-01-31T12:00:00Z"
_NO_SPDY: Final = (
    "{} needs a WebSocket here and this request asks for none: use kubectl 1.31 or newer,"
    " and do not set KUBECTL_PORT_FORWARD_WEBSOCKETS or KUBECTL_REMOTE_COMMAND_WEBSOCKETS"
)

GetNode = Callable[[], NodeProxy | None]
GetPod = Callable[[str, str], Mapping[str, Any] | None]


def stream_routes(
    get_node: GetNode, get_pod: GetPod, stopping: asyncio.Event | None = None
) -> list[BaseRoute]:
    """Routes for the streaming subresources of pods; mount them before generic ones.

    Args:
        get_node: The node, or None while there is none.
        get_pod: The pod by namespace and name, or None (a ``StatusError`` is fine, too).
        stopping: Set when the server stops; open streams then end at once and in order.
    """
    streams = _Streams(get_node, get_pod, stopping or asyncio.Event())
    routes: list[BaseRoute] = [Route(f"{_POD}/log", _plain(streams.log), methods=["GET"])]
    for name, websocket, plain in (
        ("portforward", streams.portforward, streams.portforward_without_websocket),
        ("exec", streams.exec, streams.exec_without_websocket),
        ("attach", streams.attach, streams.attach),
    ):
        routes.append(WebSocketRoute(f"{_POD}/{name}", _socket(websocket)))
        routes.append(Route(f"{_POD}/{name}", _plain(plain), methods=["GET", "POST"]))
    return routes


def _plain(
    handler: Callable[[Request], Awaitable[Response]],
) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except StatusError as error:
            return status_response(error)

    return answer


def _socket(
    handler: Callable[[WebSocket], Awaitable[object]],
) -> Callable[[WebSocket], Awaitable[None]]:
    """As ``_plain``; a handler raises only before it has accepted the WebSocket."""

    async def answer(websocket: WebSocket) -> None:
        try:
            await handler(websocket)
        except StatusError as error:
            await websocket.send_denial_response(status_response(error))

    return answer


class _Streams:
    def __init__(self, get_node: GetNode, get_pod: GetPod, stopping: asyncio.Event) -> None:
        self._get_node = get_node
        self._get_pod = get_pod
        self._stopping = stopping

    def _find(self, connection: HTTPConnection) -> tuple[str, str, Mapping[str, Any]]:
        namespace: str = connection.path_params["namespace"]
        name: str = connection.path_params["pod"]
        pod = self._get_pod(namespace, name)
        if pod is None:
            details = {"name": name, "kind": "pods"}
            raise StatusError(404, "NotFound", f'pods "{name}" not found', details=details)
        return namespace, name, pod

    def _node(self) -> NodeProxy:
        node = self._get_node()
        if node is None:
            message = "there is no node yet; try again in a moment"
            raise StatusError(503, "ServiceUnavailable", message, retry_after=1)
        return node

    async def log(self, request: Request) -> Response:
        namespace, name, pod = self._find(request)
        query = request.query_params
        container = choose_container(name, pod, query.get("container", ""))
        if query.get("stream", "All") != "All":
            raise bad_request("stream: only All is supported, a log is kept as one")
        chunks = self._node().read_logs(
            namespace,
            name,
            container,
            follow=flag(query, "follow"),
            tail_lines=number(query, "tailLines"),
            since_seconds=_since_seconds(query, datetime.now(UTC)),
            timestamps=flag(query, "timestamps"),
            previous=flag(query, "previous"),
        )
        return _LogResponse(chunks, number(query, "limitBytes"), self._stopping)

    async def portforward(self, websocket: WebSocket) -> None:
        namespace, name, _pod = self._find(websocket)
        node = self._node()
        ports = _ports(websocket)
        await self._until_stopped(
            websocket,
            portforward.serve(websocket, lambda port: node.open_port(namespace, name, port), ports),
        )

    async def portforward_without_websocket(self, request: Request) -> Response:
        self._find(request)
        self._node()
        raise bad_request(_NO_SPDY.format("port-forward"))

    async def exec(self, websocket: WebSocket) -> None:
        namespace, name, pod = self._find(websocket)
        node = self._node()
        if not isinstance(node, ExecProxy):
            raise _not_implemented("exec")
        query = websocket.query_params
        command = query.getlist("command")
        if not command:
            raise bad_request("you must specify at least one command for the container")
        container = choose_container(name, pod, query.get("container", ""))
        options = {"stdin": flag(query, "stdin"), "tty": flag(query, "tty")}
        await self._until_stopped(
            websocket,
            remotecommand.serve(
                websocket, lambda: node.exec(namespace, name, container, command, **options)
            ),
        )

    async def exec_without_websocket(self, request: Request) -> Response:
        self._find(request)
        raise (
            bad_request(_NO_SPDY.format("exec"))
            if isinstance(self._node(), ExecProxy)
            else _not_implemented("exec")
        )

    async def attach(self, connection: HTTPConnection) -> Response:
        self._find(connection)
        raise _not_implemented("attach")

    async def _until_stopped(
        self, websocket: WebSocket, session: Coroutine[Any, Any, None]
    ) -> None:
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(session), tasks.create_task(self._stopping.wait())]
            await _first_of(running)
        await portforward.close(websocket, _GOING_AWAY)


def _not_implemented(verb: str) -> StatusError:
    message = f"{verb} is not implemented by the embedded cluster; see kubectl logs"
    return StatusError(501, "NotImplemented", message)


class _LogResponse(Response):
    """Streams a log until its end, its limit, or until the client leaves."""

    media_type = "text/plain"

    def __init__(
        self, chunks: AsyncIterator[bytes], limit: int | None, stopping: asyncio.Event
    ) -> None:
        super().__init__()
        del self.headers["content-length"]
        self._chunks = chunks
        self._left = limit
        self._stopping = stopping
        self._started = False
        self._ended = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        queue: asyncio.Queue[bytes | LookupError | None] = asyncio.Queue(_QUEUE)
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(self._read(queue))
            gone = tasks.create_task(_until_gone(receive))
            writing = tasks.create_task(self._write(queue, scope, receive, send))
            await _first_of([gone, writing, tasks.create_task(self._stopping.wait())])
            reading.cancel()
        if self._started and not self._ended:
            await send(_END)

    async def _read(self, queue: asyncio.Queue[bytes | LookupError | None]) -> None:
        try:
            async for chunk in self._chunks:
                await queue.put(chunk)
        except LookupError as error:
            await queue.put(error)
        finally:
            if isinstance(self._chunks, AsyncGenerator):
                await self._chunks.aclose()
        await queue.put(None)

    async def _write(
        self,
        queue: asyncio.Queue[bytes | LookupError | None],
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        # "No such log" shows with the first chunk, and must become a status code. A log
        # that is followed may have none for hours; its reader wants the headers now.
        chunk: bytes | LookupError | None = b""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_CHUNK_SECONDS):
                chunk = await queue.get()
        if isinstance(chunk, LookupError):
            await status_response(bad_request(words(chunk)))(scope, receive, send)
            return
        self._started = True
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        while chunk is not None and self._left != 0:
            data = chunk if isinstance(chunk, bytes) else f"{words(chunk)}\n".encode()
            if self._left is not None:
                data = data[: self._left]
                self._left -= len(data)
            await send({"type": "http.response.body", "body": data, "more_body": True})
            chunk = await queue.get() if self._left != 0 else None
        self._ended = True
        await send(_END)


async def _first_of(running: list[asyncio.Task[Any]]) -> None:
    """Wait until one of the tasks has ended, and end the others."""
    await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    for task in running:
        task.cancel()


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def status_response(error: StatusError) -> Response:
    """The error as kubectl reads it."""
    retry = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    return JSONResponse(error.to_dict(), status_code=error.code, headers=retry)


def choose_container(pod_name: str, pod: Mapping[str, Any], wanted: str) -> str:
    """The container whose log is meant, by the kubelet's rules and in its words.

    Raises:
        StatusError: None is named and there are several, or there is no such one.
    """
    spec = pod.get("spec") or {}
    names, init, ephemeral = (
        [str(c.get("name", "")) for c in spec.get(field) or ()]
        for field in ("containers", "initContainers", "ephemeralContainers")
    )
    if wanted:
        if wanted in {*names, *init, *ephemeral}:
            return wanted
        raise bad_request(f"container {wanted} is not valid for pod {pod_name}")
    if len(names) == 1:
        return names[0]
    message = f"a container name must be specified for pod {pod_name}"
    if names:
        message += f", choose one of: [{' '.join(names)}]"
    if names and init:
        message += f" or one of the init containers: [{' '.join(init)}]"
    raise bad_request(message)


def _since_seconds(query: Mapping[str, str], now: datetime) -> int | None:
    since = query.get("sinceTime")
    if not since:
        return number(query, "sinceSeconds")
    if query.get("sinceSeconds"):
        raise bad_request("at most one of `sinceTime` or `sinceSeconds` may be specified")
    try:
        start = datetime.fromisoformat(since)
    except ValueError as error:
        raise bad_request(f"sinceTime: {since!r} is not a time like {_EXAMPLE}") from error
    if start.tzinfo is None:
        raise bad_request(f"sinceTime: {since!r} names no time zone, as {_EXAMPLE} does")
    return max(0, math.ceil((now - start).total_seconds()))


def _ports(websocket: WebSocket) -> list[int]:
    try:
        ports = portforward.parse_ports(websocket.query_params.getlist("ports"))
    except ValueError as error:
        raise bad_request(f"ports: {error}") from error
    if not ports and portforward.SPDY_SUBPROTOCOL not in websocket.scope.get("subprotocols", []):
        raise bad_request("ports: name at least one, as in ?ports=8080")
    return ports
