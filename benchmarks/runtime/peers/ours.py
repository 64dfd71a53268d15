"""kaos.runtime as users run it: logging at info, metrics served, the queue's rate limiter on."""

import asyncio

from _progress import Progress, arguments

from kaos.runtime import ClusterConfig, Controller, HttpServer, Manager, Request, ResourceType
from kaos.telemetry import logs

AGENT = ResourceType("bench.kaos.tools", "v1", "Agent", "agents")


class Reconciler:
    def __init__(self, manager: Manager, progress: Progress, patch: bool) -> None:
        self._manager = manager
        self._progress = progress
        self._patch = patch

    async def reconcile(self, request: Request, /) -> None:
        agent = self._manager.cache.get(AGENT, request.name, request.namespace)
        if agent is None:
            return
        number = agent.spec["round"]
        if self._patch:
            status = {"status": {"observedRound": number}}
            await self._manager.client.patch(
                AGENT, request.name, request.namespace, status, subresource="status"
            )
        self._progress.reconciled(request, number)


async def main() -> None:
    args = arguments()
    logs.configure("INFO", "json")
    progress = Progress(args.objects, args.final)
    progress.mark("started")
    config = ClusterConfig.direct(args.server)
    manager = Manager(config, http=HttpServer(port=0), tune_collector=True)  # as `run` does
    if args.workers:
        reconciler = Reconciler(manager, progress, args.patch)
        manager.add(Controller("agent", reconciler, for_=AGENT, workers=args.workers))
    else:
        manager.watch(AGENT)

    async def report() -> None:
        await manager.cache.informer(AGENT).wait_synced()
        assert len(manager.cache.list(AGENT)) == args.objects
        progress.mark("synced")

    async with asyncio.TaskGroup() as group:
        group.create_task(manager.run())
        group.create_task(report())


if __name__ == "__main__":
    asyncio.run(main())
