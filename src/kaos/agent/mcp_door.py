"""The agent as an MCP server at `/mcp`: one tool, which asks it.

Guarantees: clients of both eras of MCP may ask, and no session is kept for either, so any
replica may answer; the run, its parents, the path and the trace of a calling agent are taken
over from the request's headers; steps are reported as progress to who wants it; a failure is
an `isError` result with the reason.

Does not: continue conversations. Each call is one of its own.
"""

import ipaddress
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace

import kaos.agent.mcp_client  # noqa: F401 # isort: skip - see there
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.transport_security import TransportSecuritySettings
from starlette.requests import Request
from starlette.types import ASGIApp

from kaos import __version__
from kaos.agent.auth.caller import caller_of
from kaos.agent.errors import AgentError
from kaos.agent.exchange import Exchanges
from kaos.agent.memory.keeper import SESSION_HEADER
from kaos.agent.openai import ChatRequest
from kaos.agent.runs import Event

_LOCAL = ("127.0.0.1", "localhost", "[::1]")


@asynccontextmanager
async def open_door(exchanges: Exchanges) -> AsyncIterator[ASGIApp]:
    """Make the app for `/mcp`."""
    exchanges = replace(exchanges, memory=None)  # nobody could name the session again
    settings = exchanges.settings
    server: MCPServer[None] = MCPServer(settings.name, version=__version__)
    about = settings.description or f"the agent {settings.name}"

    async def ask(question: str, ctx: Context) -> str:
        headers = {
            name.lower(): value
            for name, value in (ctx.headers or {}).items()
            if name.lower() != SESSION_HEADER
        }
        return await _ask(exchanges, question, headers, ctx)

    server.add_tool(
        ask,
        description=f"Ask {settings.name} a question or give it a task, with all it needs to know. "
        f"About it: {about}",
    )
    app = server.streamable_http_app(
        stateless_http=True, transport_security=_security(settings.listen)
    )
    async with app.router.lifespan_context(app):
        yield app


async def _ask(
    exchanges: Exchanges, question: str, headers: Mapping[str, str], ctx: Context
) -> str:
    count = 0

    async def progress(event: Event) -> None:
        nonlocal count
        if event.type in ("end", "error") and event.kind != "run":
            count += 1
            await ctx.report_progress(count, message=f"{event.kind} {event.name}")

    chat = ChatRequest(messages=[{"role": "user", "content": question}])
    try:
        exchange = exchanges.begin(headers, chat, caller=_caller(ctx))
        outcome = await exchange.hold(None, progress)
    except AgentError as error:
        raise ToolError(error.message) from error
    text = str(outcome.message.get("content") or "")
    return f"{text}\n[stopped by {outcome.limit}]" if outcome.limit else text


def _caller(ctx: Context) -> str:
    request = ctx.request_context.request
    return caller_of(request.scope) if isinstance(request, Request) else ""


def _security(listen: str) -> TransportSecuritySettings:
    # On loopback a web page could reach us by rebinding a name; in a cluster no browser is inside.
    host = listen.rpartition(":")[0].strip("[]")
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    if not local:
        return TransportSecuritySettings(enable_dns_rebinding_protection=False)
    hosts = [form for name in _LOCAL for form in (name, f"{name}:*")]
    return TransportSecuritySettings(
        allowed_hosts=hosts,
        allowed_origins=[f"{scheme}://{name}" for name in hosts for scheme in ("http", "https")],
    )
