"""kopf as fast as it goes: an event handler, no scanning, no posting, no info logs; uvloop."""

import asyncio
import threading
from typing import Any

import kopf
import uvloop
from _progress import Progress, arguments

args = arguments()
progress = Progress(args.objects, args.final)
synced: set[str] = set()


@kopf.on.startup()
def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.peering.standalone = True


@kopf.on.login()
def login(**_: Any) -> kopf.ConnectionInfo:
    return kopf.ConnectionInfo(server=args.server)


@kopf.on.event("bench.kaos.tools", "v1", "agents")
async def changed(
    namespace: str, name: str, spec: kopf.Spec, status: kopf.Status, patch: kopf.Patch, **_: Any
) -> None:
    if len(synced) < args.objects:
        synced.add(name)
        if len(synced) == args.objects:
            progress.mark("synced")
    number = spec["round"]
    if args.patch and status.get("observedRound") != number:
        patch.status["observedRound"] = number
    if args.workers:
        progress.reconciled((namespace, name), number)


def main() -> None:
    kopf.configure(quiet=True)
    progress.mark("started")
    operator = kopf.operator(clusterwide=True, stop_flag=threading.Event())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(operator)


if __name__ == "__main__":
    main()
