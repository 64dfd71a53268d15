"""What a cluster process that was killed has left behind: its pods' processes, and stale files.

Guaranteed: nothing is touched while a cluster process lives (the state folder's lock is held for
the length of the work).
"""

from kaos.local.node import orphans
from kaos.local.state import State


def clean(state: State) -> list[str]:
    """End orphaned processes and forget the dead cluster; returns who was ended.

    Raises:
        StateInUse: a cluster process lives.
    """
    with state.lock():
        ended = orphans.reap(state.node)
        state.forget_info()
    return [f"{orphan.owner} (process {orphan.pid})" for orphan in ended]
