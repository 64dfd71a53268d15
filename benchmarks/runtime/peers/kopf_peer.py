"""kopf: an event handler, cluster-wide, standalone.

As fast as it goes: no scanning, no posting, no info logs, on uvloop. With KOPF_INFO=1 it logs at
info, as it does when it is not told otherwise, on the loop of asyncio.
"""

import asyncio
import os
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
    info = "KOPF_INFO" in os.environ
    kopf.configure(quiet=not info)
    progress.mark("started")
    operator = kopf.operator(clusterwide=True, stop_flag=threading.Event())
    loop_factory = None if info else uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(operator)


if __name__ == "__main__":
    main()
