"""A loop on kr8s: list and watch of a declared class, a queue, workers; on uvloop.

Declaring the class with its plural spares kr8s a discovery; each worker has the shared client, as
its API does by itself.
"""

import asyncio
from typing import Any

import kr8s.asyncio
import uvloop
from _progress import Progress, arguments
from kr8s.asyncio.objects import new_class
from peers._loop import Key, Loop

Agent = new_class("Agent", version="bench.kaos.tools/v1", plural="agents", namespaced=True)


async def main() -> None:
    args = arguments()
    progress = Progress(args.objects, args.final)
    progress.mark("started")
    api = await kr8s.asyncio.api(url=args.server)

    async def write(_: Key, agent: Any, number: int) -> None:
        await agent.patch({"status": {"observedRound": number}}, subresource="status")

    loop = Loop(progress, write if args.patch else None)
    # kr8s throws the list's resourceVersion away: a watch from the newest object's would miss
    # nothing here, and is the best one can do.
    version = 0
    listed: dict[Key, Any] = {}
    async for agent in api.async_get(Agent, namespace=kr8s.ALL):
        listed[agent.namespace, agent.name] = agent
        version = max(version, int(agent.metadata.resourceVersion))
    assert len(listed) == args.objects
    progress.mark("synced")
    generations = {key: agent.metadata.generation for key, agent in listed.items()}
    async with asyncio.TaskGroup() as group:
        if args.workers:
            for key, agent in listed.items():
                loop.changed(key, agent)
            for _ in range(args.workers):
                group.create_task(loop.work(lambda agent: agent.spec.round))
        async for _, agent in api.async_watch(Agent, namespace=kr8s.ALL, since=str(version)):
            key = agent.namespace, agent.name
            # The cached object does not tell: kr8s puts the answer to a patch into it.
            generation = agent.metadata.generation
            if generations.get(key) != generation:
                generations[key] = generation
                loop.changed(key, agent)


if __name__ == "__main__":
    uvloop.run(main())
