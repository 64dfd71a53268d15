"""Spans of servers that are no agents."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kaos.telemetry import serving, tracing
from kaos.telemetry.traced import traced

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}


async def answer(request: Request) -> Response:
    return Response(status_code=int(request.query_params.get("status", 200)))


def app() -> Starlette:
    return Starlette(routes=[Route("/mcp", answer), Route("/healthz", answer)])


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    monkeypatch.setattr(tracing, "start", lambda _service: provider.shutdown)
    yield exporter
    provider.shutdown()


async def test_a_request_is_a_span_of_its_callers_trace(spans: InMemorySpanExporter) -> None:
    async with serving.running(traced(app(), "tools")) as url, aiohttp.ClientSession() as http:
        for path in ("/mcp", "/mcp?status=503", "/healthz"):
            async with http.get(url + path, headers=CALLER):
                pass
    good, bad = spans.get_finished_spans()
    for span, status in ((good, 200), (bad, 503)):
        assert span.context is not None
        assert span.parent is not None
        assert f"{span.context.trace_id:032x}" == TRACE
        assert f"{span.parent.span_id:016x}" == "00f067aa0ba902b7"
        assert span.attributes is not None
        assert span.attributes["http.response.status_code"] == status
        assert span.attributes["url.path"] == "/mcp"
    assert (good.status.is_ok, bad.status.is_ok) == (True, False)


async def test_what_is_left_is_sent_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[Any] = []
    monkeypatch.setattr(tracing, "start", lambda _service: lambda: ended.append("sent"))
    async with serving.running(traced(app(), "tools")):
        assert ended == []
    assert ended == ["sent"]


@pytest.mark.process
def test_without_otel_it_costs_nothing() -> None:
    code = (
        "import sys; from kaos.telemetry.traced import traced; app = object();"
        "assert traced(app, 'x') is app; assert 'opentelemetry' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PATH": ""})
