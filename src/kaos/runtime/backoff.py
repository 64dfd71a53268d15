"""How long a failed item waits: doubling per item, and optionally a bucket over all items.

Guarantees: the first failure of an item waits `first` seconds, each further one twice as long, up
to `last`. With a `rate`, no more than that many retries a second begin over time, whichever items
they are of, beyond a burst: an outage that fails everything at once is not answered by everything
at once.
Does not: delay what changed. Only retries wait; a bucket over changes would starve an edit behind
a storm (controller-runtime gave its up for that).
"""

import asyncio
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Settings for the retries of a controller.

    Attributes:
        first: Seconds before the first retry of an item.
        last: Seconds it grows to.
        rate: Retries per second over all items; None for no such limit.
        burst: How many may come at once before `rate` counts.
    """

    first: float = 0.005
    last: float = 1000.0
    rate: float | None = None
    burst: int = 100

    def __post_init__(self) -> None:
        if not 0 < self.first <= self.last:
            raise ValueError("backoff: 0 < first <= last is needed")
        if self.burst < 1 or (self.rate is not None and self.rate <= 0):
            raise ValueError("backoff: rate and burst must be positive")

    def delay(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row before this one."""
        return min(self.first * 2.0 ** min(failures, 60), self.last)


class Bucket:
    """Tokens that come back at a rate; who finds none is told how long to wait for the next."""

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = float(burst)
        self._at = float("-inf")

    def take(self) -> float:
        """Take a token; returns the seconds until it is there, 0 when it is."""
        now = asyncio.get_running_loop().time()
        if self._at > float("-inf"):
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        self._tokens -= 1
        return max(0.0, -self._tokens / self._rate)
