"""The gateway in front of a real server."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from kaos.local.node.gateway import Gateway, PortTaken
from kaos.local.node.routes import RouteTable
from kaos.local.node.services import Backend, NoBackend
from kaos.runtime import Request


class Fixed(Backend):
    """A backend whose ready pods are given."""

    def __init__(self, *ports: int, pods: int = 1) -> None:
        super().__init__(Request("ns", "web"), 80)
        self._ready = list(ports)
        self.pods = pods


@dataclass
class Site:
    session: aiohttp.ClientSession
    pod_port: int
    backends: dict[str, Backend] = field(default_factory=dict)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    gateway: Gateway = field(init=False)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gateway = Gateway(self.find)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.gateway.port}{path}"

    def find(self, _namespace: str, name: str, _port: int) -> Backend:
        if name not in self.backends:
            raise NoBackend(f"there is no Service ns/{name}")
        return self.backends[name]

    async def error(self, path: str, **options: Any) -> tuple[int, str, str]:
        async with self.session.get(self.url(path), **options) as answer:
            error = (await answer.json())["error"]
            return answer.status, error["code"], error["message"]


def rule(path: str, **fields: Any) -> dict[str, Any]:
    rewrite = {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}}
    return {
        "matches": [{"path": {"value": path}}],
        "filters": [{"type": "URLRewrite", "urlRewrite": rewrite}, *fields.pop("filters", [])],
        "backendRefs": [{"name": "web", "port": 80}],
        **fields,
    }


CHANGES = {
    "type": "RequestHeaderModifier",
    "requestHeaderModifier": {
        "set": [{"name": "X-Set", "value": "1"}],
        "add": [{"name": "X-Add", "value": "2"}],
        "remove": ["X-Gone"],
    },
}
ROUTES = [
    rule("/web"),
    rule("/short", timeouts={"request": "200ms"}),
    rule("/missing", backendRefs=[{"name": "missing", "port": 80}]),
    rule("/other", backendRefs=[{"name": "web", "namespace": "other", "port": 80}]),
    rule("/changed", filters=[CHANGES]),
    rule("/empty", backendRefs=[]),
]


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    found: Site

    async def echo(request: web.Request) -> web.Response:
        body = await request.read()
        seen = {
            "method": request.method,
            "path": request.raw_path,
            "headers": {k: request.headers.getall(k) for k in request.headers},
            "body": body.decode(),
        }
        return web.json_response(seen, headers={"X-Pod": "1", "Connection": "close, X-Hop"})

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            await response.write(b"data: one\n\n")
            await found.go_on.wait()
            await response.write(b"data: two\n\n")
        except asyncio.CancelledError:
            found.ended.set()
            raise
        return response

    async def slow(_request: web.Request) -> web.Response:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            found.ended.set()
            raise
        return web.Response()

    async def cut(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"only this")
        assert request.transport is not None
        request.transport.abort()
        return response

    async def silent(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    app = web.Application()
    app.router.add_route("*", "/stream", stream)
    app.router.add_route("*", "/slow", slow)
    app.router.add_route("*", "/cut", cut)
    app.router.add_route("*", "/silent", silent)
    app.router.add_route("*", "/{path:.*}", echo)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    pod_port = runner.addresses[0][1]
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
        found = Site(session, pod_port, {"web": Fixed(pod_port)})
        gateway = found.gateway
        body = {"metadata": {"name": "r", "namespace": "ns"}, "spec": {"rules": ROUTES}}
        gateway.table = RouteTable.of([body])
        await gateway.start(0)
        yield found
        found.go_on.set()
        await gateway.close()
    await runner.cleanup()


async def test_a_request_arrives_as_it_was_sent_and_its_answer_too(site: Site) -> None:
    url = URL(site.url("/web/v1/x%2Fy?a=%20b"), encoded=True)
    headers = {"X-Mine": "1", "Connection": "X-Hop, keep-alive", "X-Hop": "1", "Accept": "a/b"}
    headers["X-Forwarded-Prefix"] = "/not/ours"
    async with site.session.post(url, data=b"body", headers=headers) as answer:
        assert answer.status == 200
        assert answer.headers["X-Pod"] == "1"
        seen = await answer.json()
    assert (seen["method"], seen["path"], seen["body"]) == ("POST", "/v1/x%2Fy?a=%20b", "body")
    sent = {name.lower(): values for name, values in seen["headers"].items()}
    assert sent["x-mine"] == ["1"]
    assert sent["accept"] == ["a/b"]
    assert sent["host"] == sent["x-forwarded-host"] == [f"127.0.0.1:{site.gateway.port}"]
    assert sent["x-forwarded-for"] == ["127.0.0.1"]
    assert sent["x-forwarded-prefix"] == ["/web"]
    assert "x-hop" not in sent


async def test_a_get_has_no_body(site: Site) -> None:
    async with site.session.get(site.url("/web/")) as answer:
        names = {name.lower() for name in (await answer.json())["headers"]}
    assert not names & {"content-length", "transfer-encoding", "content-type"}


async def test_headers_are_changed_as_the_route_says(site: Site) -> None:
    async with site.session.get(site.url("/changed"), headers={"X-Gone": "1", "X-Set": "0"}) as a:
        headers = (await a.json())["headers"]
    assert (headers["X-Set"], headers["X-Add"]) == (["1"], ["2"])
    assert "X-Gone" not in headers


async def test_an_answer_is_passed_on_piece_by_piece(site: Site) -> None:
    async with site.session.get(site.url("/web/stream")) as answer:
        assert await answer.content.readany() == b"data: one\n\n"  # while the pod still waits
        site.go_on.set()
        assert await answer.content.read() == b"data: two\n\n"


async def test_a_body_is_passed_on_piece_by_piece(site: Site) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for number in range(50):
            yield b"%d," % number
            await asyncio.sleep(0)

    async with site.session.post(site.url("/web/"), data=pieces()) as answer:
        body = (await answer.json())["body"]
    assert body == "".join(f"{n}," for n in range(50))


@pytest.mark.parametrize("path", ["/web/stream", "/web/slow"])
async def test_a_client_that_goes_away_ends_the_request_to_the_pod(site: Site, path: str) -> None:
    request = asyncio.create_task(site.session.get(site.url(path)))
    await asyncio.sleep(0.1)
    if request.done():
        request.result().close()
    request.cancel()
    await asyncio.wait_for(site.ended.wait(), 5)
    with contextlib.suppress(asyncio.CancelledError):
        (await request).close()


async def test_no_route_is_404_and_lists_the_routes(site: Site) -> None:
    status, code, message = await site.error("/nothing")
    assert (status, code) == (404, "route_not_found")
    assert "/nothing" in message
    assert "/web" in message


async def test_the_gateways_own_answers_do_not_name_their_library(site: Site) -> None:
    async with site.session.get(site.url("/nowhere")) as answer:
        assert answer.status == 404
        assert "Server" not in answer.headers


async def test_no_backend_is_503_and_names_it(site: Site) -> None:
    assert await site.error("/missing") == (
        503, "no_backend", "route ns/r: there is no Service ns/missing",
    )  # fmt: skip
    assert (await site.error("/empty"))[2] == "route ns/r: it has no backendRefs"
    assert "another namespace" in (await site.error("/other"))[2]


async def test_no_ready_pod_is_503_and_says_how_many_there_are(site: Site) -> None:
    site.backends["web"] = Fixed(pods=2)
    assert (await site.error("/web"))[:2] == (503, "no_endpoints")
    assert "none of its 2 pod(s) is ready" in (await site.error("/web"))[2]
    site.backends["web"] = Fixed(pods=0)
    assert "no pod matches its selector" in (await site.error("/web"))[2]


async def test_a_pod_that_refuses_is_passed_over(site: Site) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        refusing = unused.getsockname()[1]
        site.backends["web"] = Fixed(refusing, site.pod_port)
        for _ in range(2):
            async with site.session.post(site.url("/web"), data=b"x") as answer:
                assert (await answer.json())["body"] == "x"
        site.backends["web"] = Fixed(refusing)
        assert (await site.error("/web"))[:2] == (503, "connection_refused")


async def test_a_pod_that_breaks_off_before_its_answer_is_502(site: Site) -> None:
    assert (await site.error("/web/silent"))[:2] == (502, "bad_gateway")


async def test_a_pod_that_breaks_off_in_its_answer_breaks_the_clients_connection(
    site: Site,
) -> None:
    async with site.session.get(site.url("/web/cut")) as answer:
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()


async def test_the_time_of_a_route_is_504_and_ends_the_request(site: Site) -> None:
    begun = time.monotonic()
    assert (await site.error("/short/slow"))[:2] == (504, "timeout")
    assert time.monotonic() - begun < 3
    await asyncio.wait_for(site.ended.wait(), 5)


async def test_the_time_of_a_route_cuts_an_answer_that_has_begun(site: Site) -> None:
    async with site.session.get(site.url("/short/stream")) as answer:
        with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ClientConnectionError)):
            await answer.read()


async def test_websockets_are_refused_in_words(site: Site) -> None:
    headers = {"Upgrade": "websocket", "Connection": "Upgrade"}
    assert (await site.error("/web", headers=headers))[0] == 501


async def test_the_index_lists_the_routes(site: Site) -> None:
    async with site.session.get(site.url("/")) as answer:
        assert "/web" in await answer.text()
    site.gateway.table = RouteTable()
    async with site.session.get(site.url("/")) as answer:
        assert "no routes yet" in await answer.text()


async def test_localhost_works_also_where_it_is_an_ipv6_address(site: Site) -> None:
    try:
        _, writer = await asyncio.open_connection("::1", site.gateway.port)
    except OSError:
        pytest.skip("no IPv6 here")
    writer.close()


async def test_a_port_in_use_is_told_with_the_way_out(site: Site) -> None:
    other = Gateway(site.find)
    with pytest.raises(
        PortTaken, match=f"port {site.gateway.port} .* choose another one with --port"
    ):
        await other.start(site.gateway.port)
    await other.close()
