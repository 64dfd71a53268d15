"""Spans and metrics of an agent by the GenAI conventions of OpenTelemetry.

Guarantees: one trace from the caller through the run (`invoke_agent`), its model calls
(`chat`), tools (`execute_tool`) and peers: each step continues what the request brought along
and its headers are what the next server gets, also from a stream that runs on after its
handler returned. What was asked and answered is in no span unless `KAOS_RECORD_CONTENT` says so.

Imported only where there is somebody to send to (see `kaos.telemetry.tracing`); the conventions
are still in development, so their names are here and nowhere else.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from pydantic_core import to_json

from kaos import __version__
from kaos.agent.openai import Json
from kaos.agent.runs import StepKind

_PROPAGATOR = TraceContextTextMapPropagator()
_OPERATIONS: dict[StepKind, tuple[str, SpanKind]] = {
    "run": ("invoke_agent", SpanKind.INTERNAL),
    "model": ("chat", SpanKind.CLIENT),
    "tool": ("execute_tool", SpanKind.INTERNAL),
    "delegation": ("invoke_agent", SpanKind.CLIENT),
    "wait": ("wait", SpanKind.INTERNAL),
}
_DURATIONS: dict[StepKind, str] = {
    "run": "gen_ai.invoke_agent.duration",
    "model": "gen_ai.client.operation.duration",
    "tool": "gen_ai.execute_tool.duration",
}
_SECONDS = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]
_TOKENS = [4.0**power for power in range(14)]
_PROVIDER = "openai"  # whose API is spoken, which is all that is known of who answers


class GenAISpans:
    """Makes the spans of an agent's steps.

    Args:
        model_url: The model API's base URL.
        record: Whether spans carry what was asked and answered.
        tracers: Where spans go; by default where the process was told to send them.
        meters: The same for metrics.
    """

    def __init__(
        self,
        model_url: str,
        *,
        record: bool = False,
        tracers: trace.TracerProvider | None = None,
        meters: metrics.MeterProvider | None = None,
    ) -> None:
        self._record = record
        self._tracer = trace.get_tracer("kaos.agent", __version__, tracers)
        meter = metrics.get_meter("kaos.agent", __version__, meters)
        self._durations = {
            kind: meter.create_histogram(
                name, unit="s", explicit_bucket_boundaries_advisory=_SECONDS
            )
            for kind, name in _DURATIONS.items()
        }
        self._first = meter.create_histogram(
            "gen_ai.client.operation.time_to_first_chunk",
            unit="s",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            unit="{token}",
            explicit_bucket_boundaries_advisory=_TOKENS,
        )
        address = urlsplit(model_url)
        self._server: Json = {"server.address": address.hostname or ""}
        if address.port:
            self._server["server.port"] = address.port

    @contextmanager
    def __call__(
        self, kind: StepKind, name: str, details: Json, headers: Mapping[str, str]
    ) -> "Iterator[StepSpan]":
        """Make a span around a step, below the one that `headers` name."""
        operation, span_kind = _OPERATIONS[kind]
        attributes = self._attributes(kind, operation, name)
        parent = _PROPAGATOR.extract(dict(headers), context=Context())
        with self._tracer.start_as_current_span(
            f"{operation} {name}", parent, span_kind, attributes, record_exception=False
        ) as span:
            made = StepSpan(span, headers, self._record)
            made.asked(kind, details)
            try:
                yield made
            except BaseException as error:
                made.failed(type(error).__name__)
                raise
            finally:
                self._measure(kind, made, attributes)

    def _attributes(self, kind: StepKind, operation: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = {"gen_ai.operation.name": operation}
        match kind:
            case "run" | "delegation":
                found["gen_ai.agent.name"] = name
            case "model":
                found |= {
                    "gen_ai.provider.name": _PROVIDER,
                    "gen_ai.request.model": name,
                    **self._server,
                }
            case "tool":
                found |= {"gen_ai.tool.name": name, "gen_ai.tool.type": "function"}
            case _:
                pass
        return found

    def _measure(self, kind: StepKind, span: "StepSpan", attributes: dict[str, Any]) -> None:
        labels = attributes | ({"error.type": span.error} if span.error else {})
        if kind in self._durations:
            self._durations[kind].record(time.perf_counter() - span.started, labels)
        if span.first is not None:
            self._first.record(span.first, labels)
        for word, tokens in span.tokens.items():
            self._tokens.record(tokens, attributes | {"gen_ai.token.type": word})


class StepSpan:
    """One span; `trace` is what the servers below it are sent."""

    def __init__(self, span: Span, headers: Mapping[str, str], record: bool) -> None:
        self.started = time.perf_counter()
        self.first: float | None = None
        self.error = ""
        self.tokens: dict[str, int] = {}
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier)
        self.trace: Mapping[str, str] = {**headers, **carrier}
        self._span = span
        self._record = record

    def asked(self, kind: StepKind, details: Json) -> None:
        """Take down what is asked, if contents may be."""
        if conversation := details.get("conversation"):
            self._span.set_attribute("gen_ai.conversation.id", conversation)
        if call := details.get("call"):
            self._span.set_attribute("gen_ai.tool.call.id", str(call))
        if not self._record:
            return
        if kind == "model":
            self._set_json("gen_ai.input.messages", details.get("messages"))
        elif "arguments" in details:
            self._set_json("gen_ai.tool.call.arguments", details["arguments"])

    def begun(self) -> None:
        """Take down that the first piece of an answer came."""
        if self.first is None:
            self.first = time.perf_counter() - self.started
            self._span.set_attribute("gen_ai.response.time_to_first_chunk", self.first)

    def result(self, result: Json) -> None:
        """Take down what came of it."""
        if result.get("is_error"):
            self.failed("tool_error")
        if finish := result.get("finish_reason"):
            self._span.set_attribute("gen_ai.response.finish_reasons", [str(finish)])
        usage = result.get("usage") or {}
        for word, name in (("input", "prompt_tokens"), ("output", "completion_tokens")):
            if (tokens := usage.get(name)) is not None:
                self.tokens[word] = tokens
                self._span.set_attribute(f"gen_ai.usage.{word}_tokens", tokens)
        if self._record and "message" in result:
            self._set_json("gen_ai.output.messages", [result["message"]])
        elif self._record and "content" in result:
            self._set_json("gen_ai.tool.call.result", result["content"])

    def failed(self, kind: str) -> None:
        """Take down that it failed, and by what."""
        self.error = kind
        self._span.set_attribute("error.type", kind)
        self._span.set_status(StatusCode.ERROR)

    def _set_json(self, name: str, value: Any) -> None:
        self._span.set_attribute(name, to_json(value, fallback=str).decode())
