"""A CRD is deleted and comes back with another schema while the manager runs."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pydantic import BaseModel

from kaos.runtime import (
    CONFIG_MAP,
    CUSTOM_RESOURCE_DEFINITION,
    ApplySet,
    Client,
    ClusterConfig,
    Controller,
    CustomResource,
    Invalid,
    Manager,
    Object,
    Request,
    ResourceType,
)
from kaos.testing.waiting import eventually


class Round(BaseModel):
    radius: int


class Square(BaseModel):
    side: str


class RoundShape(CustomResource):
    GROUP, VERSION, KIND, PLURAL = "schemas.kaos.tools", "v1", "Shape", "shapes"
    spec: Round


class SquareShape(CustomResource):
    GROUP, VERSION, KIND, PLURAL = "schemas.kaos.tools", "v1", "Shape", "shapes"
    spec: Square


SHAPE = ResourceType.of(RoundShape)


class Shapes:
    """Each has a ConfigMap that says its spec, and is told of when it goes."""

    def __init__(self, manager: Manager) -> None:
        self.cache = manager.cache
        self.children = ApplySet(manager.client, manager.cache, kinds=[CONFIG_MAP])
        self.finalized: list[str] = []

    async def reconcile(self, request: Request, /) -> None:
        if shape := self.cache.get(SHAPE, request.name, request.namespace):
            data = {name: str(value) for name, value in shape.spec.items()}
            child = CONFIG_MAP.body(shape.name, shape.namespace, data=data)
            await self.children.apply(shape, [child])

    async def finalize(self, obj: Object, /) -> None:
        self.finalized.append(obj.name)


@pytest.mark.timeout(120)
async def test_a_crd_that_goes_and_comes_back_with_another_schema(
    kaos_api: ClusterConfig,
    kaos_client: Client,
    kaos_define: Callable[..., Awaitable[None]],
    kaos_run: Callable[..., Awaitable[Manager]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A 404 that lasts is believed after ten seconds: of that there are tests on a virtual clock.
    monkeypatch.setattr("kaos.runtime.watcher.UNSERVED_AFTER", 2.0)
    monkeypatch.setattr("kaos.runtime.watcher.UNSERVED_LAST", 2.0)
    namespace = kaos_api.namespace
    await kaos_define(RoundShape)
    manager = Manager(kaos_api, namespaces=[namespace])
    shapes = Shapes(manager)
    manager.add(Controller("shapes", shapes, for_=SHAPE, owns=[CONFIG_MAP]))
    await kaos_run(manager)

    async def create(name: str, **spec: Any) -> None:
        await kaos_client.create(SHAPE.body(name, namespace, spec=spec))

    def child(name: str) -> Any:
        found = manager.cache.get(CONFIG_MAP, name, namespace)
        return found and found.get("data")

    await create("a", radius=1)
    await create("b", radius=2)
    await eventually(lambda: child("a") == {"radius": "1"} and child("b") == {"radius": "2"})

    # The server deletes all objects of a kind before the kind: our finalizer lets them go.
    await kaos_client.delete(CUSTOM_RESOURCE_DEFINITION, str(SHAPE))
    await eventually(lambda: not manager.cache.list(SHAPE), within=20)
    assert sorted(shapes.finalized) == ["a", "b"]
    await eventually(lambda: not manager.cache.synced(SHAPE), within=30)
    assert str(SHAPE) in manager.readiness()["kinds"]()

    await kaos_define(SquareShape)
    with pytest.raises(Invalid, match=r"spec\.side"):
        await create("a", radius=1)
    await create("a", side="long")
    await eventually(lambda: child("a") == {"side": "long"}, within=30)
    assert manager.readiness()["kinds"]() == ""
    await kaos_client.delete(SHAPE, "a", namespace)
    await eventually(lambda: shapes.finalized[2:] == ["a"])
