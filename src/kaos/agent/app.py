"""The agent, put together.

Guarantees: the port answers before anything is connected; what runs in the background (the
connections to MCP servers, the peers' cards) runs in one task group that ends with the app.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from kaos.agent import health
from kaos.agent.auth.guard import Guard
from kaos.agent.auth.open import open_verifiers
from kaos.agent.card import CardEndpoint
from kaos.agent.chat import ChatEndpoint
from kaos.agent.doors import LateDoor
from kaos.agent.errors import plain_error_response
from kaos.agent.exchange import Exchanges
from kaos.agent.limits import Slots
from kaos.agent.mcp_pool import ToolPool
from kaos.agent.memory.endpoints import SessionEndpoints
from kaos.agent.memory.keeper import Memory
from kaos.agent.memory.open import open_store
from kaos.agent.model import ModelClient
from kaos.agent.models import ModelsEndpoint
from kaos.agent.peers import PeerDirectory
from kaos.agent.run_endpoints import RunEndpoints
from kaos.agent.run_store import RunStore
from kaos.agent.runs import Spans
from kaos.agent.settings import Settings
from kaos.agent.text_tools import ToolCalling
from kaos.agent.tools import Tool
from kaos.telemetry import metrics, tracing
from kaos.telemetry.http import Observed

log = structlog.get_logger(__name__)


def create_app(settings: Settings) -> ASGIApp:
    """Make the ASGI app of an agent.

    Raises:
        SettingsError: The settings ask for what cannot be had.
    """
    memory = (
        Memory(open_store(settings), settings.memory_context_limit)
        if settings.memory_enabled
        else None
    )
    app = Starlette(
        lifespan=lambda app: _running(app, settings, memory),
        exception_handlers={HTTPException: _http_error, Exception: _http_error},
    )
    guard = Guard(app, open_verifiers(settings))
    return Observed(guard, max_body=settings.max_body, on_error=plain_error_response)


@asynccontextmanager
async def _running(
    app: Starlette, settings: Settings, memory: Memory | None
) -> AsyncIterator[None]:
    """Connect the agent to the world for as long as the app lives."""
    # Requests are limited, not their connections. Names are looked up for each new one: aiohttp
    # would hold a Service's old address for ten seconds.
    connector = aiohttp.TCPConnector(limit=0, use_dns_cache=False)
    async with aiohttp.ClientSession(connector=connector) as http:
        pool = ToolPool(settings.mcp_servers, settings.tool_timeout, settings.mcp_tools)
        directory = PeerDirectory(
            settings.peers,
            namespace=settings.namespace,
            http=http,
            timeout=settings.delegation_timeout,
            token_files=settings.peer_token_files,
        )
        model = ModelClient(
            http,
            settings.model_api_url,
            key=settings.model_api_key.get_secret_value(),
            timeout=settings.model_timeout,
        )

        def tools() -> list[Tool]:
            return [*pool.tools(), *directory.tools()]

        models = ModelsEndpoint(settings.name)
        ready = health.ReadyEndpoint(
            model, settings.model_api_url, pool, directory, settings.dependency_wait
        )
        calling = ToolCalling(model, settings.tool_call_mode)
        store = RunStore(settings.name, record=settings.record_content)
        run_endpoints = RunEndpoints(store)
        slots = Slots(settings.max_concurrent)
        end_telemetry = tracing.start(settings.name)
        exchanges = Exchanges(
            settings,
            calling,
            tools,
            store,
            spans=_spans(settings) if end_telemetry else None,
            memory=memory,
            slots=slots,
        )
        chat = ChatEndpoint(exchanges)
        mcp = LateDoor("kaos.agent.mcp_door", exchanges, ("mcp", "agent"))
        a2a = LateDoor("kaos.agent.a2a_door", exchanges, ("a2a", "a2a"))
        card = CardEndpoint(settings, tools, a2a.available)
        sessions = SessionEndpoints(memory, settings.memory_open_list).routes() if memory else []
        # Here and not in `create_app`, because aiohttp's session needs a running loop.
        app.router.routes[:] = [
            Route("/v1/chat/completions", chat.post, methods=["POST"]),
            Route("/v1/models", models.list),
            Route("/v1/models/{id:path}", models.one),
            Route("/v1/runs", run_endpoints.list),
            Route("/v1/runs/{id}", run_endpoints.one),
            Route("/v1/runs/{id}/events", run_endpoints.events),
            *sessions,
            Route("/.well-known/agent-card.json", card.get),
            Route("/mcp", mcp),
            Route("/a2a", a2a),
            Route("/healthz", health.healthz),
            Route("/readyz", ready.get),
            Route("/metrics", metrics.page),
        ]
        background = [
            asyncio.create_task(_supervised(work, name))
            for work, name in ((pool.run(), "tools"), (directory.run(), "peers"))
        ]
        try:
            yield
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            await chat.replays.close()
            await mcp.close()
            await a2a.close()
            if memory is not None:
                await memory.close()
            if end_telemetry is not None:
                await asyncio.to_thread(end_telemetry)


def _spans(settings: Settings) -> Spans:
    from kaos.agent.spans import GenAISpans  # noqa: PLC0415 - only where OpenTelemetry is

    return GenAISpans(settings.model_api_url, record=settings.record_content)


async def _supervised(work: Coroutine[Any, Any, None], name: str) -> None:
    """Do background work; its end by an error is a bug, and must not pass unseen."""
    try:
        await work
    except Exception:
        log.exception("background work ended", work=name)
        raise


async def _http_error(_request: Request, error: Exception) -> Response:
    """404, 405 and the like in the words of the OpenAI API."""
    if not isinstance(error, HTTPException):
        return plain_error_response(500, "internal error; see the agent's log")
    response = plain_error_response(error.status_code, error.detail)
    response.headers.update(error.headers or {})
    return response
