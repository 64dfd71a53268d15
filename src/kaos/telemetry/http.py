"""The outermost layer of every HTTP server of ours: request ids, limits, access log, metrics.

Guarantees: each request has an id (the caller's `x-request-id` if it is a sane one), which is
in its response, in every log line below it, and in `request.state.request_id`; one log line a
request when it ended, with what became of it; a body larger than the limit is refused with
413 as it arrives, whether or not it announced its length; an exception nobody caught is
logged with its trace and answered 500 without it.

Does not: shape errors for an API. `on_error` makes the body of a 413 or 500 (OpenAI's error
object, for instance).

Probes and `/metrics` are not logged: a line every ten seconds from each pod hides the rest. The
lists of tools that agents and the controller ask of MCP servers all the time, and those of models
that agents ask of model APIs, are, at DEBUG.
"""

import asyncio
import contextlib
import logging
import re
import secrets
import time
from collections.abc import Callable

import structlog
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kaos.telemetry import metrics

log = structlog.get_logger(__name__)

UNLOGGED = frozenset({"/healthz", "/readyz", "/metrics"})
ROUTINE = frozenset({"server/discover", "subscriptions/listen", "tools/list"})
"""What an MCP client says in `mcp-method` though nobody wants anything of the server."""
MODEL_LISTS = frozenset({"/v1/models", "/api/tags"})
"""What agents GET of a model API, each every few seconds, to know whether it answers."""
MAX_BODY = 16 * 1024 * 1024
_DRAIN = 1.0

_SANE_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")

ErrorBody = Callable[[int, str], Response]


class BodyTooLarge(HTTPException):
    """The request's body is over the limit; Starlette's handlers know what to do with it."""

    def __init__(self, limit: int) -> None:
        message = f"the request body is larger than {limit} bytes"
        super().__init__(413, message, headers={"connection": "close"})


class Observed:
    """ASGI middleware; wraps the whole app.

    Args:
        app: The app below.
        max_body: The largest request body in bytes.
        on_error: Makes the response of a 413 or a 500 from its status and message.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_body: int = MAX_BODY,
        on_error: ErrorBody | None = None,
    ) -> None:
        self._app = app
        self._max_body = max_body
        self._on_error = on_error or _plain_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        exchange = _Exchange(receive, send, request_id, self._max_body)
        outcome = "cancelled"
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._run(scope, exchange)
                outcome = "ok" if exchange.complete else "disconnected"
            finally:
                self._record(scope, exchange, outcome)

    async def _run(self, scope: Scope, exchange: "_Exchange") -> None:
        try:
            await exchange.refuse_if_over(_announced_length(scope))
            await self._app(scope, exchange.receive, exchange.send)
        except BodyTooLarge as error:
            await self._fail(scope, exchange, error.status_code, error.detail)
        except Exception:
            log.exception("request failed", method=scope["method"], path=scope["path"])
            await self._fail(scope, exchange, 500, "internal error; see the server's log")

    async def _fail(self, scope: Scope, exchange: "_Exchange", status: int, message: str) -> None:
        if exchange.status is None:
            response = self._on_error(status, message)
            response.headers["connection"] = "close"
            await response(scope, exchange.receive, exchange.send)

    def _record(self, scope: Scope, exchange: "_Exchange", outcome: str) -> None:
        seconds = time.perf_counter() - exchange.started
        status = exchange.status or 499  # nothing was sent: the caller went away, or we stop
        if scope["path"] in UNLOGGED:
            return
        metrics.http_requests(scope["method"], status, seconds)
        log.log(
            logging.DEBUG if status < 400 and _is_routine(scope) else logging.INFO,
            "request",
            method=scope["method"],
            path=scope["path"],
            status=status,
            outcome=outcome,
            seconds=round(seconds, 4),
            sent_bytes=exchange.sent,
        )


class _Exchange:
    """One request and its response, as they pass."""

    def __init__(self, receive: Receive, send: Send, request_id: str, max_body: int) -> None:
        self.started = time.perf_counter()
        self.status: int | None = None
        self.sent = 0
        self.complete = False
        self._receive = receive
        self._send = send
        self._request_id = request_id.encode("latin-1")
        self._max_body = max_body
        self._left = max_body
        self._read = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            size = len(message.get("body", b""))
            self._read = not message.get("more_body", False)
            await self.refuse_if_over(size)
            self._left -= size
        else:
            self._read = True
        return message

    async def refuse_if_over(self, size: int) -> None:
        """Raise if `size` more bytes would pass the limit."""
        if size > self._left:
            # Most clients read no answer before they have sent everything.
            await self.drain()
            raise BodyTooLarge(self._max_body)

    async def drain(self) -> None:
        """Read away what is left of the request's body, for a moment."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN):
                await self._read_on()

    async def _read_on(self) -> None:
        while not self._read:
            message = await self._receive()
            self._read = not message.get("more_body", False)

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message.get("headers", []), (b"x-request-id", self._request_id)]
            message = {**message, "headers": headers}
        elif message["type"] == "http.response.body":
            self.sent += len(message.get("body", b""))
            self.complete = not message.get("more_body", False)
        if self.complete and not self._read:
            await self._send_while_reading(message)
        else:
            await self._send(message)

    async def _send_while_reading(self, message: Message) -> None:
        """Send the end of a response to a request whose body nobody has read.

        Hypercorn queues ten pieces of a body for the app and then waits, also to queue the news
        that the exchange is over: without a reader it would wait for itself, for ever.
        """
        reading = asyncio.create_task(self._read_on())
        try:
            await self._send(message)
        finally:
            reading.cancel()
            await asyncio.wait([reading])


def _is_routine(scope: Scope) -> bool:
    if scope["method"] == "GET" and scope["path"] in MODEL_LISTS:
        return True
    return _header(scope, b"mcp-method") in ROUTINE


def _header(scope: Scope, name: bytes) -> str:
    for key, value in scope["headers"]:
        if key == name:
            return str(value, "latin-1")
    return ""


def _announced_length(scope: Scope) -> int:
    text = _header(scope, b"content-length")
    # A value of many digits would be slow to read and is too large anyway.
    return int(text[:19]) if text.isascii() and text.isdigit() else 0


def _request_id(scope: Scope) -> str:
    given = _header(scope, b"x-request-id")
    return given if _SANE_ID.fullmatch(given) else f"req-{secrets.token_hex(16)}"


def _plain_error(status: int, message: str) -> Response:
    return JSONResponse({"error": {"message": message}}, status_code=status)
