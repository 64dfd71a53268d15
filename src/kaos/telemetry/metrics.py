"""Metrics: one Prometheus registry a process, and its page.

Guarantees: names and labels are made here or by the room that owns the number, never from
what a caller sent (a path or a model's name from a request would be a new series each time).

Does not: start a server of its own; `page` is an ASGI endpoint for the server there is.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import Response

registry = CollectorRegistry(auto_describe=True)
ProcessCollector(registry=registry)
"""Where every metric of this process is registered."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)

_http_seconds = Histogram(
    "kaos_http_request_duration_seconds",
    "Time from a request's arrival to the end of its response.",
    ("method", "status"),
    buckets=_SECONDS,
    registry=registry,
)


def http_requests(method: str, status: int, seconds: float) -> None:
    """Count one request that ended."""
    known = method if method in _METHODS else "OTHER"
    _http_seconds.labels(known, str(status)).observe(seconds)


def counter(name: str, documentation: str, labels: tuple[str, ...] = ()) -> Counter:
    """Make a counter in the process's registry."""
    return Counter(name, documentation, labels, registry=registry)


def gauge(name: str, documentation: str, labels: tuple[str, ...] = ()) -> Gauge:
    """Make a gauge in the process's registry."""
    return Gauge(name, documentation, labels, registry=registry)


def histogram(name: str, documentation: str, labels: tuple[str, ...] = ()) -> Histogram:
    """Make a histogram of seconds in the process's registry."""
    return Histogram(name, documentation, labels, buckets=_SECONDS, registry=registry)


async def page(_request: Request) -> Response:
    """GET /metrics."""
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
