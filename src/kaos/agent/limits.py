"""How much at once, and for how long.

Guarantees: beyond `KAOS_MAX_CONCURRENT` runs a request is refused at once with 429 and
Retry-After, instead of everybody becoming slow; a caller's `x-request-timeout` (seconds) shortens
the agent's own deadline and never lengthens it.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from kaos.agent.errors import BadRequest, RateLimited
from kaos.telemetry import metrics

TIMEOUT_HEADER = "x-request-timeout"
RETRY_AFTER = 1.0

_running = metrics.gauge("kaos_agent_runs", "Runs under way.")


class Slots:
    """Room for so many runs at once.

    Args:
        limit: How many; 0 is any number.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._inside = 0

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Take a slot for as long as a run lasts.

        Raises:
            RateLimited: There is none.
        """
        if self._limit and self._inside >= self._limit:
            raise RateLimited(
                f"the agent is busy with {self._inside} requests, and no more are let in",
                code="overloaded",
                retry_after=RETRY_AFTER,
            )
        self._inside += 1
        _running.inc()
        try:
            yield
        finally:
            self._inside -= 1
            _running.dec()


def time_limit(headers: Mapping[str, str], own: float) -> float:
    """Return the seconds a request may take.

    Raises:
        BadRequest: The caller's number is none.
    """
    text = headers.get(TIMEOUT_HEADER)
    if text is None:
        return own
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        raise BadRequest(
            f"{TIMEOUT_HEADER} must be a number of seconds above 0", param=TIMEOUT_HEADER
        )
    return min(own, seconds)
