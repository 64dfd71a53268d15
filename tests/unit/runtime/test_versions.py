"""By contract against Kubernetes 1.28 to 1.37: what differs between them, switched on and off.

Of what this library uses, two things differ. Streaming lists (the server's feature WatchList) are
refused up to 1.31 and in 1.33, where they are off by default. Aggregated discovery has its final
form, v2, since 1.30; older servers answer what they are also asked for, the plain form.
"""

import json
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

import pytest
from pydantic import BaseModel
from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from kaos.local.apiserver import APIServer
from kaos.runtime import (
    CONFIG_MAP,
    ApplySet,
    Client,
    Controller,
    CustomResource,
    Manager,
    Object,
    Request,
    crd,
)
from kaos.testing.faults import NO_STREAMING_LISTS
from kaos.testing.inprocess import CONFIG, InProcess
from kaos.testing.running import running
from kaos.testing.waiting import eventually

AGGREGATED = b"application/json;v=v2;g=apidiscovery.k8s.io;as=APIGroupDiscoveryList"


@dataclass(frozen=True)
class Release:
    """What a release serves by default, of what differs."""

    version: str
    streaming_lists: bool
    aggregated_discovery: bool = True


RELEASES = [
    Release("1.28", streaming_lists=False, aggregated_discovery=False),
    Release("1.29", streaming_lists=False, aggregated_discovery=False),
    Release("1.30", streaming_lists=False),
    Release("1.31", streaming_lists=False),
    Release("1.32", streaming_lists=True),
    Release("1.33", streaming_lists=False),
    *(Release(f"1.{minor}", streaming_lists=True) for minor in range(34, 38)),
]


class Emulated:
    """The embedded API server as another release would answer; it counts what it is asked."""

    def __init__(self, app: ASGIApp, release: Release) -> None:
        self.asked: Counter[str] = Counter()
        self._app = app
        self.release = release

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        query = parse_qs(scope["query_string"].decode())
        path, headers = scope["path"], MutableHeaders(scope=scope)
        streaming = "sendInitialEvents" in query
        kind = "streaming list" if streaming else "watch" if "watch" in query else scope["method"]
        self.asked[f"{kind} {path}"] += 1
        if streaming and not self.release.streaming_lists:
            body = json.dumps(NO_STREAMING_LISTS.body())
            await Response(body, 422, media_type="application/json")(scope, receive, send)
            return
        if not self.release.aggregated_discovery:
            headers["accept"] = headers["accept"].replace(AGGREGATED.decode() + ",", "")
        await self._app(scope, receive, send)


class LampSpec(BaseModel):
    watts: int


class Lamp(CustomResource):
    GROUP, VERSION, KIND, PLURAL = "example.com", "v1", "Lamp", "lamps"
    spec: LampSpec


class Lamps:
    def __init__(self, manager: Manager) -> None:
        self.client, self.cache = manager.client, manager.cache
        self.children = ApplySet(manager.client, manager.cache, kinds=[CONFIG_MAP])
        self.finalized: list[str] = []

    async def reconcile(self, request: Request, /) -> None:
        if lamp := self.cache.get(Lamp, request.name, request.namespace):
            data = {"watts": str(lamp.spec["watts"])}
            child = CONFIG_MAP.body(lamp.name, lamp.namespace, data=data)
            await self.children.apply(lamp, [child])
            await self.client.patch(
                Lamp, lamp.name, lamp.namespace, {"status": data}, subresource="status"
            )

    async def finalize(self, obj: Object, /) -> None:
        self.finalized.append(obj.name)


@pytest.fixture(params=RELEASES, ids=lambda release: release.version)
async def emulated(request: pytest.FixtureRequest) -> AsyncIterator[Emulated]:
    server = APIServer(version=f"{request.param.version}.0")
    async with server.running():
        yield Emulated(server.app, request.param)


async def test_each_release_is_read_written_and_watched(emulated: Emulated) -> None:
    client = Client(InProcess(emulated))
    await client.apply(crd(Lamp))
    manager = Manager(CONFIG, transport=InProcess(emulated))
    lamps = Lamps(manager)
    manager.add(Controller("lamps", lamps, for_=Lamp, owns=[CONFIG_MAP]))

    def child() -> Any:
        found = manager.cache.get(CONFIG_MAP, "a", "default")
        return found and found.get("data")

    async with running(manager):
        # A body of a kind that nobody named to this client: found by discovery.
        body = {"apiVersion": "example.com/v1", "kind": "Lamp", "spec": {"watts": 5}}
        await client.create({**body, "metadata": {"name": "a", "namespace": "default"}})
        await eventually(lambda: child() == {"watts": "5"})
        await client.patch(Lamp, "a", "default", {"spec": {"watts": 7}})
        await eventually(lambda: child() == {"watts": "7"})
        await client.patch(CONFIG_MAP, "a", "default", {"data": {"watts": "drift"}})
        await eventually(lambda: child() == {"watts": "7"})
        await client.delete(Lamp, "a", "default")
        await eventually(lambda: lamps.finalized == ["a"] and child() is None)

    release, asked = emulated.release, emulated.asked
    for path in ("/apis/example.com/v1/lamps", "/api/v1/configmaps"):
        assert asked[f"streaming list {path}"] == 1  # refused or not: it is not asked for again
        lists = 0 if release.streaming_lists else 1
        assert (asked[f"GET {path}"], asked[f"watch {path}"]) == (lists, lists)
    one_by_one = asked["GET /apis/example.com/v1"]
    assert one_by_one == (0 if release.aggregated_discovery else 1)
