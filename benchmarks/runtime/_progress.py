"""What every Python peer tells the runner: a line of JSON at each mark, with memory and CPU so far.

Imported by peers in environments of their own: the standard library only.
"""

import argparse
import json
import os
import sys
import threading
import time
from pathlib import Path


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", required=True)
    parser.add_argument("--objects", type=int, required=True)
    parser.add_argument("--final", type=int, default=5, help="the round after which all is done")
    parser.add_argument("--workers", type=int, default=0, help="0: fill the cache, nothing more")
    parser.add_argument("--patch", action="store_true", help="write a status in each reconcile")
    threading.Thread(target=_end_with_the_runner, daemon=True).start()
    return parser.parse_args()


def _end_with_the_runner() -> None:
    os.read(0, 1)
    os._exit(1)


def resident_kib(pid: int | str = "self") -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise RuntimeError("no VmRSS")


class Progress:
    """Counts the objects that were reconciled, at all and in their last state."""

    def __init__(self, objects: int, final: int) -> None:
        self._objects = objects
        self._final = final
        self._first: set[object] = set()
        self._last: set[object] = set()
        self.reconciles = 0

    def mark(self, name: str) -> None:
        told = {
            "mark": name,
            "at": time.time(),
            "rss": resident_kib(),
            "cpu": time.process_time(),
            "reconciles": self.reconciles,
        }
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()

    def reconciled(self, key: object, number: int) -> None:
        self.reconciles += 1
        if len(self._first) < self._objects:
            self._first.add(key)
            if len(self._first) == self._objects:
                self.mark("ready")
        if number >= self._final and key not in self._last:
            self._last.add(key)
            if len(self._last) == self._objects:
                self.mark("converged")
