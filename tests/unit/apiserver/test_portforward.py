"""Port-forward sessions over an in-memory WebSocket and socket pairs."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest
from starlette.websockets import WebSocket

from kaos.local.apiserver import forward_target, portforward, spdy

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Pod:
    """Ports of a pod: each connection is one end of a socket pair, the test holds the other."""

    def __init__(self) -> None:
        self.opened: asyncio.Queue[Streams] = asyncio.Queue()
        self.broken: dict[int, Exception] = {}
        self.may_open = asyncio.Event()
        self.may_open.set()
        self._writers: list[asyncio.StreamWriter] = []

    async def open_port(self, port: int) -> Streams:
        await self.may_open.wait()
        if port in self.broken:
            raise self.broken[port]
        ours, theirs = socket.socketpair()
        inside = await asyncio.open_connection(sock=ours)
        outside = await asyncio.open_connection(sock=theirs)
        self._writers += [inside[1], outside[1]]
        self.opened.put_nowait(inside)
        return outside

    async def close(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*(w.wait_closed() for w in self._writers), return_exceptions=True)


class Client:
    """The client's end of the WebSocket."""

    def __init__(self, *subprotocols: str) -> None:
        self.to_server: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.from_server: asyncio.Queue[bytes] = asyncio.Queue()
        self.may_read = asyncio.Event()
        self.may_read.set()
        self.accepted: str | None = "nothing"
        self.closed: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.scope = {"type": "websocket", "subprotocols": list(subprotocols), "headers": []}
        self.to_server.put_nowait({"type": "websocket.connect"})

    async def receive(self) -> dict[str, Any]:
        return await self.to_server.get()

    async def send(self, message: Any) -> None:
        match message["type"]:
            case "websocket.accept":
                self.accepted = message["subprotocol"]
            case "websocket.send":
                await self.may_read.wait()
                self.from_server.put_nowait(message["bytes"])
            case "websocket.close" if not self.closed.done():
                self.closed.set_result(message["code"])

    def write(self, data: bytes) -> None:
        self.to_server.put_nowait({"type": "websocket.receive", "bytes": data})

    def leave(self) -> None:
        self.to_server.put_nowait({"type": "websocket.disconnect", "code": 1001})


C = TypeVar("C", bound=Client)


class Kubectl(Client):
    """A client that speaks SPDY."""

    def __init__(self) -> None:
        super().__init__("v4.channel.k8s.io", portforward.SPDY_SUBPROTOCOL)
        self.spdy = spdy.Connection(client=True)
        self.events: list[spdy.Event] = []

    def flush(self) -> None:
        self.write(self.spdy.bytes_to_send())

    def forward(self, request: str, port: int = 80) -> tuple[int, int]:
        common = {"port": str(port), "requestID": request}
        error = self.spdy.open_stream({"streamType": "error", **common}, fin=True)
        data = self.spdy.open_stream({"streamType": "data", **common})
        self.flush()
        return data, error

    def send_data(self, stream: int, data: bytes, *, fin: bool = False) -> None:
        self.spdy.send_data(stream, data, fin=fin)
        self.flush()

    async def read_until(self, done: Callable[[], bool]) -> None:
        while not done():
            data = await asyncio.wait_for(self.from_server.get(), 100)
            self.events += self.spdy.receive(data)

    async def read_stream(self, stream: int) -> bytes:
        """All data of a stream up to its end."""

        def ended() -> bool:
            return any(
                (isinstance(e, spdy.DataReceived) and e.fin) or isinstance(e, spdy.StreamReset)
                for e in self.events
                if getattr(e, "stream_id", None) == stream
            )

        await self.read_until(ended)
        return self.data(stream)

    def data(self, stream: int) -> bytes:
        events = (e for e in self.events if isinstance(e, spdy.DataReceived))
        return b"".join(e.data for e in events if e.stream_id == stream)


@asynccontextmanager
async def session(client: C, pod: Pod, *ports: int) -> AsyncIterator[C]:
    websocket = WebSocket(client.scope, client.receive, client.send)
    task = asyncio.create_task(portforward.serve(websocket, pod.open_port, list(ports)))
    try:
        yield client
        client.leave()
        await asyncio.wait_for(task, 100)
    finally:
        task.cancel()
        await pod.close()


async def test_spdy_is_preferred_when_it_is_offered() -> None:
    async with session(Kubectl(), Pod()) as client:
        await asyncio.sleep(0)
    assert client.accepted == portforward.SPDY_SUBPROTOCOL


async def test_each_side_can_end_while_the_other_goes_on() -> None:
    pod = Pod()
    async with session(Kubectl(), pod) as client:
        data, error = client.forward("1")
        client.send_data(data, b"question", fin=True)
        reader, writer = await pod.opened.get()
        assert await reader.read() == b"question"
        writer.write(b"answer")
        writer.close()
        assert await client.read_stream(data) == b"answer"
        assert await client.read_stream(error) == b""


async def test_what_the_client_sends_before_the_port_is_open_is_not_lost() -> None:
    pod = Pod()
    pod.may_open.clear()
    async with session(Kubectl(), pod) as client:
        data, _error = client.forward("1")
        client.send_data(data, b"early")
        await asyncio.sleep(0.01)
        pod.may_open.set()
        reader, _writer = await pod.opened.get()
        assert await reader.read(100) == b"early"


async def test_a_refused_port_is_told_and_others_go_on() -> None:
    pod = Pod()
    pod.broken = {
        81: LookupError("pod web declares no port 81"),
        82: KeyError("no such pod"),
        83: ConnectionRefusedError(111, "refused"),
    }
    async with session(Kubectl(), pod) as client:
        good, _ = client.forward("good")
        texts = {}
        for port in pod.broken:
            data, error = client.forward(str(port), port)
            texts[port] = await client.read_stream(error)
            assert await client.read_stream(data) == b""
        _reader, writer = await pod.opened.get()
        writer.write(b"still here")
        await client.read_until(lambda: client.data(good) == b"still here")
    assert texts[81] == b"cannot connect to port 81: pod web declares no port 81"
    assert texts[82] == b"cannot connect to port 82: no such pod"
    assert b"refused" in texts[83]


async def test_reset_by_the_client_drops_the_connection_to_the_pod() -> None:
    pod = Pod()
    async with session(Kubectl(), pod) as client:
        data, error = client.forward("1")
        reader, _writer = await pod.opened.get()
        client.spdy.reset(data)
        client.flush()
        assert await reader.read() == b""
        assert await client.read_stream(error) == b""


async def test_old_clients_without_request_ids_are_paired_by_number() -> None:
    pod = Pod()
    async with session(Kubectl(), pod) as client:
        client.spdy.open_stream({"streamType": "error", "port": "80"})
        data = client.spdy.open_stream({"streamType": "data", "port": "80"})
        client.send_data(data, b"hi")
        reader, _ = await pod.opened.get()
        assert await reader.read(100) == b"hi"


@pytest.mark.parametrize(
    "headers",
    [
        {"streamtype": "data", "port": "0", "requestid": "1"},
        {"streamtype": "data", "port": "x", "requestid": "1"},
        {"streamtype": "stdin", "port": "80", "requestid": "1"},
        {"port": "80"},
    ],
)
async def test_a_stream_that_makes_no_sense_is_reset(headers: dict[str, str]) -> None:
    async with session(Kubectl(), Pod()) as client:
        stream = client.spdy.open_stream(headers)
        client.flush()
        await client.read_until(lambda: bool(client.events))
    assert client.events == [spdy.StreamReset(stream, spdy.ResetStatus.PROTOCOL_ERROR)]


@pytest.mark.looptime
async def test_a_stream_without_its_partner_is_reset_after_a_while() -> None:
    async with session(Kubectl(), Pod()) as client:
        stream = client.spdy.open_stream({"streamtype": "data", "port": "80", "requestid": "1"})
        client.flush()
        await client.read_stream(stream)
        assert asyncio.get_running_loop().time() == pytest.approx(portforward.PAIR_SECONDS)


@pytest.mark.looptime
async def test_a_port_that_does_not_open_is_given_up() -> None:
    pod = Pod()
    pod.may_open.clear()
    async with session(Kubectl(), pod) as client:
        _data, error = client.forward("1")
        assert b"took longer than" in await client.read_stream(error)


@pytest.mark.looptime
async def test_a_pod_that_reads_nothing_does_not_stop_the_other_connections_for_ever() -> None:
    pod = Pod()
    async with session(Kubectl(), pod) as client:
        stuck, error = client.forward("stuck")
        inside = await pod.opened.get()
        inside[1].transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(40):
            client.send_data(stuck, bytes(100_000))
        good, _ = client.forward("good")
        client.send_data(good, b"hello")
        assert b"has read nothing for 30 s" in await client.read_stream(error)
        reader, _writer = await pod.opened.get()
        assert await reader.read(100) == b"hello"


async def test_a_client_that_does_not_read_stops_the_pod_from_sending() -> None:
    pod = Pod()
    async with session(Kubectl(), pod) as client:
        client.may_read.clear()
        data, _ = client.forward("1")
        _reader, writer = await pod.opened.get()
        for _ in range(100):
            writer.write(bytes(100_000))
        await asyncio.sleep(0.1)
        assert writer.transport.get_write_buffer_size() > 8_000_000
        client.may_read.set()
        await client.read_until(lambda: len(client.data(data)) == 10_000_000)


async def test_a_client_that_pings_and_never_reads_is_shown_the_door(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(portforward, "_CONTROL_BACKLOG", 1000)
    async with session(Kubectl(), Pod()) as client:
        client.may_read.clear()
        for _ in range(300):
            client.spdy.ping()
            client.flush()
        assert await asyncio.wait_for(client.closed, 10) == 1002


async def test_a_client_that_breaks_the_protocol_is_closed() -> None:
    async with session(Kubectl(), Pod()) as client:
        client.write(b"GET / HTTP/1.1\r\n\r\n")
        assert await asyncio.wait_for(client.closed, 10) == 1002


async def test_when_the_client_leaves_every_connection_ends() -> None:
    pod = Pod()
    before = asyncio.all_tasks()
    async with session(Kubectl(), pod) as client:
        for number in range(20):
            client.forward(str(number))
        readers = [(await pod.opened.get())[0] for _ in range(20)]
        client.leave()
        assert [await asyncio.wait_for(r.read(), 10) for r in readers] == [b""] * 20
    assert asyncio.all_tasks() == before


# -- the dialect of channels ---------------------------------------------------------


async def test_channels_begin_with_their_port_and_carry_both_ways() -> None:
    pod = Pod()
    async with session(Client("v4.channel.k8s.io"), pod, 8080, 9090) as client:
        greetings = [await client.from_server.get() for _ in range(4)]
        assert greetings == [b"\0\x90\x1f", b"\1\x90\x1f", b"\2\x82\x23", b"\3\x82\x23"]
        first, second = await pod.opened.get(), await pod.opened.get()
        client.write(b"\2to the second")
        client.write(b"\7to nobody")
        client.write(b"\1on an error channel")
        client.write(b"")
        client.write(b"\0to the first")
        assert await second[0].read(100) == b"to the second"
        assert await first[0].read(100) == b"to the first"
        second[1].write(b"back")
        assert await client.from_server.get() == b"\2back"
    assert client.accepted == "v4.channel.k8s.io"


async def test_the_websocket_closes_when_every_port_has_ended() -> None:
    pod = Pod()
    pod.broken = {81: LookupError("pod web declares no port 81")}
    async with session(Client(), pod, 80, 81) as client:
        _reader, writer = await pod.opened.get()
        writer.write(b"last words")
        await asyncio.sleep(0.01)
        assert not client.closed.done()
        writer.close()
        assert await asyncio.wait_for(client.closed, 10) == 1000
    messages = [client.from_server.get_nowait() for _ in range(client.from_server.qsize())]
    assert b"\0last words" in messages
    assert b"\3cannot connect to port 81: pod web declares no port 81" in messages
    assert client.accepted is None


async def test_text_on_a_channel_is_refused() -> None:
    pod = Pod()
    async with session(Client(), pod, 80) as client:
        await pod.opened.get()
        client.to_server.put_nowait({"type": "websocket.receive", "text": "0hello"})
        assert await asyncio.wait_for(client.closed, 10) == 1003


# -- the rest ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "ports"),
    [([], []), (["80"], [80]), (["80", "81,82"], [80, 81, 82]), (["1, 65535"], [1, 65535])],
)
def test_ports_are_read_in_all_their_forms(values: list[str], ports: list[int]) -> None:
    assert portforward.parse_ports(values) == ports


@pytest.mark.parametrize("values", [["0"], ["65536"], ["x"], [""], ["-1"], ["²"], ["1"] * 128])
def test_ports_that_are_none_are_refused(values: list[str]) -> None:
    with pytest.raises(ValueError, match="port"):
        portforward.parse_ports(values)


async def test_a_full_but_moving_target_is_not_given_up() -> None:
    """drain() that returns at exactly the limit once made this loop spin without end."""
    pod = Pod()
    target = forward_target.Target(80)
    await target.open(pod.open_port)
    reader, _writer = await pod.opened.get()
    writing = asyncio.create_task(target.write(bytes(forward_target._TARGET_BUFFER * 2)))
    received = 0
    while received < forward_target._TARGET_BUFFER * 2:
        received += len(await reader.read(1 << 16))
    await asyncio.wait_for(writing, 10)
    await pod.close()
