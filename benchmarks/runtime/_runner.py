"""One run of one scenario with one peer: server on one core, peer on the other, both new.

Times are wall-clock times of this machine, taken by the server and by the peer.
"""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _progress import resident_kib

HERE = Path(__file__).parent
_CLIENT_CORE, _SERVER_CORE = 0, 1
_SETTLE = 1.0


@dataclass(frozen=True)
class Peer:
    """A comparator.

    Attributes:
        name: As in the table.
        command: How to start it.
        shares: The scenarios it takes part in, and what part of the full size it is given there.
    """

    name: str
    command: tuple[str, ...]
    shares: Mapping[str, float]


@dataclass(frozen=True)
class Scenario:
    """What to run.

    Attributes:
        name: As in the table.
        kind: sync, storm, converge or latency.
        objects: How many there are.
        workers: How many reconcile; 0 for the cache alone.
        unit: What the figure is.
    """

    name: str
    kind: str
    objects: int
    workers: int
    unit: str


class FailedError(Exception):
    """A run came to nothing."""


class Process:
    """A child that tells lines on its standard output, and ends when it is told to or we end."""

    def __init__(self, command: tuple[str, ...], core: int, env: dict[str, str]) -> None:
        cores = os.sched_getaffinity(0)
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._errors: list[str] = []
        # A child inherits where its parent may run.
        os.sched_setaffinity(0, {sorted(cores)[min(core, len(cores) - 1)]})
        try:
            self.child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=HERE,
                env=env,
            )
        finally:
            os.sched_setaffinity(0, cores)
        for read in (self._read_output, self._read_errors):
            threading.Thread(target=read, daemon=True).start()

    def _read_output(self) -> None:
        assert self.child.stdout is not None
        for line in self.child.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def _read_errors(self) -> None:
        assert self.child.stderr is not None
        for line in self.child.stderr:
            self._errors = [*self._errors[-20:], line]

    def line(self, deadline: float) -> str:
        try:
            line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise FailedError("it took too long") from None
        if line is None:
            raise FailedError("it ended: " + "".join(self._errors[-8:]).strip())
        return line

    def mark(self, name: str, deadline: float) -> dict[str, Any]:
        while True:
            line = self.line(deadline)
            if line.startswith('{"') and (told := json.loads(line)).get("mark") == name:
                return dict(told)

    def cpu(self) -> float:
        fields = Path(f"/proc/{self.child.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        self.child.send_signal(signal.SIGKILL)
        self.child.wait()


@contextlib.contextmanager
def _process(command: tuple[str, ...], core: int) -> Iterator[Process]:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("KUBE", "GOMAXPROCS"))}
    paths = [str(HERE), *filter(None, [env.get("PYTHONPATH")])]
    process = Process(command, core, env | {"PYTHONPATH": os.pathsep.join(paths)})
    try:
        yield process
    finally:
        process.end()


def run(
    scenario: Scenario, peer: Peer, server_python: str, timeout: float = 300.0
) -> dict[str, float]:
    """The figures of one run.

    Returns:
        `figure` in the scenario's unit, of how many `objects`; and, where they apply, `cpu_us` (of
        the peer, per object or update), `server` (the server's share of its core), `kib` (resident,
        per object), `reconciles`, `p50` and `p99` in milliseconds.
    """
    deadline = time.monotonic() + timeout
    objects = round(scenario.objects * peer.shares[scenario.name])
    server_command = (server_python, str(HERE / "_server.py"), str(objects))
    with _process(server_command, _SERVER_CORE) as server:
        url = server.line(deadline).strip()
        args = ["-server", url, "-objects", str(objects), "-workers", str(scenario.workers)]
        if scenario.kind in ("converge", "latency"):
            args.append("-patch")
        dashes = [f"-{a}" if a.startswith("-") else a for a in args]
        with _process((*peer.command, *dashes), _CLIENT_CORE) as process:
            measure = {
                "sync": _sync,
                "storm": _storm,
                "converge": _converge,
                "latency": _latency,
            }[scenario.kind]
            return measure(process, url, objects, deadline) | {"objects": objects}


def _sync(process: Process, url: str, objects: int, deadline: float) -> dict[str, float]:
    started = process.mark("started", deadline)
    synced = process.mark("synced", deadline)
    took = synced["at"] - _ask(url, "report")["first_list"]
    time.sleep(_SETTLE)
    return {
        "figure": objects / took,
        "cpu_us": (synced["cpu"] - started["cpu"]) / objects * 1e6,
        "kib": (resident_kib(process.child.pid) - started["rss"]) / objects,
    }


def _storm(process: Process, url: str, objects: int, deadline: float) -> dict[str, float]:
    ready = process.mark("ready", deadline)
    time.sleep(_SETTLE)
    before = _ask(url, "storm")
    converged = process.mark("converged", deadline)
    report = _ask(url, "report")
    took, updates = converged["at"] - report["storm"], objects * 5
    return {
        "figure": updates / took,
        "cpu_us": (converged["cpu"] - ready["cpu"]) / updates * 1e6,
        "server": (report["cpu"] - before["cpu"]) / took,
        "reconciles": (converged["reconciles"] - ready["reconciles"]) / took,
    }


def _converge(process: Process, url: str, objects: int, deadline: float) -> dict[str, float]:
    process.mark("ready", deadline)
    time.sleep(_SETTLE)
    cpu, before = process.cpu(), _ask(url, "storm")
    report = _until(process, url, "all_final", deadline)
    took, updates = report["all_final"] - report["storm"], objects * 5
    return {
        "figure": updates / took,
        "cpu_us": (process.cpu() - cpu) / updates * 1e6,
        "server": (report["cpu"] - before["cpu"]) / took,
        "reconciles": (report["patches"] - before["patches"]) / took,
    }


def _latency(process: Process, url: str, _: int, deadline: float) -> dict[str, float]:
    _ask(url, "edits")
    _until(process, url, "all_patched", deadline)
    report = _ask(url, "report")
    while report["editing"] or report["edits_waiting"]:
        if time.monotonic() > deadline:
            raise FailedError("edits were never seen")
        time.sleep(0.05)
        report = _ask(url, "report")
    waits = sorted(1000 * seconds for seconds in report["latencies"])
    p50, p99 = waits[len(waits) // 2], waits[int(len(waits) * 0.99)]
    return {"figure": p99, "p50": p50, "p99": p99, "edits": len(waits)}


def _until(process: Process, url: str, event: str, deadline: float) -> dict[str, Any]:
    while True:
        report = _ask(url, "report")
        if event in report:
            return report
        if process.child.poll() is not None:
            process.line(time.monotonic() + 1)
            raise FailedError("it ended")
        if time.monotonic() > deadline:
            raise FailedError("it took too long")
        time.sleep(0.02)


def _ask(url: str, what: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}/bench/{what}", timeout=30) as response:
        return dict(json.load(response))


if __name__ == "__main__":
    sys.exit("this is no benchmark: run compare.py")
