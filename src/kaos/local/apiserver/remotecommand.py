"""exec: a command in a container, its streams as channels of a WebSocket.

Guarantees: the channel protocols v5 and v4 (the first byte of a message is its channel); the
exit code reaches the client as the last word on the error channel; a client that leaves
takes its command with it; a client that does not read stops the command from writing.

Does not: make a terminal. A node that can gives a command whose ``stdout`` is one, and
``resize``. Whether there is exec at all is the node's choice: see ``ExecProxy``.
"""

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol, runtime_checkable

from starlette.websockets import WebSocket

from kaos.local.apiserver.forward_target import words
from kaos.local.apiserver.portforward import binary_messages, close, send
from kaos.local.apiserver.spdy_headers import ProtocolError

V5: Final = "v5.channel.k8s.io"
V4: Final = "v4.channel.k8s.io"
STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255

_READ: Final = 1 << 15
_QUIET_SECONDS: Final = 1.0
_NORMAL, _UNSUPPORTED = 1000, 1003


class RunningCommand(Protocol):
    """A command that runs; an ``asyncio.subprocess.Process`` is one."""

    @property
    def stdin(self) -> asyncio.StreamWriter | None:
        """Where its input goes; None when it has none."""
        ...

    @property
    def stdout(self) -> asyncio.StreamReader | None:
        """What it writes."""
        ...

    @property
    def stderr(self) -> asyncio.StreamReader | None:
        """What it writes as errors; None with a terminal."""
        ...

    async def wait(self) -> int:
        """Its exit code, once it has ended; negative: the signal that ended it."""
        ...

    def kill(self) -> None:
        """End it now."""
        ...


@runtime_checkable
class ExecProxy(Protocol):
    """A node that can run commands in containers; one without this method cannot.

    A command may also have ``resize(width, height)``, called when its terminal changes.
    """

    async def exec(
        self,
        namespace: str,
        pod: str,
        container: str,
        command: Sequence[str],
        *,
        stdin: bool,
        tty: bool,
    ) -> RunningCommand:
        """Start a command in a running container.

        Raises:
            LookupError: There is no such running container, or no terminal to be had;
                the message is shown to the user.
            OSError: The command cannot be started.
        """
        ...


Start = Callable[[], Any]


async def serve(websocket: WebSocket, start: Start) -> None:
    """Accept the WebSocket, start the command, and carry its streams until it ends.

    Args:
        websocket: Not accepted yet.
        start: Starts the command (``ExecProxy.exec`` with its arguments).
    """
    offered = websocket.scope.get("subprotocols", [])
    await websocket.accept(next((p for p in (V5, V4) if p in offered), None))
    try:
        command: RunningCommand = await start()
    except (LookupError, OSError) as error:
        await _say(websocket, _failure("InternalError", words(error)))
        await close(websocket, _NORMAL)
        return
    try:
        code = await _carry(websocket, command)
    finally:
        with contextlib.suppress(ProcessLookupError):
            command.kill()
        await asyncio.shield(command.wait())
    await close(websocket, code)


async def _carry(websocket: WebSocket, command: RunningCommand) -> int:
    await send(websocket, bytes([STDOUT]))  # tells the client that it stands
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(_outputs(websocket, command))
        reading = tasks.create_task(_inputs(websocket, command))
        await asyncio.wait((running, reading), return_when=asyncio.FIRST_COMPLETED)
        running.cancel()
        reading.cancel()
    return (
        _UNSUPPORTED if reading.done() and not reading.cancelled() and reading.result() else _NORMAL
    )


async def _outputs(websocket: WebSocket, command: RunningCommand) -> None:
    """Send what the command writes, then how it ended."""
    moved = sending = 0

    async def copy(channel: int, reader: asyncio.StreamReader | None) -> None:
        nonlocal moved, sending
        with contextlib.suppress(OSError):  # a terminal ends with an error, not with nothing
            while reader is not None and (data := await reader.read(_READ)):
                moved, sending = moved + len(data), sending + 1
                await send(websocket, bytes([channel]) + data)
                sending -= 1

    async with asyncio.TaskGroup() as tasks:
        copies = [
            tasks.create_task(copy(STDOUT, command.stdout)),
            tasks.create_task(copy(STDERR, command.stderr)),
        ]
        code = await command.wait()
        # All of its output is wanted, but a child that it left behind may keep that open
        # for ever: enough when nothing has come for a while and nothing is on its way.
        pending, before = set(copies), -1
        while pending and (moved > before or sending):
            before = moved
            _, pending = await asyncio.wait(pending, timeout=_QUIET_SECONDS)
        for task in pending:
            task.cancel()
    await _say(websocket, _ended(code))


async def _inputs(websocket: WebSocket, command: RunningCommand) -> bool:
    """Pass on what the client sends; True when it broke the protocol."""
    try:
        async for message in binary_messages(websocket):
            channel, data = (message[0], message[1:]) if message else (CLOSE, b"")
            if channel == STDIN and command.stdin is not None:
                with contextlib.suppress(ConnectionError):
                    command.stdin.write(data)
                    await command.stdin.drain()
            elif channel == CLOSE and data[:1] == bytes([STDIN]) and command.stdin is not None:
                command.stdin.close()
            elif channel == RESIZE:
                _resize(command, data)
    except ProtocolError:
        return True
    return False


def _resize(command: RunningCommand, data: bytes) -> None:
    resize = getattr(command, "resize", None)
    with contextlib.suppress(ValueError, TypeError, AttributeError):
        size: Mapping[str, Any] = json.loads(data)
        if resize is not None:
            resize(int(size.get("Width", 0)), int(size.get("Height", 0)))


async def _say(websocket: WebSocket, status: dict[str, Any]) -> None:
    await send(websocket, bytes([ERROR]) + json.dumps(status).encode())


def _ended(code: int) -> dict[str, Any]:
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    code = 128 - code if code < 0 else code  # as a shell tells a signal
    message = f"command terminated with non-zero exit code: exit status {code}"
    causes = {"causes": [{"reason": "ExitCode", "message": str(code)}]}
    return {**_failure("NonZeroExitCode", message), "details": causes}


def _failure(reason: str, message: str) -> dict[str, Any]:
    return {"metadata": {}, "status": "Failure", "reason": reason, "message": message}
