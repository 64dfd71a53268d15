"""One replica of the controller, as a process: `python -m tests.chaos.replica SETTINGS REPORT`.

Each second it writes down what its cache holds, to be compared with the server. At its end, by
SIGTERM or because the lease was lost, it writes what it has left behind: tasks, and how its memory
went. Exit status 3 means that the lease was lost, as a pod would be started again.
"""

import asyncio
import gc
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import structlog

from kaos.runtime import ClusterConfig, LeaderElection, LeadershipLost, Manager
from kaos.runtime.manager import run_until_signal
from kaos.runtime.pool import HttpTransport
from kaos.runtime.transport import HttpRequest, HttpResponse
from tests.chaos.widgets import widgets

LOST = 3
BEGUN = "begun"
COUNTED_EVERY = 5
LEASE = "chaos"
ELECTION = {"lease_duration": 6.0, "renew_deadline": 4.0, "retry_period": 1.0}


def memory() -> float:
    """Resident memory in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def others() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


class Stamping(HttpTransport):
    """Stamps each attempt of a write with its time, by the clock that all processes share."""

    async def request(self, request: HttpRequest) -> HttpResponse:
        if request.method != "GET":
            begun = {BEGUN: repr(time.monotonic())}
            request = replace(request, params={**request.params, **begun})
        return await super().request(request)


def cached(manager: Manager) -> dict[str, Any]:
    """What reads of the cache would return, and how many own writes wait for the watch."""
    informers = manager.cache.informers()
    return {
        "pending": sum(informer.pending for informer in informers),
        "versions": {f"{o.kind} {o.name}": o.version for i in informers for o in i.store},
    }


async def sample(
    seen: dict[str, list[float]], manager: Manager, leads: anyio.Event, now: Path
) -> None:
    parent, led = os.getppid(), False
    while True:
        if os.getppid() != parent:
            os._exit(1)  # the test was killed, and nobody is there to end us
        told = cached(manager)
        seen["memory"].append(round(memory(), 1))
        seen["tasks"].append(len(others()))
        if len(seen["tasks"]) % COUNTED_EVERY == 0 and not told["pending"]:
            gc.collect()
            if leads.is_set() and not led:
                led = True
                seen["blocks"].clear()  # what a reconciler has read of an object stays decoded
            seen["blocks"].append(sys.getallocatedblocks())
        fresh = now.with_suffix(".new")
        fresh.write_text(json.dumps(told))
        fresh.rename(now)
        await asyncio.sleep(1)


async def main(settings: dict[str, Any], report: Path) -> int:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(20))
    election = LeaderElection(LEASE, settings["namespace"], settings["identity"], **ELECTION)
    config = ClusterConfig.direct(settings["server"], settings["token"])
    manager = Manager(
        config,
        field_manager="chaos",
        namespaces=[settings["namespace"]],
        leader_election=election,
        graceful_timeout=5.0,
        transport=Stamping(config),
    )
    controller = widgets(manager)
    manager.add(controller)
    seen: dict[str, list[float]] = {"memory": [], "blocks": [], "tasks": []}
    sampler = asyncio.create_task(
        sample(seen, manager, controller.started, report.with_suffix(".now"))
    )
    status = 0
    try:
        await run_until_signal(manager)
    except* LeadershipLost:
        status = LOST
    finally:
        sampler.cancel()
        await asyncio.wait([sampler])
        for _ in range(5):
            await asyncio.sleep(0)
        left = [repr(task) for task in others()]
        gc.collect()
        found = {**seen, "left": left, "cached": len(cached(manager)["versions"])}
        report.write_text(json.dumps(found))  # noqa: ASYNC240 - the last thing that happens
    return status


if __name__ == "__main__":
    sys.exit(asyncio.run(main(json.loads(sys.argv[1]), Path(sys.argv[2]))))
