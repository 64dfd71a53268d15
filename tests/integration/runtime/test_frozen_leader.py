"""A leader frozen past its lease: another takes over, and it writes nothing when it wakes up."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from kaos.runtime import LEASE, Client, ClusterConfig, NotFound
from kaos.testing.faults import FaultProxy
from kaos.testing.waiting import eventually
from tests.chaos import replica
from tests.chaos.processes import Replica
from tests.chaos.widgets import WIDGET, crd

WIDGETS = 20


@asynccontextmanager
async def replicas(config: ClusterConfig, folder: Path) -> AsyncIterator[list[Replica]]:
    """Two processes of a controller, each behind a proxy that notes what it asks for."""
    async with FaultProxy(config) as first, FaultProxy(config) as second:
        places = [Replica(n, p, config.namespace, folder) for n, p in enumerate((first, second))]
        keepers = [asyncio.create_task(place.keep()) for place in places]
        try:
            yield places
            await asyncio.gather(*(place.end() for place in places))
        finally:
            for keeper in keepers:
                keeper.cancel()
            await asyncio.wait(keepers)


@pytest.mark.timeout(120)
async def test_a_leader_that_was_frozen_past_its_lease_writes_nothing_when_it_wakes(
    kaos_api: ClusterConfig,
    kaos_client: Client,
    kaos_define: Callable[..., Awaitable[None]],
    tmp_path: Path,
) -> None:
    namespace, client = kaos_api.namespace, kaos_client
    await kaos_define(crd())
    wanted = dict.fromkeys((f"w{number:02}" for number in range(WIDGETS)), 0)

    async def leader() -> str:
        try:
            lease = await client.get(LEASE, replica.LEASE, namespace)
        except NotFound:
            return ""
        return str(lease.spec.get("holderIdentity") or "")

    async def edit(rounds: int) -> None:
        """Users never stop: whoever leads always has something to write."""
        for value in range(rounds):
            for name in wanted:
                wanted[name] = value
                await client.patch(WIDGET, name, namespace, {"spec": {"value": value}})
                await asyncio.sleep(0.02)

    async def converged() -> bool:
        found = {w.name: w for w in await client.list(WIDGET, namespace)}
        return all(found[n].status.get("value") == str(value) for n, value in wanted.items())

    async with replicas(kaos_api, tmp_path) as places:
        for name in wanted:
            spec = {"value": 0, "copies": 1, "source": 0}
            await client.create(WIDGET.body(name, namespace, spec=spec))
        await eventually(converged, within=30)
        old = await leader()
        (frozen,) = [place for place in places if place.identity == old]

        seconds = replica.ELECTION["lease_duration"] + 4
        async with asyncio.TaskGroup() as group:
            freezing = group.create_task(frozen.freeze(seconds))
            group.create_task(edit(rounds=int(seconds / (WIDGETS * 0.02)) + 5))
            await asyncio.sleep(seconds - 0.5)
            taken_by = await leader()
        assert taken_by not in ("", old), "nobody took over"
        late = freezing.result()
        assert late is not None, "it could not be frozen"
        assert [f"{p.asked.verb} {p.asked.path}" for p in late] == []
        assert frozen.lost == 1
        await eventually(converged, within=30)
        assert await leader() == taken_by
