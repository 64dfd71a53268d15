"""The cluster process (`python -m kaos.local`) as the terminal sees it: start, watch, stop.

Guaranteed: a process started as attached ends when this one does, whatever kills it: it holds the
read end of a pipe whose write end lives here, and end-of-file tells it. It runs in a session of its
own, so that Ctrl-C reaches the terminal's program only, which then stops it in order.

Why not asyncio's subprocesses: their transport kills the child when it is collected, which is wrong
for a detached cluster.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import IO

from kaos.cli.errors import FAILED, CliError
from kaos.local.state import ClusterInfo, State

START_DEADLINE = 30.0
STOP_DEADLINE = 45.0  # above the 30 s that pods have to end
_PAUSE = 0.02


class Outrun(CliError):  # noqa: N818 (an answer, not an accident)
    """Another program has started a cluster on the same folder in the same moment."""


class ClusterProcess:
    """A cluster process that this program has started."""

    def __init__(
        self, state: State, process: subprocess.Popen[bytes], errors: IO[bytes], lifeline: int
    ) -> None:
        """Keep what `start` made."""
        self.state = state
        self._process = process
        self.started = time.monotonic()
        self._errors = errors
        self._lifeline = lifeline

    @classmethod
    def start(
        cls, state: State, *, port: int, overrides: Mapping[str, str], attached: bool
    ) -> "ClusterProcess":
        """Start it; it is not ready yet."""
        state.prepare()
        command = [sys.executable, "-m", "kaos.local", "--state", str(state.folder)]
        command += ["--gateway-port", str(port)]
        for original, replacement in overrides.items():
            command += ["--model-override", f"{original}={replacement}"]
        # The child's last words before it has a log file; unlinked, so it costs nothing to keep.
        errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed in `close`)
        theirs, ours = os.pipe() if attached else (-1, -1)
        if attached:
            command += ["--lifeline", str(theirs)]
        try:
            process = subprocess.Popen(  # noqa: S603 (our own module)
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                pass_fds=[theirs] if attached else [],
                start_new_session=True,
            )
        finally:
            if attached:
                os.close(theirs)
        return cls(state, process, errors, ours)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def ready(self, deadline: float = START_DEADLINE) -> ClusterInfo:
        """Wait until the control plane answers.

        Raises:
            Outrun: it ended because the folder was taken when it came to own it.
            CliError: it ended before, or took too long.
        """
        end = time.monotonic() + deadline
        while time.monotonic() < end:
            if self._process.poll() is not None:
                outrun = self._process.returncode == FAILED and self.state.owner() is not None
                raise (Outrun if outrun else CliError)(self._last_words())
            info = self.state.read_info()
            if info is not None and info.pid == self.pid:
                return info
            await asyncio.sleep(_PAUSE)
        raise CliError(
            f"the cluster did not come up within {deadline:.0f} s: see {self.state.cluster_log}"
        )

    async def ended(self) -> int:
        """Wait until it has ended, for as long as that takes; returns the exit code."""
        while (code := self._process.poll()) is None:  # noqa: ASYNC110 (no event tells of it)
            await asyncio.sleep(0.1)
        return code

    async def stop(self, deadline: float = STOP_DEADLINE) -> bool:
        """Stop it in order; kill it when that takes too long. Returns whether it ended in order."""
        if self._process.poll() is None:
            self.terminate()
            try:
                async with asyncio.timeout(deadline):
                    await self.ended()
            except TimeoutError:
                self.kill()
        return self._process.returncode >= 0

    def terminate(self) -> None:
        """Ask it to stop in order, and do not wait."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it at once. Its pods are left to `kaos.cli.leftovers`."""
        self._signal(signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)

    def close(self) -> None:
        """Let go of it; an attached one stops now, a detached one goes on."""
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1
        self._errors.close()
        if self._process.returncode is None:
            self._process.returncode = 0  # detached on purpose: no warning about a live child

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        code = self._process.returncode
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        if not lines:
            return f"the cluster process {how}: see {self.state.cluster_log}"
        return lines[-1].removeprefix("kaos: ")
