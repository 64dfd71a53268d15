"""Deployments, Services and routes on a whole small cluster."""

import asyncio
import json

import aiohttp
import pytest
from yarl import URL

from kaos.discovery import locate
from kaos.runtime import DEPLOYMENT, ENDPOINT_SLICE, HTTP_ROUTE, NODE, POD, SERVICE, Object
from tests.unit.node.harness import (
    Cluster,
    available,
    container,
    deployment,
    eventually,
    ready,
    route,
    server_container,
    service,
)

pytestmark = pytest.mark.process


def reason(obj: Object, kind: str) -> str:
    found = [c for c in obj.status.get("conditions") or [] if c["type"] == kind]
    return str(found[0]["reason"]) if found else ""


async def get(url: str) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(URL(url, encoded=True), timeout=aiohttp.ClientTimeout(total=5)) as answer,
    ):
        return answer.status, await answer.text()


def address(small: Cluster, name: str, port: int = 80) -> str:
    entries = json.loads((small.folder / "services.json").read_text())
    return str(entries[f"{name}.default.svc.cluster.local:{port}"])


async def test_a_deployment_becomes_available_scales_and_goes(small: Cluster) -> None:
    await small.client.create(deployment("web", server_container()))
    found = await small.until(DEPLOYMENT, "web", available)
    assert reason(found, "Progressing") == "NewReplicaSetAvailable"
    assert reason(found, "Available") == "MinimumReplicasAvailable"
    (first,) = await small.pods()
    assert first.metadata.controller
    assert first.metadata.controller.uid == found.uid
    assert first.name.startswith(f"web-{first.metadata.labels['pod-template-hash']}-")

    await small.client.patch(DEPLOYMENT, "web", "default", {"spec": {"replicas": 3}})
    await small.until(DEPLOYMENT, "web", available)
    assert len(await small.pods()) == 3
    await small.client.patch(DEPLOYMENT, "web", "default", {"spec": {"replicas": 1}})
    await small.until(DEPLOYMENT, "web", available)
    await small.client.delete(DEPLOYMENT, "web", "default")

    async def no_pods() -> bool:
        return not await small.pods(deleting=True)

    await eventually(no_pods)


async def test_a_rollout_never_leaves_the_service_without_a_ready_pod(small: Cluster) -> None:
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    body = deployment("web", server_container(), strategy=strategy)
    await small.client.create(body)
    await small.client.create(service("web"))
    await small.until(DEPLOYMENT, "web", available)
    body["spec"]["template"]["spec"]["containers"][0]["env"].append(
        {"name": "ANSWER", "value": "new"}
    )
    seen: list[str] = []
    rolled = asyncio.Event()

    async def ask() -> None:
        url = f"http://{address(small, 'web')}/"
        while not rolled.is_set() or seen[-1] != "new /":
            seen.append((await get(url))[1])

    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        tasks.create_task(ask())
        spec = {"spec": {"template": body["spec"]["template"]}}
        await small.client.patch(DEPLOYMENT, "web", "default", spec)
        await small.until(DEPLOYMENT, "web", available)
        rolled.set()
    assert set(seen) == {"hello /", "new /"}
    assert seen[-1] == "new /"


async def test_recreate_ends_the_old_pod_first(small: Cluster) -> None:
    body = deployment("web", server_container(), strategy={"type": "Recreate"})
    await small.client.create(body)
    await small.until(DEPLOYMENT, "web", available)
    (old,) = await small.pods()
    template = body["spec"]["template"]
    template["metadata"]["labels"]["v"] = "2"
    await small.client.patch(DEPLOYMENT, "web", "default", {"spec": {"template": template}})
    await small.until(DEPLOYMENT, "web", available)
    await small.until_gone(POD, old.name)
    (new,) = await small.pods()
    assert new.metadata.creation_timestamp >= old.metadata.creation_timestamp
    assert new.metadata.labels["v"] == "2"


async def test_a_pod_that_is_deleted_is_replaced(small: Cluster) -> None:
    await small.client.create(deployment("web", server_container()))
    await small.until(DEPLOYMENT, "web", available)
    (first,) = await small.pods()
    await small.client.delete(POD, first.name, "default")
    await small.until_gone(POD, first.name)
    await small.until(DEPLOYMENT, "web", available)
    (second,) = await small.pods()
    assert second.uid != first.uid


async def test_a_deployment_that_cannot_become_available_says_so(small: Cluster) -> None:
    bad = {"name": "main", "image": "nginx:1.27"}
    await small.client.create(deployment("web", bad, progressDeadlineSeconds=1))
    found = await small.until(
        DEPLOYMENT, "web", lambda d: reason(d, "Progressing") == "ProgressDeadlineExceeded"
    )
    assert reason(found, "Available") == "MinimumReplicasUnavailable"
    assert found.status["unavailableReplicas"] == 1


async def test_a_service_is_found_through_the_map_and_goes_to_ready_pods_in_turn(
    small: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = [{"name": "ANSWER", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
    await small.client.create(deployment("web", server_container(env=env), replicas=2))
    await small.client.create(service("web"))
    await small.until(DEPLOYMENT, "web", available)
    monkeypatch.setenv("KAOS_SERVICE_MAP", str(small.folder / "services.json"))
    monkeypatch.setenv("KAOS_CLUSTER_DOMAIN", "cluster.local")
    url = locate("http://web.default.svc.cluster.local/")
    await _until_slices(small, 2)
    answers = {(await get(url))[1] for _ in range(4)}
    assert answers == {f"{p.name} /" for p in await small.pods()}
    slices = await small.client.list(ENDPOINT_SLICE, "default")
    hosts = {s.get("ports")[0]["port"] for s in slices}
    assert len(hosts) == 2
    assert all(s.get("endpoints")[0]["conditions"]["ready"] for s in slices)
    await small.client.delete(SERVICE, "web", "default")

    async def forgotten() -> bool:
        return not json.loads((small.folder / "services.json").read_text())

    await eventually(forgotten)
    with pytest.raises(aiohttp.ClientConnectionError):
        await get(url)


async def _until_slices(small: Cluster, count: int) -> None:
    async def all_ready() -> bool:
        found = await small.client.list(ENDPOINT_SLICE, "default")
        return bool(sum(s.get("endpoints")[0]["conditions"]["ready"] for s in found) == count)

    await eventually(all_ready)


async def test_a_service_without_a_ready_pod_resets_connections(small: Cluster) -> None:
    await small.client.create(service("web"))
    async with asyncio.timeout(5):
        while not (small.folder / "services.json").exists():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    with pytest.raises(aiohttp.ClientConnectionError):
        await get(f"http://{address(small, 'web')}/")


async def test_the_gateway_leads_to_the_pod_and_the_route_says_so(small: Cluster) -> None:
    for body in (
        deployment("web", server_container()),
        service("web"),
        route("web", "/web", timeouts={"request": "5s"}),
    ):
        await small.client.create(body)
    await small.until(DEPLOYMENT, "web", available)
    base = f"http://localhost:{small.node.gateway.port}"
    status, text = await _eventually(f"{base}/web/v1/models?x=%2F")
    assert (status, text) == (200, "hello /v1/models?x=%2F")
    found = await small.until(HTTP_ROUTE, "web", lambda r: len(r.status.get("parents") or []) == 1)
    conditions = found.status["parents"][0]["conditions"]
    assert {c["type"]: c["status"] for c in conditions} == {
        "Accepted": "True",
        "ResolvedRefs": "True",
    }
    status, text = await get(f"{base}/nothing")
    assert status == 404
    assert "/web" in json.loads(text)["error"]["message"]
    assert "/web" in (await get(f"{base}/"))[1]
    await small.client.delete(HTTP_ROUTE, "web", "default")

    async def not_found() -> bool:
        return (await get(f"{base}/web"))[0] == 404

    await eventually(not_found)


async def _eventually(url: str) -> tuple[int, str]:
    """Ask until the gateway knows: a route is taken over a moment after it was made."""

    async def found() -> bool:
        return (await get(url))[0] == 200

    await eventually(found)
    return await get(url)


async def test_a_route_that_is_none_is_told_so(small: Cluster) -> None:
    await small.client.create(route("web", "/web", backendRefs=[{"port": "http"}]))
    found = await small.until(HTTP_ROUTE, "web", lambda r: r.status.get("parents"))
    conditions = {c["type"]: c for c in found.status["parents"][0]["conditions"]}
    assert conditions["Accepted"]["status"] == conditions["ResolvedRefs"]["status"] == "False"
    assert "has not the form of an HTTPRoute" in conditions["Accepted"]["message"]
    await small.client.create(service("web"))
    await small.client.create(route("other", "/other"))
    await small.until(HTTP_ROUTE, "other", lambda r: r.status.get("parents"))


async def test_a_route_to_nowhere_names_what_is_missing(small: Cluster) -> None:
    await small.client.create(route("web", "/web"))
    found = await small.until(HTTP_ROUTE, "web", lambda r: r.status.get("parents"))
    conditions = {c["type"]: c for c in found.status["parents"][0]["conditions"]}
    assert conditions["ResolvedRefs"]["reason"] == "BackendNotFound"
    status, text = await get(f"http://127.0.0.1:{small.node.gateway.port}/web")
    assert status == 503
    assert "there is no Service default/web" in text
    await small.client.create(service("web"))
    await small.until(
        HTTP_ROUTE,
        "web",
        lambda r: r.status["parents"][0]["conditions"][1]["status"] == "True",
    )
    status, text = await get(f"http://127.0.0.1:{small.node.gateway.port}/web")
    assert (status, "no pod matches its selector" in text) == (503, True)


async def test_the_node_is_registered_and_ready(small: Cluster) -> None:
    found = await small.until(NODE, "local", ready)
    assert found.status["nodeInfo"]["containerRuntimeVersion"].startswith("process://")


async def test_pods_reach_each_other_by_the_addresses_of_their_manifests(
    small: Cluster,
) -> None:
    """Two containers of one pod talk over localhost, as they do in a pod's network."""
    code = (
        "import sys, time, urllib.request\n"
        "for _ in range(100):\n"
        "    try: print(urllib.request.urlopen(sys.argv[1]).read().decode()); break\n"
        "    except OSError: time.sleep(0.05)\n"
        "sys.stdout.flush(); time.sleep(60)"
    )
    other = {**container(code, args=["http://127.0.0.1:8000/peer"]), "name": "other"}
    await small.client.create(deployment("web", server_container(), other))
    await small.until(DEPLOYMENT, "web", available)
    (found,) = await small.pods()

    async def answered() -> bool:
        pieces = small.node.read_logs("default", found.name, "other")
        return b"".join([piece async for piece in pieces]) == b"hello /peer\n"

    await eventually(answered)
