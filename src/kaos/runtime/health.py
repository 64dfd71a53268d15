"""Probes and metrics over HTTP: /healthz, /readyz and /metrics, with named checks.

Guarantees: bound to the loopback unless told otherwise; /readyz says which check failed and why;
``/readyz/NAME`` asks one check, ``?exclude=NAME`` leaves one out, ``?verbose`` lists all.
Does not: authenticate. Metrics hold no secrets, but names of objects' kinds: keep it inside.
"""

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import anyio
from hypercorn.asyncio import serve
from hypercorn.config import Config
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

Check = Callable[[], str]
"""A named check: "" when all is well, otherwise what is wrong."""


@dataclass(frozen=True, slots=True)
class HttpServer:
    """Where /healthz, /readyz and /metrics are served; port 0 takes a free one."""

    host: str = "127.0.0.1"
    port: int = 8080


def application(
    healthz: Mapping[str, Check], readyz: Mapping[str, Check], registry: CollectorRegistry
) -> Starlette:
    """The three endpoints as an ASGI application."""

    def probe(checks: Mapping[str, Check]) -> Callable[[Request], Response]:
        def answer(request: Request) -> Response:
            name = request.path_params.get("check")
            if name is not None and name not in checks:
                return PlainTextResponse(f"no check named {name}\n", 404)
            excluded = set(request.query_params.getlist("exclude"))
            asked = [name] if name else [n for n in checks if n not in excluded]
            told = {n: checks[n]() for n in asked}
            bad = any(told.values())
            if not bad and "verbose" not in request.query_params:
                return PlainTextResponse("ok\n")
            lines = [f"[-]{n} failed: {why}" if why else f"[+]{n} ok" for n, why in told.items()]
            return PlainTextResponse("\n".join(lines) + "\n", 503 if bad else 200)

        return answer

    def metrics(_: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return Starlette(
        routes=[
            Route("/healthz", _async(probe(healthz))),
            Route("/healthz/{check}", _async(probe(healthz))),
            Route("/readyz", _async(probe(readyz))),
            Route("/readyz/{check}", _async(probe(readyz))),
            Route("/metrics", _async(metrics)),
        ]
    )


def _async(answer: Callable[[Request], Response]) -> Callable[..., object]:
    # Starlette runs plain functions in a thread; these read state that belongs to the loop.
    async def endpoint(request: Request) -> Response:
        return answer(request)

    return endpoint


async def serve_http(app: Starlette, settings: HttpServer, stop: anyio.Event) -> None:
    """Serve until `stop` is set; raises OSError when the address is taken."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # Bound here and handed over: hypercorn leaks the socket when it cannot bind it.
    listener = socket.create_server((settings.host, settings.port), family=family)
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.graceful_timeout = 1.0
    config.include_server_header = False
    config.accesslog = None
    config.errorlog = None
    await serve(app, config, shutdown_trigger=stop.wait)  # type: ignore[arg-type]
