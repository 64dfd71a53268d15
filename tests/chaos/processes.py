"""The processes of the chaos test: an API server, and replicas, that are killed or frozen.

Guarantees: nothing outlives its context; a replica that ends because it lost its lease is started
again, as a Deployment would; one that ends for any other reason is a failure, told with its log.
"""

import asyncio
import contextlib
import json
import shlex
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from kaos.runtime import ClusterConfig
from kaos.testing.faults import FaultProxy, Passed
from tests.chaos import replica

ROOT = Path(__file__).parents[2]
TOKEN = "chaos"
_TRIES = 5
_RESTARTED_WITHIN = 120.0


class Server(Protocol):
    """An API server that can be restarted hard."""

    config: ClusterConfig

    async def restart(self) -> None:
        """Kill it and start it again; returns when it is started, maybe not ready yet."""
        ...


@asynccontextmanager
async def embedded(folder: Path) -> AsyncIterator[Server]:
    """The embedded API server, its state on disk."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = _Embedded(port, folder / "state.db")
    await server.start()
    try:
        yield server
    finally:
        await server.kill()


class _Embedded:
    def __init__(self, port: int, database: Path) -> None:
        self.config = ClusterConfig.direct(f"http://127.0.0.1:{port}", TOKEN)
        self._arguments = [str(port), str(database), TOKEN]
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.chaos.server", *self._arguments), cwd=ROOT
        )

    async def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            await self._process.wait()

    async def restart(self) -> None:
        await self.kill()
        await asyncio.sleep(0.5)
        await self.start()


class Cluster:
    """A cluster of somebody else's, restarted by a command (or not at all)."""

    def __init__(self, config: ClusterConfig, command: str) -> None:
        self.config = config
        self._command = shlex.split(command)

    async def restart(self) -> None:
        """See `Server`."""
        if not self._command:
            return
        for _ in range(_TRIES):
            process = await asyncio.create_subprocess_exec(
                *self._command, stdout=asyncio.subprocess.DEVNULL
            )
            if await asyncio.wait_for(process.wait(), _RESTARTED_WITHIN) == 0:
                return
            await asyncio.sleep(2)  # its port may still be taken
        raise RuntimeError(f"{shlex.join(self._command)} failed {_TRIES} times")


def _begun(passed: Passed) -> float:
    return float(passed.asked.query.get(replica.BEGUN, 0))


@dataclass
class Replica:
    """One place for a replica: there is a process in it at almost all times."""

    number: int
    proxy: FaultProxy
    namespace: str
    folder: Path
    started: int = 0
    lost: int = 0
    failures: list[str] = field(default_factory=list)
    reports: list[dict[str, Any]] = field(default_factory=list)
    process: asyncio.subprocess.Process | None = None
    stopping: bool = False

    @property
    def identity(self) -> str:
        """Who the process in this place is, in the lease."""
        return f"replica-{self.number}-{self.started}"

    @property
    def cached(self) -> dict[str, Any]:
        """What the process in this place last said of its cache; nothing when it is too young."""
        now = self.folder / f"{self.identity}.now"
        return json.loads(now.read_text()) if now.exists() else {"pending": 0, "versions": {}}

    async def keep(self) -> None:
        """Run a process here, and start it again when it ends, until `stopping`."""
        while not self.stopping:
            self.started += 1
            report = self.folder / f"{self.identity}.json"
            log = self.folder / f"{self.identity}.log"
            settings = {
                "server": self.proxy.config.server,
                "token": await self.proxy.config.credentials.token(),
                "namespace": self.namespace,
                "identity": self.identity,
            }
            with log.open("wb") as output:
                self.process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "tests.chaos.replica", json.dumps(settings), report),
                    cwd=ROOT,
                    stdout=output,
                    stderr=output,
                )
            try:
                status = await self.process.wait()
            finally:
                if self.process.returncode is None:
                    self.process.kill()
                    await self.process.wait()
            if report.exists():
                self.reports.append(json.loads(report.read_text()))
            if status == replica.LOST:
                self.lost += 1
            elif status not in (0, -signal.SIGKILL):
                tail = log.read_text().splitlines()[-30:]
                self.failures.append(f"{self.identity} ended with {status}:\n" + "\n".join(tail))

    def kill(self) -> None:
        """As the kernel does when memory is short."""
        assert self.process is not None
        self.process.kill()

    async def freeze(self, seconds: float) -> list[Passed] | None:
        """Stop the process for so long; returns the writes that it began after it woke up.

        None when there was nothing to freeze: the process was about to end anyway.
        """
        process = self.process
        try:
            assert process is not None
            process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(seconds)
            woke = time.monotonic()
            process.send_signal(signal.SIGCONT)
        except ProcessLookupError:
            await asyncio.sleep(1)
            return None
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), 15)
        # Where nobody else had taken the lease, it leads again, from its next renewal on.
        renewals = [_begun(p) for p in self._since(woke) if p.asked.resource == "leases"]
        until = min([time.monotonic(), *renewals])
        return [
            passed
            for passed in self._since(woke)
            if passed.asked.resource != "leases" and _begun(passed) < until
        ]

    def _since(self, moment: float) -> list[Passed]:
        """The writes that were begun at or after a moment."""
        return [passed for passed in self.proxy.requests if _begun(passed) >= moment]

    async def end(self) -> None:
        """Ask the process to stop in order."""
        self.stopping = True
        process = self.process
        if process is not None and process.returncode is None:
            process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), 60)
