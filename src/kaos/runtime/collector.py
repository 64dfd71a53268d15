"""The garbage collector during the first list, and after it.

Guarantees: while the caches fill, the cyclic collector runs rarely (it is half of the time of a
first list, and finds nothing: cached objects hold no cycles); afterwards what was loaded is taken
out of its sight, so that later collections look only at what is new. The settings from before are
put back in any case.
Does not: suit a process that is not a controller's alone, since the collector is the process's:
it is off by default in `Manager`, and on in `run`.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_RARELY = (50_000, 20, 100)


@contextmanager
def filling() -> Iterator[None]:
    """Around the time in which much is loaded that stays."""
    before = gc.get_threshold()
    gc.set_threshold(*_RARELY)
    try:
        yield
    finally:
        gc.set_threshold(*before)
    # Garbage that is frozen is never found again: look for it first.
    gc.collect()
    gc.freeze()
