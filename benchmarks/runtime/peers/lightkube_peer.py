"""A loop on lightkube's asyncio client: generic resource, list, watch, a queue, workers; uvloop."""

import asyncio
from typing import Any

import uvloop
from _progress import Progress, arguments
from lightkube import AsyncClient, KubeConfig
from lightkube.config.models import Cluster, User
from lightkube.generic_resource import create_namespaced_resource
from lightkube.types import PatchType
from peers._loop import Key, Loop

Agent = create_namespaced_resource("bench.kaos.tools", "v1", "Agent", "agents")


async def main() -> None:
    args = arguments()
    progress = Progress(args.objects, args.final)
    progress.mark("started")
    client = AsyncClient(
        config=KubeConfig.from_one(cluster=Cluster(server=args.server), user=User())
    )

    async def write(key: Key, _: Any, number: int) -> None:
        await client.patch(
            Agent.Status,
            key[1],
            {"status": {"observedRound": number}},
            namespace=key[0],
            patch_type=PatchType.MERGE,
        )

    loop = Loop(progress, write if args.patch else None)
    listing = client.list(Agent, namespace="*", chunk_size=500)
    listed = {(a.metadata.namespace, a.metadata.name): a async for a in listing}
    assert len(listed) == args.objects
    progress.mark("synced")
    async with asyncio.TaskGroup() as group:
        if args.workers:
            for key, agent in listed.items():
                loop.changed(key, agent)
            for _ in range(args.workers):
                group.create_task(loop.work(lambda agent: agent["spec"]["round"]))
        version = listing.resourceVersion
        async for _, agent in client.watch(Agent, namespace="*", resource_version=version):
            key = agent.metadata.namespace, agent.metadata.name
            known = loop.cache.get(key)
            if known is not None and known.metadata.generation == agent.metadata.generation:
                continue
            loop.changed(key, agent)


if __name__ == "__main__":
    uvloop.run(main())
