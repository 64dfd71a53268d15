"""OpenTelemetry, for who wants it: loaded only if `OTEL_*` names somewhere to send to.

Guarantees: without such a variable nothing is imported, and a process pays nothing; with one,
spans and metrics go out by OTLP over HTTP, in batches from a thread, and what is left goes out
at the end; a missing extra is said in the log once and stops nothing. Each of the two goes where
it was told to: who named an endpoint for one has no default for the other (the SDK's is localhost,
where nobody is in a pod), and `OTEL_TRACES_EXPORTER` or `OTEL_METRICS_EXPORTER` is `none` for none.

Does not: gRPC (`OTEL_EXPORTER_OTLP_PROTOCOL=grpc` is said in the log; a collector takes both), or
instrument libraries. Spans are made where the work is (`kaos.agent.spans`).
"""

import importlib.util
import os
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from kaos import __version__

log = structlog.get_logger(__name__)

_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


def wanted(env: Mapping[str, str] = os.environ) -> bool:
    """Tell whether the environment asks for telemetry."""
    return _sent("TRACES", env) or _sent("METRICS", env)


def _sent(signal: str, env: Mapping[str, str] = os.environ) -> bool:
    if env.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if env.get(f"OTEL_{signal}_EXPORTER", "").strip().lower() == "none":
        return False
    return bool(env.get(_ENDPOINT) or env.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"))


def start(service: str) -> Callable[[], None] | None:
    """Set OpenTelemetry up for this process.

    Args:
        service: The service's name, unless `OTEL_SERVICE_NAME` says otherwise.

    Returns:
        Sends what is left and ends it (this blocks); None if there is no telemetry.
    """
    if not wanted():
        return None
    if importlib.util.find_spec("opentelemetry.sdk") is None:
        log.warning("OTEL_* is set, but OpenTelemetry is not installed: pip install 'kaos[otel]'")
        return None
    if os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf") != "http/protobuf":
        log.warning("telemetry goes out by OTLP over HTTP; another protocol is not supported")
    return _start(service)


def _start(service: str) -> Callable[[], None]:
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - 100 ms, 15 MB: most need none

    name = os.environ.get("OTEL_SERVICE_NAME") or service
    resource = Resource.create({"service.name": name, "service.version": __version__})
    ends = [
        begin(resource)
        for signal, begin in (("TRACES", _traces), ("METRICS", _metrics))
        if _sent(signal)
    ]
    log.info("telemetry is sent", service=name)

    def end() -> None:
        for shutdown in ends:
            shutdown()

    return end


def _traces(resource: Any) -> Callable[[], None]:
    from opentelemetry import trace  # noqa: PLC0415 - as above
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
        OTLPSpanExporter,
    )
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return provider.shutdown


def _metrics(resource: Any) -> Callable[[], None]:
    from opentelemetry import metrics  # noqa: PLC0415 - as above
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import (  # noqa: PLC0415
        OTLPMetricExporter,
    )
    from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader  # noqa: PLC0415

    reader = PeriodicExportingMetricReader(OTLPMetricExporter())
    provider = MeterProvider(resource=resource, metric_readers=[reader])
    metrics.set_meter_provider(provider)
    return provider.shutdown
