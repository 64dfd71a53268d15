"""Where telemetry goes: each kind where it was told to, and nowhere else."""

from typing import Any

import pytest

from kaos.telemetry import tracing

metrics = pytest.importorskip("opentelemetry.metrics")
trace = pytest.importorskip("opentelemetry.trace")
pytest.importorskip("opentelemetry.sdk")

BOTH, TRACES, METRICS = (
    f"OTEL_EXPORTER_OTLP_{kind}ENDPOINT" for kind in ("", "TRACES_", "METRICS_")
)


@pytest.mark.parametrize(
    ("names", "sent"),
    [
        ({BOTH: "http://c"}, {"traces", "metrics"}),
        ({TRACES: "http://c"}, {"traces"}),
        ({METRICS: "http://c"}, {"metrics"}),
        ({BOTH: "http://c", "OTEL_METRICS_EXPORTER": "none"}, {"traces"}),
        ({BOTH: "http://c", "OTEL_TRACES_EXPORTER": "none"}, {"metrics"}),
        ({TRACES: "http://c", "OTEL_TRACES_EXPORTER": "none"}, set()),
        ({BOTH: "http://c", "OTEL_SDK_DISABLED": "true"}, set()),
    ],
)
def test_what_has_no_endpoint_is_not_sent_to_localhost(
    names: dict[str, str], sent: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Metrics went to localhost:4318 when traces alone had an endpoint: an error a minute."""
    for name in (BOTH, TRACES, METRICS):
        monkeypatch.delenv(name, raising=False)
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    found: set[str] = set()

    def taken(kind: str) -> Any:
        return lambda _provider: found.add(kind)

    monkeypatch.setattr(trace, "set_tracer_provider", taken("traces"))
    monkeypatch.setattr(metrics, "set_meter_provider", taken("metrics"))
    end = tracing.start("agent")
    assert (end is not None) == bool(sent) == tracing.wanted()
    assert found == sent
    if end is not None:
        end()
