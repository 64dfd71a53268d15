"""A span for each request of a server that is no agent: the gateway of models, a tool server.

Guarantees: where `OTEL_*` names nobody to send to, the app is returned as it came and OpenTelemetry
is not imported. The span continues the caller's trace, so a call of a tool or a model is part of
the trace of the agent that made it; what is left is sent when the app ends.

Does not: record what is in requests, or name spans by what a caller chose (paths are attributes).
"""

import asyncio
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kaos.telemetry import tracing
from kaos.telemetry.http import UNLOGGED


def traced(app: ASGIApp, service: str) -> ASGIApp:
    """The app, with spans if the environment asks for them.

    Args:
        app: the app below.
        service: its name, unless `OTEL_SERVICE_NAME` says otherwise.
    """
    end = tracing.start(service)
    return app if end is None else _Traced(app, end)


class _Traced:
    def __init__(self, app: ASGIApp, end: Callable[[], None]) -> None:
        from opentelemetry import trace  # noqa: PLC0415 - see this module's docstring
        from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415
            TraceContextTextMapPropagator,
        )

        self._app = app
        self._end = end
        self._tracer = trace.get_tracer("kaos")
        self._propagator = TraceContextTextMapPropagator()
        self._server, self._error = trace.SpanKind.SERVER, trace.StatusCode.ERROR

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            try:
                await self._app(scope, receive, send)
            finally:
                await asyncio.to_thread(self._end)
            return
        if scope["type"] != "http" or scope["path"] in UNLOGGED:
            await self._app(scope, receive, send)
            return
        headers = {str(k, "latin-1"): str(v, "latin-1") for k, v in scope["headers"]}
        attributes = {"http.request.method": scope["method"], "url.path": scope["path"]}
        with self._tracer.start_as_current_span(
            scope["method"],
            context=self._propagator.extract(headers),
            kind=self._server,
            attributes=attributes,
        ) as span:

            async def sent(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.set_attribute("http.response.status_code", message["status"])
                    if message["status"] >= 500:
                        span.set_status(self._error)
                await send(message)

            await self._app(scope, receive, sent)
