"""Ports, endpoints and relays."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from kaos.local.node import ports
from kaos.local.node.endpoints import endpoints, matches, slice_name, slices
from kaos.local.node.ports import PortPool, PortsExhausted
from kaos.local.node.relay import Relay
from kaos.local.node.services import Backend, ServiceMap
from kaos.runtime import Request

# Ports


def free_range(count: int) -> range:
    """Neighbouring ports that are free now, away from those that the node itself gives out."""
    for first in range(10_000, 19_000, count):
        if all(ports.is_free(port) for port in range(first, first + count)):
            return range(first, first + count)
    raise AssertionError("no free ports")


def test_each_port_is_given_out_once_until_it_is_released() -> None:
    pool = PortPool(free_range(3))
    taken = {pool.take() for _ in range(3)}
    assert len(taken) == 3
    with pytest.raises(PortsExhausted):
        pool.take()
    one = taken.pop()
    pool.release([one])
    assert pool.take() == one


def test_a_wanted_port_is_given_when_it_is_free() -> None:
    found = free_range(3)
    pool = PortPool(found)
    assert pool.take(found[1]) == found[1]
    assert pool.take(found[1]) != found[1]


def test_a_port_in_use_by_another_program_is_passed_over() -> None:
    found = free_range(2)
    with socket.socket() as other:
        other.bind(("127.0.0.1", found[0]))
        other.listen()
        assert PortPool(found).take() == found[1]
        assert PortPool(found).take(found[0]) == found[1]


def test_the_annotation_is_read_as_it_was_written() -> None:
    written = ports.record({8000: 20001, 9000: 20002})
    assert json.loads(written) == {"8000": 20001, "9000": 20002}
    assert ports.recorded({ports.ANNOTATION: written}) == {8000: 20001, 9000: 20002}
    for broken in ("", "{", "[]", '{"a": 1}', '{"1": null}', "7"):
        assert ports.recorded({ports.ANNOTATION: broken}) == {}


# Endpoints


def service(**spec: Any) -> dict[str, Any]:
    http = {"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}
    body = {"selector": {"app": "web"}, "ports": [http], **spec}
    return {"metadata": {"name": "web", "namespace": "ns", "labels": {"a": "b"}}, "spec": body}


def pod(name: str, host_port: int, *, ready: bool = True, **metadata: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "uid": name,
            "labels": {"app": "web", "x": "y"},
            "annotations": {ports.ANNOTATION: ports.record({8000: host_port})},
            **metadata,
        },
        "spec": {
            "nodeName": "local",
            "containers": [{"ports": [{"name": "http", "containerPort": 8000}]}],
        },
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": str(ready)}],
        },
    }


def test_selectors() -> None:
    assert matches({"a": "1"}, {"a": "1", "b": "2"})
    assert not matches({"a": "1", "b": "3"}, {"a": "1", "b": "2"})
    assert not matches({}, {"a": "1"})
    assert not matches(None, {})


def test_endpoints_are_the_selected_pods_with_their_host_ports() -> None:
    going = pod("c", 20003, deletionTimestamp="2026-01-01T00:00:00Z")
    ended = pod("d", 20004)
    ended["status"]["phase"] = "Failed"
    other = pod("e", 20005, labels={"app": "other"})
    found = endpoints(
        service(), [pod("b", 20002, ready=False), pod("a", 20001), going, ended, other]
    )
    assert [(e.pod, e.ready, e.terminating, e.ports) for e in found] == [
        ("a", True, False, {80: 20001}),
        ("b", False, False, {80: 20002}),
        ("c", False, True, {80: 20003}),
    ]


@pytest.mark.parametrize(
    ("target", "expected"),
    [("http", {80: 1}), (8000, {80: 1}), ("8000", {80: 1}), ("x", {}), (9, {}), (None, {})],
)
def test_target_ports(target: object, expected: dict[int, int]) -> None:
    found = endpoints(service(ports=[{"port": 80, "targetPort": target}]), [pod("a", 1)])
    assert found[0].ports == expected


def test_slices_as_the_real_controller_writes_them_but_one_for_each_pod() -> None:
    found = slices(service(), endpoints(service(), [pod("a", 20001), pod("b", 20002, ready=False)]))
    assert [s["metadata"]["name"] for s in found] == [
        slice_name("web", "a"),
        slice_name("web", "b"),
    ]
    labels = found[0]["metadata"]["labels"]
    assert (labels["kubernetes.io/service-name"], labels["a"]) == ("web", "b")
    assert found[0]["ports"] == [{"name": "http", "port": 20001, "protocol": "TCP"}]
    (entry,) = found[1]["endpoints"]
    assert entry["conditions"] == {"ready": False, "serving": False, "terminating": False}
    assert entry["targetRef"] == {"kind": "Pod", "namespace": "ns", "name": "b", "uid": "b"}


def test_a_backend_takes_ready_pods_in_turn() -> None:
    backend = Backend(Request("ns", "web"), 80)
    assert backend.choose() == []
    pods = [pod("a", 1), pod("b", 2), pod("c", 3, ready=False)]
    backend.update(endpoints(service(), pods))
    assert [backend.choose() for _ in range(3)] == [[1, 2], [2, 1], [1, 2]]
    assert backend.pods == 3


def test_the_service_map_is_read_again_and_survives_rubbish(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "services.json"
    written = ServiceMap(path, "example.org")
    name = written.name(Request("ns", "web"), 80)
    assert name == "web.ns.svc.example.org:80"
    written.write({name: "127.0.0.1:30001"})
    assert ServiceMap(path, "example.org").port_of(name) == 30001
    assert ServiceMap(path, "example.org").port_of("other") is None
    for rubbish in ("{", "[]", '"x"'):
        path.write_text(rubbish)
        assert ServiceMap(path, "example.org").port_of(name) is None


# Relays

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]


@contextlib.asynccontextmanager
async def listening(handler: Handler) -> AsyncIterator[int]:
    writers: list[asyncio.StreamWriter] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await handler(reader, writer)

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def relaying(*targets: int) -> AsyncIterator[int]:
    relay = Relay(0, lambda: list(targets))
    await relay.start()
    try:
        yield relay.port
    finally:
        await relay.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write(b" bye")
    writer.close()


async def test_bytes_go_both_ways_and_a_half_closed_connection_is_passed_on() -> None:
    async with listening(echo) as pod_port, relaying(pod_port) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        writer.write_eof()
        assert await reader.read() == b" bye"
        writer.close()


@pytest.mark.parametrize("words", [b"hello", b""])
async def test_what_a_client_sends_before_the_pod_is_reached_is_kept(
    words: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Python 3.11.2 reads although `connection_made` paused: so do all here.
    def add_reader(self: Any, fd: int, callback: Callable[..., None], *args: Any) -> None:
        self._loop._add_reader(fd, callback, *args)

    transport = "asyncio.selector_events._SelectorTransport._add_reader"
    monkeypatch.setattr(transport, add_reader, raising=False)
    loop = asyncio.get_running_loop()
    connect = loop.create_connection

    async def connect_slowly(*args: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(0.05)
        return await connect(*args, **kwargs)

    async with listening(echo) as pod_port, relaying(pod_port) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        monkeypatch.setattr(loop, "create_connection", connect_slowly)
        writer.write(words)
        writer.write_eof()
        async with asyncio.timeout(5):
            assert await reader.read() == words + b" bye"
        writer.close()


async def test_much_data_arrives_whole() -> None:
    data = bytes(range(256)) * 40_000

    async with listening(echo) as pod_port, relaying(pod_port) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)

        async def send() -> None:
            writer.write(data)
            await writer.drain()
            writer.write_eof()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(send())
            got = await reader.read()
        assert got == data + b" bye"
        writer.close()


async def test_a_slow_reader_slows_the_sender_down() -> None:
    sent = 0

    async def pour(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            for _ in range(2000):
                writer.write(b"x" * 65536)
                await writer.drain()
                sent += 65536
        writer.close()

    async with listening(pour) as pod_port, relaying(pod_port) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        await asyncio.sleep(0.3)
        assert sent < 60_000_000  # what the kernel's buffers hold, and not the 131 MB of the pod
        writer.close()


async def test_a_pod_that_refuses_is_passed_over() -> None:
    refused = free_range(1)[0]
    async with listening(echo) as pod_port, relaying(refused, pod_port) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        writer.close()


async def test_without_anybody_the_connection_is_reset() -> None:
    async with relaying() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()


async def test_closing_a_relay_ends_its_connections() -> None:
    async with listening(echo) as pod_port:
        async with relaying(pod_port) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"hello")
            await reader.readexactly(5)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()


async def test_a_client_that_left_before_the_pod_was_reached_leaves_nothing_behind() -> None:
    gone = asyncio.Event()

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read()
        gone.set()
        writer.close()

    async with listening(count) as pod_port:
        relay = Relay(0, lambda: [pod_port])
        await relay.start()
        _, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        writer.transport.abort()
        await asyncio.wait_for(gone.wait(), 5)
        await relay.close()
        assert not relay._sides
