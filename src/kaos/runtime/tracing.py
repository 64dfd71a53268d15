"""A span per reconcile, when OpenTelemetry is installed and asked for; nothing at all otherwise.

Guarantees: opentelemetry is imported only when an OTEL_ variable names an exporter.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

_Starter = Callable[[str, Mapping[str, str]], AbstractContextManager[Any]]


@cache
def _starter() -> _Starter | None:
    wanted = os.environ.get("OTEL_TRACES_EXPORTER", "")
    if wanted == "none" or not (wanted or "OTEL_EXPORTER_OTLP_ENDPOINT" in os.environ):
        return None
    try:
        from opentelemetry import trace  # noqa: PLC0415 - only when asked for
    except ImportError:
        return None
    tracer = trace.get_tracer("kaos.runtime")

    def start(name: str, attributes: Mapping[str, str]) -> AbstractContextManager[Any]:
        return tracer.start_as_current_span(name, attributes=dict(attributes))

    return start


def traced() -> bool:
    """Whether there are spans at all."""
    return _starter() is not None


def span(name: str, attributes: Callable[[], Mapping[str, str]]) -> AbstractContextManager[Any]:
    """A span around a block; its attributes are computed only when there is one."""
    start = _starter()
    return nullcontext() if start is None else start(name, attributes())
