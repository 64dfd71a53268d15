"""One operating-system process of a container: start, watch, signal, end.

Guarantees: a process gets a session and a process group of its own, a closed stdin, no shell, and
exactly the environment it is given. Leaving `running` leaves nothing of the group alive, whatever
the reason (return, error, cancellation). The exit is seen at once, even when a grandchild still
holds the output pipes: waiting for the pipes first is how a node misses the death of a server
whose helper lives on.

Does not: decide about restarts (`containers`), keep a record for the next cluster process
(`orphans`), or follow a descendant that made a session of its own.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio

Output = Callable[[str, bytes], None]
"""Receives ("stdout" | "stderr", bytes) as the process writes them."""

_DRAIN_SECONDS = (
    1.0  # output still in the pipes after the exit; a detached descendant may hold them
)
_REAP_SECONDS = 10.0  # SIGKILL cannot be refused: longer means an uninterruptible kernel call
_NICER = 5


class StartError(Exception):
    """The program could not be started; the message names it and says why."""


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended, in the terms of a container runtime."""

    code: int
    """Exit code; 128 + n when signal n ended it."""
    signal: int = 0

    @classmethod
    def of(cls, returncode: int) -> "Exit":
        """Translate a return code of `subprocess`, where -n stands for signal n."""
        if returncode < 0:
            return cls(code=128 - returncode, signal=-returncode)
        return cls(code=returncode)


class _Protocol(asyncio.SubprocessProtocol):
    def __init__(self, output: Output) -> None:
        loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[None] = loop.create_future()
        self.drained: asyncio.Future[None] = loop.create_future()
        self._output = output

    def pipe_data_received(self, fd: int, data: bytes | str) -> None:
        assert isinstance(data, bytes)  # noqa: S101 - the transport's type is wider than its use
        self._output("stdout" if fd == 1 else "stderr", data)

    def process_exited(self) -> None:
        if not self.exited.done():
            self.exited.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        # After the exit and the end of both pipes. process_exited comes first, always.
        if not self.drained.done():
            self.drained.set_result(None)


class Process:
    """A running process; made by `running` only."""

    def __init__(self, transport: asyncio.SubprocessTransport, protocol: _Protocol) -> None:
        self._transport = transport
        self._protocol = protocol
        self.pid: int = transport.get_pid()

    @property
    def exited(self) -> bool:
        """Whether the process has ended (its pipes may still be open)."""
        return self._protocol.exited.done()

    async def wait(self) -> Exit:
        """Wait for the exit. No deadline: a server runs for as long as it is wanted."""
        # Shielded: a cancelled waiter must not cancel the future that the others wait for.
        await asyncio.shield(self._protocol.exited)
        returncode = self._transport.get_returncode()
        return Exit.of(returncode if returncode is not None else 255)

    def signal(self, number: int) -> None:
        """Send a signal to the whole process group; nothing happens when it is gone."""
        # macOS answers EPERM for a group of which only a zombie is left.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    async def stop(self, grace: float) -> Exit:
        """End the group: SIGTERM, and SIGKILL after `grace` seconds."""
        if not self.exited and grace > 0:
            self.signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                return await asyncio.wait_for(self.wait(), grace)
        self.signal(signal.SIGKILL)
        return await asyncio.wait_for(self.wait(), _REAP_SECONDS)

    async def _end(self) -> None:
        # The first process is the container: when it is gone, what it left in its group goes too.
        self.signal(signal.SIGKILL)
        try:
            await asyncio.wait([self._protocol.exited], timeout=_REAP_SECONDS)
            await asyncio.wait([self._protocol.drained], timeout=_DRAIN_SECONDS)
        finally:
            self._transport.close()  # also when a second cancellation comes: its pipes are ours


@contextlib.asynccontextmanager
async def running(
    argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, output: Output
) -> AsyncIterator[Process]:
    """Run a program for the length of the block.

    Args:
        argv: Program and arguments; a program without a slash is searched on `env["PATH"]`.
        env: The whole environment.
        cwd: Working directory; must exist.
        output: Called with every piece of output, on the event loop: it must not block.

    Raises:
        StartError: The program does not exist, may not be executed, or cannot be started.
    """
    loop = asyncio.get_running_loop()
    try:
        transport, protocol = await loop.subprocess_exec(
            lambda: _Protocol(output),
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=dict(env),
            cwd=cwd,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise StartError(f'exec: "{argv[0]}": program not found') from error
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in an argument
        raise StartError(f'exec: "{argv[0]}": {error}') from error
    process = Process(transport, protocol)
    _lower_priority(transport.get_pid())
    try:
        yield process
    finally:
        # The kill is bounded, and must be finished also when the caller's scope is cancelled.
        with anyio.CancelScope(shield=True):
            await process._end()  # noqa: SLF001 - the two halves of one subject


def _lower_priority(pid: int) -> None:
    """Let the cluster go before its pods, as a kubelet reserves a share for the system.

    Without it, five interpreters that start at once kept a new Deployment from getting its Pod
    for a quarter of a second on two cores.
    """
    with contextlib.suppress(OSError):  # it has ended already
        os.setpriority(os.PRIO_PROCESS, pid, os.getpriority(os.PRIO_PROCESS, 0) + _NICER)
