"""A loop on kubernetes_asyncio: the custom objects API, its Watch, a queue, workers; uvloop."""

import asyncio
from typing import Any

import uvloop
from _progress import Progress, arguments
from kubernetes_asyncio import client, watch
from peers._loop import Key, Loop

KIND = ("bench.kaos.tools", "v1", "agents")


def key_of(agent: Any) -> Key:
    return agent["metadata"]["namespace"], agent["metadata"]["name"]


async def main() -> None:
    args = arguments()
    progress = Progress(args.objects, args.final)
    progress.mark("started")
    async with client.ApiClient(client.Configuration(host=args.server)) as connection:
        api = client.CustomObjectsApi(connection)

        async def write(key: Key, _: Any, number: int) -> None:
            await api.patch_namespaced_custom_object_status(
                KIND[0],
                KIND[1],
                key[0],
                KIND[2],
                key[1],
                {"status": {"observedRound": number}},
                _content_type="application/merge-patch+json",
            )

        loop = Loop(progress, write if args.patch else None)
        listed: dict[Key, Any] = {}
        params: dict[str, Any] = {"limit": 500}
        while True:
            page = await api.list_cluster_custom_object(*KIND, **params)
            listed |= {key_of(agent): agent for agent in page["items"]}
            if not page["metadata"].get("continue"):
                break
            params["_continue"] = page["metadata"]["continue"]
        assert len(listed) == args.objects
        progress.mark("synced")
        async with asyncio.TaskGroup() as group:
            if args.workers:
                for key, agent in listed.items():
                    loop.changed(key, agent)
                for _ in range(args.workers):
                    group.create_task(loop.work(lambda agent: agent["spec"]["round"]))
            version = page["metadata"]["resourceVersion"]
            watching = watch.Watch().stream(
                api.list_cluster_custom_object, *KIND, resource_version=version
            )
            async for event in watching:
                agent = event["object"]
                known = loop.cache.get(key_of(agent))
                generation = agent["metadata"]["generation"]
                if known is not None and known["metadata"]["generation"] == generation:
                    continue
                loop.changed(key_of(agent), agent)


if __name__ == "__main__":
    uvloop.run(main())
