"""A proxy that misbehaves on purpose, between any client and any API server."""

from kaos.testing.faults.proxy import FaultProxy, Passed
from kaos.testing.faults.rules import (
    GONE,
    INTERNAL_ERROR,
    NO_STREAMING_LISTS,
    TOO_LARGE_VERSION,
    TOO_MANY_REQUESTS,
    UNAVAILABLE,
    Asked,
    Blackhole,
    Close,
    Delay,
    EndWatch,
    ErrorEvent,
    Fault,
    Refuse,
    Rule,
    Stale,
    Verb,
)

__all__ = [
    "GONE",
    "INTERNAL_ERROR",
    "NO_STREAMING_LISTS",
    "TOO_LARGE_VERSION",
    "TOO_MANY_REQUESTS",
    "UNAVAILABLE",
    "Asked",
    "Blackhole",
    "Close",
    "Delay",
    "EndWatch",
    "ErrorEvent",
    "Fault",
    "FaultProxy",
    "Passed",
    "Refuse",
    "Rule",
    "Stale",
    "Verb",
]
