"""Connections to one server: which are used again, and how a server behind a proxy is reached."""

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from kaos.local import certificate
from kaos.local.apiserver import APIServer
from kaos.runtime import (
    CONFIG_MAP,
    Client,
    ClusterConfig,
    LeaderElection,
    RuntimeFailure,
    Unreachable,
)
from kaos.runtime.leader import Elector
from kaos.runtime.pool import HttpTransport
from kaos.runtime.resources import LEASE
from kaos.runtime.transport import HttpRequest

YES = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes"
READ = HttpRequest("GET", "/", idempotent=True)
WRITE = HttpRequest("POST", "/", body=b"{}")
Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(serve: Answer) -> AsyncIterator[str]:
    """A server that does with each connection what it is told."""

    async def serving(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serving, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


@asynccontextmanager
async def connected(config: ClusterConfig) -> AsyncIterator[HttpTransport]:
    transport = HttpTransport(config)
    yield transport
    await transport.close()


async def head_of(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


@pytest.mark.parametrize(("request_", "sent"), [(READ, 3), (WRITE, 2)])
async def test_a_connection_that_the_server_closes_as_we_use_it(
    request_: HttpRequest, sent: int
) -> None:
    """A read is sent again on a new one; nobody knows what became of a write."""
    heads = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await head_of(reader))
        writer.write(YES)
        heads.append(await head_of(reader))  # and then it closes without an answer

    async with listening(serve) as where, connected(ClusterConfig.direct(f"http://{where}")) as t:
        await t.request(READ)
        if sent == 3:
            assert (await t.request(request_)).body == b"yes"
        else:
            with pytest.raises(Unreachable, match="closed the connection"):
                await t.request(request_)
    assert len(heads) == sent


async def test_an_address_that_does_not_answer_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One of two API servers was down without a word: only the first address was ever tried."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        writer.write(YES)
        await writer.drain()

    async with listening(answer) as address:
        port = int(address.rpartition(":")[2])
        kind = socket.AF_INET, socket.SOCK_STREAM, 6, ""
        both = [(*kind, (host, port)) for host in ("127.0.0.2", "127.0.0.1")]

        async def resolve(*_: object, **__: object) -> object:
            return both

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
        with socket.create_server(("127.0.0.2", port), backlog=0), ExitStack() as stack:
            for _ in range(3):  # a full backlog: who comes next gets no answer at all
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(("127.0.0.2", port))
            config = ClusterConfig.direct(f"http://api.test:{port}")
            async with connected(config) as transport:
                asked = HttpRequest("GET", "/", timeout=3.0)
                assert (await transport.request(asked)).body == b"yes"


async def test_where_one_connection_is_dead_the_idle_ones_are_not_tried() -> None:
    """Behind an API server that went without a word, each of them cost a request its deadline."""
    connections, three = 0, asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        if connections == 3:
            three.set()
        await head_of(reader)
        await three.wait()
        writer.write(YES)
        await reader.read()  # nothing more: what is asked next gets no answer

    async with (
        listening(answer) as address,
        connected(ClusterConfig.direct(f"http://{address}")) as transport,
    ):
        await asyncio.gather(*(transport.request(READ) for _ in range(3)))
        with pytest.raises(Unreachable):
            await transport.request(replace(READ, timeout=0.2))
        assert (await transport.request(replace(READ, timeout=3.0))).body == b"yes"
    assert connections == 4


async def test_an_exchange_that_is_cancelled_takes_its_connection_along() -> None:
    """Else the next request would read the answer of this one."""
    asked = asyncio.Event()
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        first = connections == 1
        while head := await head_of(reader):
            if first and b"/slow" in head:
                asked.set()
                await reader.read()  # until it is closed
                return
            writer.write(YES)

    async with listening(serve) as where, connected(ClusterConfig.direct(f"http://{where}")) as t:
        await t.request(READ)
        slow = asyncio.create_task(t.request(HttpRequest("GET", "/slow")))
        await asyncio.wait_for(asked.wait(), 5)
        slow.cancel()
        await asyncio.gather(slow, return_exceptions=True)
        assert (await t.request(READ)).body == b"yes"
    assert connections == 2


async def test_slow_writes_do_not_starve_the_lease() -> None:
    """64 of them, behind a slow admission webhook, took all connections: the lease was lost."""
    held, full = 0, asyncio.Event()
    lease = LEASE.body("lock", "default", spec={})
    told = json.dumps(lease | {"metadata": {"resourceVersion": "1"}}).encode()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal held
        while b"/leases/" in (head := await head_of(reader)):
            if found := re.search(rb"Content-Length: (\d+)", head):
                await reader.readexactly(int(found[1]))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(told) + told)
        held += 1
        if held == 64:
            full.set()
        await reader.read()  # no answer

    async with listening(serve) as where, connected(ClusterConfig.direct(f"http://{where}")) as t:
        writes = [asyncio.create_task(t.request(WRITE)) for _ in range(70)]
        elector = Elector(Client(t), LeaderElection("lock", "default"))
        async with asyncio.timeout(10):
            await full.wait()
            await elector.acquire()
        assert elector.leading
        assert not any(write.done() for write in writes)
        assert held == 64  # other requests wait as before
        for write in writes:
            write.cancel()
        await asyncio.gather(*writes, return_exceptions=True)


async def test_no_line_can_be_smuggled_into_a_request() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)

    async with listening(serve) as where:
        for config, path in (
            (ClusterConfig.direct(f"http://{where}", token="a\r\nX: y"), "/"),
            (ClusterConfig.direct(f"http://{where}"), "/a HTTP/1.1\r\nX: y"),
        ):
            async with connected(config) as t:
                with pytest.raises(ValueError, match="control character"):
                    await t.request(HttpRequest("GET", path))


async def test_a_server_with_a_path_and_what_is_told_it() -> None:
    heads = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await head_of(reader))
        writer.write(YES)

    async with (
        listening(serve) as where,
        connected(ClusterConfig.direct(f"http://{where}/k8s/c-1", token="t")) as transport,
    ):
        await transport.request(HttpRequest("GET", "/api", {"labelSelector": "a in (b, c)"}))
    (head,) = heads
    first, *fields = head.decode().split("\r\n")
    assert first == "GET /k8s/c-1/api?labelSelector=a+in+%28b%2C+c%29 HTTP/1.1"
    assert {f"Host: {where}", "Authorization: Bearer t", "Accept-Encoding: identity"} <= {*fields}


async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """CONNECT for those who know the password."""
    head = await head_of(reader)
    if b"Proxy-Authorization: Basic dTpwIQ==\r\n" not in head:
        writer.write(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n")
        return
    host, _, port = head.split(b" ")[1].decode().rpartition(":")
    inner, outer = await asyncio.open_connection(host, int(port))
    writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")

    async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            target.write(data)
        target.close()

    await asyncio.gather(pump(reader, outer), pump(inner, writer), return_exceptions=True)


async def test_tls_through_a_proxy(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert", tmp_path / "key"
    certificate.create(cert, key)
    async with APIServer(token="t").serve(tls=(cert, key)) as url, listening(proxy) as where:
        config = ClusterConfig.direct(url, "t", ca=cert)
        config.proxy = f"http://u:p%21@{where}"
        async with Client.connect(config) as client:
            assert (await client.create(CONFIG_MAP.body("a", "default"))).uid
        config.proxy = f"http://{where}"
        async with Client.connect(config) as client:
            with pytest.raises(Unreachable, match=f"the proxy {where} answered 407"):
                await client.transport.request(READ)


async def test_plain_http_through_a_proxy_names_the_server_to_it() -> None:
    heads = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await head_of(reader))
        writer.write(YES)

    async with listening(serve) as where:
        config = ClusterConfig.direct("http://cluster.example:8001")
        config.proxy = f"http://u:p%21@{where}"
        async with connected(config) as transport:
            assert (await transport.request(READ)).body == b"yes"
    assert heads[0].startswith(b"GET http://cluster.example:8001/ HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic dTpwIQ==\r\n" in heads[0]


async def test_a_certificate_of_somebody_else_is_refused(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert", tmp_path / "key"
    certificate.create(cert, key)
    async with APIServer().serve(tls=(cert, key)) as url, connected(ClusterConfig.direct(url)) as t:
        with pytest.raises(Unreachable, match="CERTIFICATE_VERIFY_FAILED"):
            await t.request(READ)


@pytest.mark.parametrize(
    "server",
    ["localhost:8080", "https://", "https://a..b", "https://[::1", "https://a:port", "ftp://a"],
)
def test_an_address_that_is_none_is_told_at_once(server: str) -> None:
    """Some ended a watch, and the manager with it, by an error of its own kind."""
    with pytest.raises(RuntimeFailure, match="is no address of an API server: "):
        HttpTransport(ClusterConfig(server))


def test_other_proxies_are_refused_by_name() -> None:
    config = ClusterConfig("https://x", proxy="socks5://user:secret@proxy.example:1080")
    with pytest.raises(RuntimeFailure, match=r"socks5://proxy\.example of the kubeconfig"):
        HttpTransport(config)
