"""The fault proxy: each fault as a client meets it, and that everything else passes unchanged."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from kaos.local import certificate
from kaos.local.apiserver import APIServer
from kaos.runtime import (
    CONFIG_MAP,
    Client,
    ClusterConfig,
    Conflict,
    Gone,
    Manager,
    Unauthorized,
    Unreachable,
)
from kaos.runtime.transport import HttpRequest
from kaos.testing.faults import (
    GONE,
    INTERNAL_ERROR,
    NO_STREAMING_LISTS,
    TOO_LARGE_VERSION,
    TOO_MANY_REQUESTS,
    Asked,
    Blackhole,
    Close,
    Delay,
    EndWatch,
    ErrorEvent,
    FaultProxy,
    Rule,
    Stale,
)
from kaos.testing.running import running
from kaos.testing.waiting import eventually

TOKEN = "t"
MAPS = "/api/v1/namespaces/default/configmaps"


def config_map(name: str, **data: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


@asynccontextmanager
async def proxied(*rules: Rule, seed: int = 0) -> AsyncIterator[tuple[FaultProxy, Client, Client]]:
    """A proxy, a client through it, and one beside it."""
    async with (
        APIServer(token=TOKEN).serve() as url,
        FaultProxy(ClusterConfig.direct(url, TOKEN), *rules, seed=seed) as proxy,
        Client.connect(proxy.config) as client,
        Client.connect(ClusterConfig.direct(url, TOKEN)) as direct,
    ):
        yield proxy, client, direct


async def lines(client: Client, **params: str) -> AsyncIterator[dict[str, Any]]:
    request = HttpRequest("GET", MAPS, {"watch": "true", **params})
    async with client.transport.stream(request) as stream:
        assert stream.status == 200
        rest = b""
        async for chunk in stream.chunks():
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                yield json.loads(line)
        assert not rest


@pytest.mark.parametrize(
    ("method", "path", "verb", "resource", "rest"),
    [
        ("GET", MAPS, "list", "configmaps", ("", "default", "", "")),
        ("GET", MAPS + "/a", "get", "configmaps", ("", "default", "a", "")),
        ("POST", MAPS, "create", "configmaps", ("", "default", "", "")),
        ("PATCH", "/apis/apps/v1/namespaces/x/deployments/d/status", "patch", "deployments",
         ("apps", "x", "d", "status")),
        ("GET", "/apis/apps/v1/deployments", "list", "deployments", ("apps", "", "", "")),
        ("GET", "/api/v1/namespaces", "list", "namespaces", ("", "", "", "")),
        ("DELETE", "/api/v1/namespaces/x", "delete", "namespaces", ("", "", "x", "")),
        ("PUT", "/api/v1/namespaces/x/finalize", "update", "namespaces", ("", "", "x", "finalize")),
        ("GET", "/api/v1/nodes/n", "get", "nodes", ("", "", "n", "")),
        ("GET", "/apis/apps/v1", "other", "", ("", "", "", "")),
        ("GET", "/apis", "other", "", ("", "", "", "")),
        ("GET", "/version", "other", "", ("", "", "", "")),
    ],
)  # fmt: skip
def test_requests_are_read_as_the_api_does(
    method: str, path: str, verb: str, resource: str, rest: tuple[str, ...]
) -> None:
    asked = Asked.of(method, path)
    assert (asked.verb, asked.resource) == (verb, resource)
    assert (asked.group, asked.namespace, asked.name, asked.subresource) == rest


async def test_without_a_rule_everything_passes() -> None:
    async with proxied() as (proxy, client, direct):
        made = await client.create(config_map("a", k="v"))
        assert (await direct.get(CONFIG_MAP, "a", "default")).to_dict() == made.to_dict()
        stale = made.to_dict()
        await client.patch(CONFIG_MAP, "a", "default", {"data": {"k": "w"}})
        with pytest.raises(Conflict):
            await client.update(stale)
        assert [o.name for o in await client.list(CONFIG_MAP, "default")] == ["a"]
        watch = lines(client, resourceVersion=made.metadata.resource_version)
        assert (await anext(watch))["object"]["data"] == {"k": "w"}
        await eventually(lambda: len(proxy.watches) == 1)
        await watch.aclose()  # type: ignore[attr-defined]
        await eventually(lambda: not proxy.watches)
        assert [p.asked.verb for p in proxy.requests] == [
            "create", "patch", "update", "list", "watch",
        ]  # fmt: skip
        assert not proxy.faults


async def test_the_proxy_serves_nobody_without_its_token() -> None:
    async with proxied() as (proxy, _, _):
        stranger = ClusterConfig.direct(proxy.config.server, TOKEN)
        async with Client.connect(stranger) as client:
            with pytest.raises(Unauthorized, match="token"):
                await client.list(CONFIG_MAP)


async def test_nothing_is_asked_for_that_the_client_did_not() -> None:
    """A client that takes no compression got some: aiohttp asks for it unless told not to."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with FaultProxy(ClusterConfig.direct(url)) as proxy:
            host, port = proxy.config.server.removeprefix("http://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            token = await proxy.config.credentials.token()
            head = f"POST /api HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
            writer.write(f"{head}Content-Length: 2\r\nX-Own: 1\r\n\r\n{{}}".encode())
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            writer.close()
            await writer.wait_closed()
    names = {line.partition(b":")[0].lower() for line in asked[0].split(b"\r\n")[1:-2]}
    assert names == {b"host", b"content-length", b"x-own"}


async def test_an_upstream_over_tls(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert", tmp_path / "key"
    certificate.create(cert, key)
    async with APIServer(token=TOKEN).serve(tls=(cert, key)) as url:
        upstream = ClusterConfig.direct(url, TOKEN, ca=cert)
        async with FaultProxy(upstream) as proxy, Client.connect(proxy.config) as client:
            assert (await client.create(config_map("a"))).uid


async def test_refusals_and_retry_after() -> None:
    rule = Rule(TOO_MANY_REQUESTS, verbs=("create",), count=1)
    async with proxied(rule) as (proxy, client, _):
        started = time.monotonic()
        await client.create(config_map("a"))
        assert time.monotonic() - started >= 1  # it waited as it was told
        assert proxy.faults == {"429 TooManyRequests": 1}
        with (
            proxy.having(Rule(GONE, resource="configmaps", count=1)),
            pytest.raises(Gone, match="too old"),
        ):
            await client.list(CONFIG_MAP)
        await client.list(CONFIG_MAP)
        async with aiohttp.ClientSession() as http:
            proxy.rules.append(Rule(TOO_LARGE_VERSION))
            headers = {"Authorization": f"Bearer {await proxy.config.credentials.token()}"}
            async with http.get(proxy.config.server + MAPS, headers=headers) as answer:
                assert answer.status == 504
                details = (await answer.json())["details"]
                assert details["causes"][0]["reason"] == "ResourceVersionTooLarge"


async def test_a_write_is_not_done_or_done_and_its_answer_is_lost() -> None:
    async with proxied() as (proxy, client, direct):
        with proxy.having(Rule(Close())), pytest.raises(Unreachable):
            await client.create(config_map("a"))
        with proxy.having(Rule(Close(processed=True))), pytest.raises(Unreachable):
            await client.create(config_map("b"))
        assert [o.name for o in await direct.list(CONFIG_MAP, "default")] == ["b"]


async def test_a_blackhole_answers_nothing_and_ends_with_its_client() -> None:
    async with proxied(Rule(Blackhole(processed=True), verbs=("create",))) as (
        proxy,
        client,
        direct,
    ):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(
                client.transport.request(
                    HttpRequest("POST", MAPS, body=json.dumps(config_map("a")).encode())
                ),
                0.3,
            )
        assert (await direct.get(CONFIG_MAP, "a", "default")).uid
        await eventually(lambda: proxy.connections == 0)


async def test_delays() -> None:
    async with proxied(Rule(Delay(0.3))) as (_, client, direct):
        started = time.monotonic()
        made = await client.create(config_map("a"))
        assert time.monotonic() - started >= 0.3
        watch = lines(client, resourceVersion=made.metadata.resource_version)
        first = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0.3)
        started = time.monotonic()
        for name in ("b", "c"):
            await direct.create(config_map(name))
        assert (await first)["object"]["metadata"]["name"] == "b"
        assert 0.25 <= time.monotonic() - started < 2
        assert (await anext(watch))["object"]["metadata"]["name"] == "c"
        await watch.aclose()  # type: ignore[attr-defined]


async def test_watches_end_break_or_tell_an_error() -> None:
    async with proxied() as (proxy, client, direct):
        made = await direct.create(config_map("a"))
        since = made.metadata.resource_version
        with proxy.having(Rule(EndWatch())):
            assert [line async for line in lines(client, resourceVersion=since)] == []
        await direct.create(config_map("b"))
        with proxy.having(Rule(ErrorEvent(GONE, after=0.2))):
            added, error = [line async for line in lines(client, resourceVersion=since)]
        assert added["object"]["metadata"]["name"] == "b"
        assert (error["type"], error["object"]["code"]) == ("ERROR", 410)
        with proxy.having(Rule(Close(after=0.2))), pytest.raises(Unreachable):
            [line async for line in lines(client, resourceVersion=since)]


async def test_open_watches_are_struck() -> None:
    async with proxied() as (proxy, client, _):
        for fault, outcome in (
            (EndWatch(), None),
            (Close(), Unreachable),
            (Blackhole(), TimeoutError),
        ):
            watch = asyncio.ensure_future(anext(lines(client, resourceVersion="1"), None))
            await eventually(lambda: len(proxy.watches) == 1)
            assert proxy.strike(fault, "pods") == 0
            assert proxy.strike(fault, "configmaps") == 1
            if outcome is None:
                assert await watch is None
            else:
                with pytest.raises(outcome):
                    await asyncio.wait_for(watch, 0.5)
        assert proxy.faults == {"end of watch": 1, "close": 1, "blackhole": 1}


async def test_stale_reads_are_legal_ones() -> None:
    rule = Rule(Stale())
    async with proxied(rule) as (proxy, client, direct):

        async def names(**params: str) -> list[str]:
            return [o.name for o in (await client.page(CONFIG_MAP, "default", params)).items]

        await direct.create(config_map("a"))
        assert await names() == ["a"]  # nothing is remembered yet
        newer = (await direct.create(config_map("b"))).metadata.resource_version
        assert await names(resourceVersion="0") == ["a"]
        assert await names() == ["a", "b"]
        assert await names(resourceVersion=newer) == ["a", "b"]
        rule.fault = Stale(legal=False)
        assert await names() == ["a"]
        rule.fault = Stale(age=0, legal=False)
        assert await names() == ["a", "b"]
        assert proxy.faults == {"stale read": 2}


async def test_a_continue_token_is_refused_and_the_list_is_read_again() -> None:
    rule = Rule(GONE, when=lambda asked: asked.continued, count=1)
    async with proxied(rule) as (proxy, client, direct):
        await asyncio.gather(*(direct.create(config_map(f"c{i}")) for i in range(4)))
        first = await client.page(CONFIG_MAP, "default", {"limit": "2"})
        params = {"limit": "2", "continue": first.continue_token}
        with pytest.raises(Gone):
            await client.page(CONFIG_MAP, "default", params)
        assert len((await client.page(CONFIG_MAP, "default", params)).items) == 2
        assert proxy.faults == {"410 Expired": 1}


async def test_an_outage_breaks_all_there_is() -> None:
    async with proxied() as (proxy, client, _):
        await client.list(CONFIG_MAP)
        watch = asyncio.ensure_future(anext(lines(client, resourceVersion="1"), None))
        await eventually(lambda: len(proxy.watches) == 1)
        with proxy.outage():
            with pytest.raises(Unreachable):
                await watch
            with pytest.raises(Unreachable):
                await client.transport.request(HttpRequest("GET", MAPS))
        await client.list(CONFIG_MAP)


async def test_the_same_seed_throws_the_same_dice() -> None:
    async def play(seed: int) -> list[bool]:
        async with proxied(Rule(INTERNAL_ERROR, probability=0.5), seed=seed) as (proxy, client, _):
            for _ in range(20):
                await client.transport.request(HttpRequest("GET", MAPS))
            return [passed.fault is not None for passed in proxy.requests]

    first, again, other = await play(1), await play(1), await play(2)
    assert first == again != other
    assert 3 < sum(first) < 17


async def test_a_manager_lives_behind_it() -> None:
    rules = [
        Rule(NO_STREAMING_LISTS, when=lambda asked: asked.streaming),
        Rule(ErrorEvent(GONE, after=0.1), count=1),
    ]
    with capture_logs():
        async with proxied(*rules) as (proxy, _, direct):
            manager = Manager(proxy.config)
            manager.watch(CONFIG_MAP)
            async with running(manager):
                await direct.create(config_map("a"))
                await eventually(lambda: sum(proxy.faults.values()) == 2, within=15)
                await direct.create(config_map("b"))
                await eventually(
                    lambda: len(manager.cache.list(CONFIG_MAP, "default")) == 2, within=15
                )
