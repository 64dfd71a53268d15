"""Controllers that start anew look at everything, and write what drifted and nothing else."""

import asyncio
from pathlib import Path
from typing import Any

import anyio
import yaml

from kaos import api
from kaos.reconcilers import FIELD_MANAGER, Settings, controllers
from kaos.runtime import CONFIG_MAP, DEPLOYMENT, SERVICE, Client, ClusterConfig, Manager
from kaos.testing.running import running as managing
from tests.unit.reconcilers.conftest import served
from tests.unit.reconcilers.harness import Cluster, Logs

EVERYTHING = Path(__file__).parent / "golden" / "everything.input.yaml"
QUIET = 0.15


async def revision(client: Client) -> int:
    """How many writes the server has had."""
    return int((await client.page(CONFIG_MAP, "default", {})).resource_version)


async def settled(config: ClusterConfig, client: Client, bodies: list[dict[str, Any]]) -> int:
    """Run controllers until they have nothing to do; the revision then."""
    manager = Manager(config, field_manager=FIELD_MANAGER)
    made = controllers(manager, Settings(namespace="default"))
    manager.add(*made)
    cluster = Cluster(client, manager, Logs())
    async with managing(manager):
        for body in bodies:
            await cluster.apply(body["kind"], body["metadata"]["name"], body["spec"])
        with anyio.fail_after(10):
            last = -1
            while not all(one.idle for one in made) or last != await revision(client):
                last = await revision(client)
                for deployment in await client.list(DEPLOYMENT, "default"):
                    if "observedGeneration" not in deployment.status:
                        number = deployment.spec["replicas"]
                        await cluster.roll_out(deployment.name, replicas=number)
                await asyncio.sleep(QUIET)
    for model in api.MODELS:
        for obj in await client.list(model, "default"):
            assert obj.status["observedGeneration"] == obj.metadata.generation
    return last


async def test_a_restart_writes_what_drifted_and_nothing_else() -> None:
    bodies = list(yaml.safe_load_all(EVERYTHING.read_text()))
    for body in bodies:
        if "agentNetwork" in body["spec"]:
            body["spec"]["agentNetwork"].pop("access", None)  # one is elsewhere, and refused
    async with served() as (config, client, _):
        before = await settled(config, client, bodies)
        services = await client.list(SERVICE, "default")
        assert len(services) >= 6

        assert await settled(config, client, []) == before

        drift = {"spec": {"type": "NodePort"}}
        await client.patch(SERVICE, services[0].name, "default", drift)
        assert await settled(config, client, []) == before + 2
        assert (await client.get(SERVICE, services[0].name, "default")).spec["type"] == "ClusterIP"
