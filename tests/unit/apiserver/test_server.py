"""The server over HTTP: paths, bodies, forms of answers, tokens, and its end."""

import asyncio
import io
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from kaos.local.apiserver import APIServer
from kaos.local.apiserver.journal import Journal
from kaos.testing.waiting import eventually

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"


@asynccontextmanager
async def running(**options: Any) -> AsyncIterator[aiohttp.ClientSession]:
    server = APIServer(**options)
    async with server.serve() as url, aiohttp.ClientSession(url) as session:
        yield session


@pytest.fixture
async def api() -> AsyncIterator[aiohttp.ClientSession]:
    async with running() as session:
        yield session


async def send(
    api: aiohttp.ClientSession, method: str, path: str, body: Any = None, **headers: str
) -> tuple[int, Any]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    content: dict[str, Any] = {"json": body}
    if isinstance(body, str | bytes):
        content = {"data": io.BytesIO(body.encode() if isinstance(body, str) else body)}
    async with api.request(method, path, headers=named, **content) as response:
        return response.status, await response.json(content_type=None)


async def test_an_object_lives_and_dies(api: aiohttp.ClientSession) -> None:
    code, made = await send(
        api, "POST", CONFIG_MAPS, {"metadata": {"name": "a"}, "data": {"k": "v"}}
    )
    assert code == 201
    assert made["kind"] == "ConfigMap"
    assert made["metadata"]["managedFields"][0]["manager"].startswith("Python")
    code, listed = await send(api, "GET", CONFIG_MAPS)
    assert (code, listed["kind"], listed["items"]) == (200, "ConfigMapList", [made])
    made["data"]["k"] = "w"
    code, put = await send(api, "PUT", f"{CONFIG_MAPS}/a", made)
    assert (code, put["data"]) == (200, {"k": "w"})
    code, gone = await send(api, "DELETE", f"{CONFIG_MAPS}/a")
    assert (code, gone["status"], gone["details"]["uid"]) == (
        200,
        "Success",
        made["metadata"]["uid"],
    )
    code, status = await send(api, "GET", f"{CONFIG_MAPS}/a")
    assert code == 404
    assert status == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": 'configmaps "a" not found',
        "reason": "NotFound",
        "details": {"name": "a", "kind": "configmaps"},
        "code": 404,
    }


async def test_nobody_is_shown_a_write_that_a_crash_could_take_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A controller that saw its own write by the watch, and never again, was done with it."""
    disk, commit = threading.Event(), Journal._commit

    def slow(journal: Journal, rows: Any) -> None:
        disk.wait(10)
        commit(journal, rows)

    server = APIServer(database=tmp_path / "state.db")
    async with server.serve() as url, aiohttp.ClientSession(url) as api:
        await send(api, "POST", CONFIG_MAPS, {"metadata": {"name": "old"}})
        async with api.get(f"{CONFIG_MAPS}?watch=true") as watch:
            assert b'"old"' in await watch.content.readline()
            monkeypatch.setattr(Journal, "_commit", slow)
            new = asyncio.create_task(send(api, "POST", CONFIG_MAPS, {"metadata": {"name": "new"}}))
            await eventually(lambda: server.store.count("/configmaps") == 2)
            old = asyncio.create_task(send(api, "DELETE", f"{CONFIG_MAPS}/old"))
            await eventually(lambda: server.store.count("/configmaps") == 1)
            reads = [
                asyncio.create_task(send(api, "GET", path))
                for path in (CONFIG_MAPS, f"{CONFIG_MAPS}/old", f"{CONFIG_MAPS}/new")
            ]
            told = asyncio.create_task(watch.content.readline())
            done, _ = await asyncio.wait([new, old, *reads, told], timeout=0.1)
            assert not done
            disk.set()
            assert b'"new"' in await asyncio.wait_for(told, 5)
            answers = await asyncio.wait_for(asyncio.gather(new, old, *reads), 5)
    assert [code for code, _ in answers] == [201, 200, 200, 404, 200]


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/api/v1/nonsense", 404),
        ("GET", "/apis/nobody.io/v1/things", 404),
        ("GET", "/apis/nobody.io", 404),
        ("GET", "/api/v1/namespaces/default/nodes/x", 404),
        ("GET", f"{CONFIG_MAPS}/a/b/c", 404),
        ("PUT", CONFIG_MAPS, 405),
        ("POST", "/api/v1/configmaps", 405),
        ("GET", "/api/v1/namespaces/default?resourceVersion=99999", 504),
        ("GET", "/api/v1/events?fieldSelector=involvedObject.name%3Dx", 200),
        ("GET", "/api/v1/events?fieldSelector=regarding.name%3Dx", 400),
        ("GET", "/apis/events.k8s.io/v1/events?fieldSelector=regarding.name%3Dx", 200),
        ("GET", "/apis/events.k8s.io/v1/events?fieldSelector=involvedObject.name%3Dx", 400),
        ("POST", f"{CONFIG_MAPS}/a", 405),
        ("OPTIONS", CONFIG_MAPS, 405),
        ("POST", "/apis", 405),
        ("GET", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", 405),
        ("GET", f"{CONFIG_MAPS}?limit=x", 400),
        ("GET", f"{CONFIG_MAPS}?labelSelector=a%20b", 400),
        ("GET", f"{CONFIG_MAPS}?fieldSelector=data.x%3Dy", 400),
        ("GET", f"{CONFIG_MAPS}?continue=xx", 400),
        ("GET", f"{CONFIG_MAPS}?resourceVersion=99999", 504),
        ("GET", "/healthz", 200),
        ("GET", "/version/", 200),
        ("GET", "/apis/apps/", 200),
        ("GET", "/api/v1/", 200),
    ],
)
async def test_codes(api: aiohttp.ClientSession, method: str, path: str, code: int) -> None:
    async with api.request(method, path) as response:
        assert response.status == code


async def test_bodies_in_every_form(api: aiohttp.ClientSession) -> None:
    yaml = "metadata: {name: y}\ndata: {date: 2026-01-01}\n"
    code, made = await send(api, "POST", CONFIG_MAPS, yaml, content_type="application/yaml")
    assert (code, made["data"]) == (201, {"date": "2026-01-01"})
    for body, form, expected in (
        ("{", "application/json", 400),
        ("a: [", "application/yaml", 400),
        ("{}", "text/plain", 415),
        (b"k8s\0\xff\xff", "application/vnd.kubernetes.protobuf", 400),
        ('{"metadata":{"name":"' + "x" * 3_200_000 + '"}}', "application/json", 413),
    ):
        code, status = await send(api, "POST", CONFIG_MAPS, body, content_type=form)
        assert (code, status["kind"]) == (expected, "Status"), form
    twice = '{"metadata":{"name":"t"},"data":{"a":"1","a":"2"}}'
    path = f"{CONFIG_MAPS}?fieldValidation=Strict"
    code, status = await send(api, "POST", path, twice, content_type="application/json")
    assert code == 400
    assert 'duplicate field "data.a"' in status["message"]


async def test_patches_by_their_media_type(api: aiohttp.ClientSession) -> None:
    await send(api, "POST", CONFIG_MAPS, {"metadata": {"name": "a"}, "data": {"k": "v"}})
    merge = "application/merge-patch+json"
    code, _ = await send(api, "PATCH", f"{CONFIG_MAPS}/a", '{"data":{"m":"1"}}', content_type=merge)
    assert code == 200
    operations = '[{"op":"remove","path":"/data/m"}]'
    json = "application/json-patch+json"
    code, made = await send(api, "PATCH", f"{CONFIG_MAPS}/a", operations, content_type=json)
    assert (code, made["data"]) == (200, {"k": "v"})
    body = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: new}\ndata: {k: v}\n"
    form = "application/apply-patch+yaml"
    path = f"{CONFIG_MAPS}/new?fieldManager=me"
    codes = [(await send(api, "PATCH", path, body, content_type=form))[0] for _ in range(2)]
    assert codes == [201, 200]
    code, status = await send(api, "PATCH", f"{CONFIG_MAPS}/new", body, content_type=form)
    assert code == 422
    assert status["details"]["causes"][0]["field"] == "fieldManager"


async def test_answers_in_the_form_asked_for(api: aiohttp.ClientSession) -> None:
    await send(api, "POST", CONFIG_MAPS, {"metadata": {"name": "a"}})
    table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
    _, found = await send(api, "GET", CONFIG_MAPS, accept=table)
    assert (found["kind"], len(found["rows"])) == ("Table", 1)
    partial = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json"
    _, found = await send(api, "GET", CONFIG_MAPS, accept=partial)
    assert found["kind"] == "PartialObjectMetadataList"
    assert found["items"][0]["kind"] == "PartialObjectMetadata"
    protobuf = "application/vnd.kubernetes.protobuf,application/json"
    _, found = await send(api, "GET", CONFIG_MAPS, accept=protobuf)
    assert found["kind"] == "ConfigMapList"
    discovery = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    async with api.get("/apis", headers={"accept": discovery}) as response:
        assert response.headers["content-type"] == (
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
        )
        groups = (await response.json(content_type=None))["items"]
    assert "apps" in [group["metadata"]["name"] for group in groups]


async def test_pages_show_one_state(api: aiohttp.ClientSession) -> None:
    for name in "abcd":
        await send(api, "POST", CONFIG_MAPS, {"metadata": {"name": name}})
    _, page = await send(api, "GET", f"{CONFIG_MAPS}?limit=2")
    assert page["metadata"]["remainingItemCount"] == 2
    await send(api, "DELETE", f"{CONFIG_MAPS}/c")
    await send(api, "POST", CONFIG_MAPS, {"metadata": {"name": "bb"}})
    token = page["metadata"]["continue"]
    _, rest = await send(api, "GET", f"{CONFIG_MAPS}?limit=2&continue={token}")
    assert [item["metadata"]["name"] for item in rest["items"]] == ["c", "d"]
    assert rest["metadata"] == {"resourceVersion": page["metadata"]["resourceVersion"]}


async def test_a_page_of_a_forgotten_state_is_expired_and_offers_the_present() -> None:
    async with running(history=2) as api:
        for name in "abc":
            await send(api, "POST", CONFIG_MAPS, {"metadata": {"name": name}})
        _, page = await send(api, "GET", f"{CONFIG_MAPS}?limit=1")
        for name in "defghi":
            await send(api, "POST", CONFIG_MAPS, {"metadata": {"name": name}})
        token = page["metadata"]["continue"]
        code, status = await send(api, "GET", f"{CONFIG_MAPS}?continue={token}")
        assert (code, status["reason"]) == (410, "Expired")
        code, rest = await send(
            api, "GET", f"{CONFIG_MAPS}?continue={status['metadata']['continue']}"
        )
        assert [item["metadata"]["name"] for item in rest["items"]] == list("bcdefghi")


async def test_a_watch_is_a_stream_that_ends_with_the_server() -> None:
    server = APIServer()
    async with aiohttp.ClientSession() as session:
        async with server.serve() as url:
            response = await session.get(f"{url}{CONFIG_MAPS}?watch=true")
            await send_to(session, url)
            line = await asyncio.wait_for(response.content.readline(), 5)
            assert b'"type":"ADDED"' in line
        assert await asyncio.wait_for(response.content.read(), 5) == b""


async def send_to(session: aiohttp.ClientSession, url: str) -> None:
    async with session.post(f"{url}{CONFIG_MAPS}", json={"metadata": {"name": "a"}}) as response:
        assert response.status == 201


async def test_only_the_bearer_of_the_token_comes_in() -> None:
    async with running(token="secret") as api:
        for given in ("", "Bearer", "Bearer wrong", "secret"):
            headers = {"authorization": given} if given else {}
            code, status = await send(api, "GET", CONFIG_MAPS, **headers)
            assert (code, status["reason"]) == (401, "Unauthorized")
        code, _ = await send(api, "GET", CONFIG_MAPS, authorization="Bearer secret")
        assert code == 200
        async with api.get("/readyz") as response:
            assert response.status == 200


async def test_the_state_is_there_after_a_restart(tmp_path: Path) -> None:
    database = tmp_path / "state.db"
    async with running(database=database) as api:
        await send(api, "POST", CONFIG_MAPS, {"metadata": {"name": "a"}})
    async with running(database=database) as api:
        code, _ = await send(api, "GET", f"{CONFIG_MAPS}/a")
        assert code == 200


async def test_dependents_are_collected_while_it_serves(api: aiohttp.ClientSession) -> None:
    _, owner = await send(api, "POST", CONFIG_MAPS, {"metadata": {"name": "owner"}})
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner"}
    reference["uid"] = owner["metadata"]["uid"]
    body = {"metadata": {"name": "child", "ownerReferences": [reference]}}
    await send(api, "POST", CONFIG_MAPS, body)
    path = f"{CONFIG_MAPS}?watch=1&fieldSelector=metadata.name%3Dchild"
    async with api.get(path) as watch:
        await send(api, "DELETE", f"{CONFIG_MAPS}/owner")
        async with asyncio.timeout(5):
            lines = [await watch.content.readline() for _ in range(2)]
    assert b'"type":"DELETED"' in lines[1]


async def test_deleting_a_collection(api: aiohttp.ClientSession) -> None:
    for name, label in (("a", "1"), ("b", "1"), ("c", "2")):
        body = {"metadata": {"name": name, "labels": {"x": label}}}
        await send(api, "POST", CONFIG_MAPS, body)
    _, gone = await send(api, "DELETE", f"{CONFIG_MAPS}?labelSelector=x%3D1")
    assert [item["metadata"]["name"] for item in gone["items"]] == ["a", "b"]
    _, left = await send(api, "GET", CONFIG_MAPS)
    assert [item["metadata"]["name"] for item in left["items"]] == ["c"]


async def test_reviews_tell_that_one_user_may_do_everything(api: aiohttp.ClientSession) -> None:
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    code, answer = await send(api, "POST", path, {"spec": {}})
    assert (code, answer["status"]["allowed"]) == (201, True)
    path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    _, answer = await send(api, "POST", path, {})
    assert answer["status"]["userInfo"]["username"] == "kaos-admin"


async def test_a_bug_in_the_server_is_answered_and_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = APIServer()
    monkeypatch.setattr(server.resources, "create", lambda *_: 1 / 0)
    async with server.serve() as url, aiohttp.ClientSession(url) as api:
        with caplog.at_level(logging.ERROR):
            code, status = await send(api, "POST", CONFIG_MAPS, {"metadata": {"name": "a"}})
    assert (code, status["reason"]) == (500, "InternalError")
    assert "POST /api/v1/namespaces/default/configmaps failed" in caplog.text
