"""How long a container waits before it is started again. Pure.

Guarantees the kubelet's series: the first restart is immediate, then `base`, 2·`base`, 4·`base` …
up to `longest`; a container that ran for `reset_after` starts from the beginning.
"""

from dataclasses import dataclass


@dataclass(slots=True)
class Backoff:
    """The series of one container."""

    base: float = 10.0
    longest: float = 300.0
    reset_after: float = 600.0
    _delay: float | None = None

    def after_run(self, seconds: float) -> float:
        """The wait after a run that lasted `seconds`."""
        if seconds >= self.reset_after:
            self._delay = None
        delay = self._delay
        self._delay = self.base if delay is None else min(delay * 2, self.longest)
        return 0.0 if delay is None else delay
