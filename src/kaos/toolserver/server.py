"""Tools behind MCP, and MCP behind HTTP.

Guarantees: `/mcp` speaks MCP streamable HTTP to clients of both eras (2026-07-28 and the ones
with `initialize`) and keeps no session for either, so any replica may answer any request.
Sync functions run in threads and never hold up the loop. What a function raises reaches the
caller as an `isError` result with the exception's message: the caller is a model that can
correct itself only if it is told (the SDK alone would hide the text). The traceback goes to
the log. `GET /tools` lists the tools as JSON for the controller and the CLI,
`/metrics` is there too.

Does not: stop a sync function whose caller has gone; its thread runs to its end, and no more
than `MAX_THREADS` run at once.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import anyio
import anyio.to_thread
import structlog
from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import InvalidSignature, ToolError
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.exceptions import MCPError
from mcp_types import Tool
from pydantic.errors import PydanticUserError
from pydantic_core import to_json
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from kaos import __version__
from kaos.telemetry import metrics

MAX_THREADS = 16

log = structlog.get_logger(__name__)


class ToolSchemaError(Exception):
    """A function's signature cannot be made into a tool's schema."""


def build_server(
    name: str, tools: Sequence[Callable[..., Any]], *, instructions: str = ""
) -> MCPServer[Any]:
    """Make an MCP server of functions.

    Raises:
        ToolSchemaError: A signature has no JSON schema.
    """
    server: MCPServer[Any] = MCPServer(name, instructions=instructions or None, version=__version__)
    threads = anyio.CapacityLimiter(MAX_THREADS)
    for function in tools:
        try:
            _check_parameters(function)
            server.add_tool(_reporting(function, threads), description=inspect.getdoc(function))
        except (InvalidSignature, PydanticUserError, NameError, TypeError, ValueError) as error:
            # A pydantic error is a book with a link; its first line says it.
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise ToolSchemaError(
                f"function {function.__name__!r} cannot be a tool: {first} "
                "(annotate its parameters with types that JSON knows)"
            ) from error
    return server


def _check_parameters(function: Callable[..., Any]) -> None:
    """Refuse parameters that have no name to be called by."""
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
            raise TypeError(f"its parameter {parameter.name} cannot be given by name")


class Served(Protocol):
    """What `build_app` needs of an MCP server."""

    @property
    def name(self) -> str:
        """Its name."""

    async def list_tools(self) -> Sequence[Tool]:
        """Its tools."""

    def streamable_http_app(
        self, *, stateless_http: bool, transport_security: TransportSecuritySettings | None
    ) -> Starlette:
        """The app that serves `/mcp`."""


def build_app(
    server: Served,
    *,
    allowed_hosts: Sequence[str] | None,
    problem: Callable[[], str] = lambda: "",
) -> Starlette:
    """Put a server behind `/mcp`, `/tools`, `/healthz`, `/readyz` and `/metrics`.

    Args:
        server: From `build_server`, or a bridge.
        allowed_hosts: Host names that `/mcp` answers to, with any port; None for all.
        problem: Why it is not ready; empty when it is. Functions are loaded before the port is
            opened: who can ask is answered.
    """

    async def ok(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def ready(_: Request) -> Response:
        why = problem()
        return PlainTextResponse(f"{why or 'ok'}\n", 503 if why else 200)

    async def tools(_: Request) -> Response:
        return JSONResponse(
            {
                "server": server.name,
                "tools": [
                    {
                        "name": tool.name,
                        "description": tool.description or "",
                        "inputSchema": tool.input_schema,
                    }
                    for tool in await server.list_tools()
                ],
            }
        )

    app = server.streamable_http_app(
        stateless_http=True, transport_security=_transport_security(allowed_hosts)
    )
    app.router.routes += [
        Route("/healthz", ok),
        Route("/readyz", ready),
        Route("/tools", tools),
        Route("/metrics", metrics.page),
    ]
    return app


def _transport_security(hosts: Sequence[str] | None) -> TransportSecuritySettings:
    if hosts is None:
        return TransportSecuritySettings(enable_dns_rebinding_protection=False)
    any_port = [form for host in hosts for form in (host, f"{host}:*")]
    return TransportSecuritySettings(
        allowed_hosts=any_port,
        allowed_origins=[f"{scheme}://{h}" for h in any_port for scheme in ("http", "https")],
    )


def _reporting(function: Callable[..., Any], threads: anyio.CapacityLimiter) -> Callable[..., Any]:
    """The function as a coroutine that raises `ToolError` for whatever goes wrong inside."""

    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        try:
            if inspect.iscoroutinefunction(function):
                value = await function(*args, **kwargs)
            else:
                value = await anyio.to_thread.run_sync(
                    functools.partial(function, *args, **kwargs),
                    abandon_on_cancel=True,
                    limiter=threads,
                )
            if inspect.isawaitable(value):  # a plain decorator around an async function
                value = await value
            to_json(value, fallback=lambda _: None)  # bytes that are no text, for one
            return value
        except (ToolError, MCPError):
            raise
        # SystemExit too: a tool that calls sys.exit() must not end the server.
        except (Exception, SystemExit) as error:
            log.warning("tool raised", tool=function.__name__, exc_info=error)
            text = str(error).encode("utf-8", "replace").decode()
            raise ToolError(f"{type(error).__name__}: {text}" if text else repr(error)) from error

    return call
