"""OpenTelemetry, for who wants it: loaded only if `OTEL_*` names somewhere to send to.

Guarantees: without such a variable nothing is imported, and a process pays nothing; with one,
spans and metrics go out by OTLP over HTTP, in batches from a thread, and what is left goes out
at the end; a missing extra is said in the log once and stops nothing.

Does not: gRPC (`OTEL_EXPORTER_OTLP_PROTOCOL=grpc` is said in the log; a collector takes both), or
instrument libraries. Spans are made where the work is (`kaos.agent.spans`).
"""

import importlib.util
import os
from collections.abc import Callable, Mapping

import structlog

from kaos import __version__

log = structlog.get_logger(__name__)

_ENDPOINTS = (
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
)


def wanted(env: Mapping[str, str] = os.environ) -> bool:
    """Tell whether the environment asks for telemetry."""
    off = env.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    return not off and any(env.get(name) for name in _ENDPOINTS)


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
    from opentelemetry import metrics, trace  # noqa: PLC0415 - 100 ms and 15 MB that most do not need
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import (  # noqa: PLC0415
        OTLPMetricExporter,
    )
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
        OTLPSpanExporter,
    )
    from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader  # noqa: PLC0415
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    name = os.environ.get("OTEL_SERVICE_NAME") or service
    resource = Resource.create({"service.name": name, "service.version": __version__})
    tracer_provider = TracerProvider(resource=resource)
    tracer_provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(tracer_provider)
    meter_provider = MeterProvider(
        resource=resource, metric_readers=[PeriodicExportingMetricReader(OTLPMetricExporter())]
    )
    metrics.set_meter_provider(meter_provider)
    log.info("telemetry is sent", service=name)

    def end() -> None:
        tracer_provider.shutdown()
        meter_provider.shutdown()

    return end
