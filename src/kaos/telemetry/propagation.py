"""Trace context, passed on as it came.

Guarantees: W3C `traceparent`, `tracestate` and `baggage` of a request reach the servers called
on its behalf, also from a stream that runs long after the request's handler returned (an
earlier agent lost them there): they travel as a value, not in a context variable.

Does not: make spans. A process that does will put its own `traceparent` in this value.
"""

from collections.abc import Mapping

TRACE_HEADERS = ("traceparent", "tracestate", "baggage")
_LONGEST = 8192  # the W3C limit for baggage


def trace_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Pick the trace headers out of a request's headers; an oversized one is left behind."""
    return {
        name: value
        for name in TRACE_HEADERS
        if (value := headers.get(name)) and len(value) <= _LONGEST
    }
