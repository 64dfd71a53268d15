"""exec over an in-memory WebSocket: channels, exit codes, who ends whom."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.websockets import WebSocket

from kaos.local.apiserver import remotecommand
from kaos.local.apiserver.remotecommand import CLOSE, ERROR, RESIZE, STDERR, STDIN, STDOUT


class Input:
    """The command's standard input."""

    def __init__(self) -> None:
        self.data = b""
        self.closed = asyncio.Event()
        self.got_more = asyncio.Event()

    def write(self, data: bytes) -> None:
        self.data += data
        if data.endswith(b"more"):
            self.got_more.set()

    async def drain(self) -> None:
        if self.data.endswith(b"break"):
            raise BrokenPipeError

    def close(self) -> None:
        self.closed.set()


class Command:
    """A command that does what the test says."""

    def __init__(self) -> None:
        self.stdin: Any = Input()
        self.stdout = asyncio.StreamReader()
        self.stderr = asyncio.StreamReader()
        self.code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.size: tuple[int, int] | None = None

    async def wait(self) -> int:
        return await asyncio.shield(self.code)

    def kill(self) -> None:
        if not self.code.done():
            self.code.set_result(-9)

    def resize(self, width: int, height: int) -> None:
        self.size = (width, height)

    def end(self, code: int) -> None:
        self.stdout.feed_eof()
        self.stderr.feed_eof()
        self.code.set_result(code)


class Client:
    def __init__(self, *subprotocols: str) -> None:
        self.to_server: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.sent: list[dict[str, Any]] = []
        self.scope = {"type": "websocket", "subprotocols": list(subprotocols), "headers": []}
        self.to_server.put_nowait({"type": "websocket.connect"})

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    def write(self, *data: int, rest: bytes = b"") -> None:
        self.to_server.put_nowait({"type": "websocket.receive", "bytes": bytes(data) + rest})

    def channel(self, number: int) -> bytes:
        messages = (m["bytes"] for m in self.sent if m["type"] == "websocket.send")
        return b"".join(data[1:] for data in messages if data[0] == number)

    @property
    def status(self) -> Any:
        return json.loads(self.channel(ERROR))


@asynccontextmanager
async def session(client: Client, command: Command | Exception) -> AsyncIterator[None]:
    async def start() -> Command:
        if isinstance(command, Exception):
            raise command
        return command

    websocket = WebSocket(client.scope, client.to_server.get, client.send)
    task = asyncio.create_task(remotecommand.serve(websocket, start))
    yield
    await asyncio.wait_for(task, 10)


@pytest.mark.parametrize("protocol", [remotecommand.V5, remotecommand.V4])
async def test_output_and_success_reach_the_client(protocol: str) -> None:
    client, command = Client("channel.k8s.io", protocol), Command()
    async with session(client, command):
        command.stdout.feed_data(b"out")
        command.stderr.feed_data(b"err")
        command.end(0)
    assert client.sent[0] == {
        "type": "websocket.accept",
        "subprotocol": protocol,
        "headers": [],
    }
    assert (client.channel(STDOUT), client.channel(STDERR)) == (b"out", b"err")
    assert client.status == {"metadata": {}, "status": "Success"}
    assert client.sent[-1]["code"] == 1000


@pytest.mark.parametrize(("code", "told"), [(3, "3"), (-9, "137")])
async def test_the_exit_code_is_the_last_word(code: int, told: str) -> None:
    client, command = Client(remotecommand.V5), Command()
    async with session(client, command):
        command.end(code)
    assert client.status["reason"] == "NonZeroExitCode"
    assert client.status["details"]["causes"] == [{"reason": "ExitCode", "message": told}]


async def test_input_its_end_and_the_size_of_the_terminal_reach_the_command() -> None:
    client, command = Client(remotecommand.V5), Command()
    async with session(client, command):
        client.write(STDIN, rest=b"typed")
        client.write(RESIZE, rest=b'{"Width":80,"Height":24}')
        client.write(RESIZE, rest=b"no JSON")
        client.write(RESIZE, rest=b"[1]")
        client.write(77, rest=b"unknown")
        client.write()
        client.write(CLOSE, STDIN)
        await asyncio.wait_for(command.stdin.closed.wait(), 5)
        command.end(0)
    assert (command.stdin.data, command.size) == (b"typed", (80, 24))


async def test_a_command_that_reads_no_more_is_no_error() -> None:
    client, command = Client(remotecommand.V5), Command()
    async with session(client, command):
        client.write(STDIN, rest=b"break")
        client.write(STDIN, rest=b" more")
        await asyncio.wait_for(command.stdin.got_more.wait(), 5)
        command.end(0)
    assert client.status["status"] == "Success"


@pytest.mark.parametrize(
    "message",
    [
        {"type": "websocket.disconnect", "code": 1006},
        {"type": "websocket.receive", "text": "0hello"},
    ],
)
async def test_a_client_that_leaves_or_misbehaves_takes_its_command_along(message: Any) -> None:
    client, command = Client(remotecommand.V5), Command()
    async with session(client, command):
        client.to_server.put_nowait(message)
    assert command.code.result() == -9


@pytest.mark.looptime
async def test_output_kept_open_by_a_child_does_not_keep_the_client() -> None:
    client, command = Client(remotecommand.V5), Command()
    async with session(client, command):
        command.stdout.feed_data(b"last words")
        command.code.set_result(0)
    assert client.channel(STDOUT) == b"last words"
    assert client.status["status"] == "Success"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (LookupError("container main is not running"), "container main is not running"),
        (FileNotFoundError(2, "No such file or directory", "ls"), "No such file"),
    ],
)
async def test_a_command_that_does_not_start_says_why(error: Exception, words: str) -> None:
    client = Client(remotecommand.V5)
    async with session(client, error):
        pass
    assert client.status["status"] == "Failure"
    assert words in client.status["message"]
