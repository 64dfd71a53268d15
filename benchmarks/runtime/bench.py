"""Speed and memory of the runtime: `python benchmarks/runtime/bench.py [--objects N] [--events N]`.

Each figure is the median of several runs, each in a fresh process pinned to one core, against a
server of ready-made bytes on the other. Absolute numbers belong to one machine; the ratios to
`json.loads` of the same bytes and to a kr8s loop in the same session are what to compare.
Scenarios:

sync      list all objects until the cache is complete: objects/s, and resident KiB per object
storm     updates of random keys through cache, predicate, queue and a no-op reconcile: events/s
converge  the same with one status PATCH per reconcile, 16 workers: reconciles/s
"""

# ruff: noqa: ARG001, ASYNC110 - scenarios share a signature; polling is what a benchmark may do
import argparse
import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "src"))

import structlog  # noqa: E402
from byte_server import agent  # noqa: E402

from kaos.runtime import Client, ClusterConfig, Controller, Manager, Request, ResourceType  # noqa: E402
from kaos.runtime.informer import Informer  # noqa: E402
from kaos.runtime.watcher import Watcher  # noqa: E402

AGENT = ResourceType("bench.example.com", "v1", "Agent", "agents")


def resident() -> float:
    """KiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1024


class NoOp:
    def __init__(self, manager: Manager | None = None) -> None:
        self.manager = manager
        self.calls = 0

    async def reconcile(self, request: Request, /) -> None:
        self.calls += 1
        if self.manager is not None:
            patch = {"status": {"seen": True}}
            await self.manager.client.patch(
                AGENT, request.name, request.namespace, patch, subresource="status"
            )


async def sync(url: str, objects: int, events: int, *, streaming: bool) -> dict[str, float]:
    async with Client.connect(ClusterConfig.direct(url)) as client:
        informer = Informer(client, AGENT, new_watcher=lambda: Watcher(streaming=streaming))
        gc.collect()
        before, started = resident(), time.perf_counter()
        task = asyncio.create_task(informer.run())
        await informer.wait_synced()
        took = time.perf_counter() - started
        gc.collect()
        memory = resident() - before
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert len(informer.store) == objects
    return {"objects/s": objects / took, "KiB/object": memory / objects}


async def storm(url: str, objects: int, events: int, *, write: bool) -> dict[str, float]:
    manager = Manager(ClusterConfig.direct(url))
    reconciler = NoOp(manager if write else None)
    controller = Controller("bench", reconciler, for_=AGENT, workers=16 if write else 1)
    manager.add(controller)
    informer = manager.cache.informer(AGENT)
    last = objects + events
    started = time.perf_counter()
    task = asyncio.create_task(manager.run())
    await informer.wait_synced()
    synced = time.perf_counter()
    registry, labels = manager.metrics.registry, {"resource": str(AGENT)}
    while (registry.get_sample_value("kaos_runtime_watch_events_total", labels) or 0) < events:
        await asyncio.sleep(0.005)
    watched = time.perf_counter()
    while not controller.idle:
        await asyncio.sleep(0.002)
    done = time.perf_counter()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert max(o.version for o in informer.store) >= last - 1
    return {
        "events/s": events / (watched - synced),
        "reconciles/s": reconciler.calls / (done - started),
        "reconciles": reconciler.calls,
        "converged s": done - started,
        "MiB": resident() / 1024,
    }


async def by_json(url: str, objects: int, events: int) -> dict[str, float]:
    """The yardstick: json.loads of the same bytes, and nothing else."""
    body = json.dumps({"items": [agent(n, n) for n in range(objects)]}).encode()
    lines = [json.dumps({"type": "MODIFIED", "object": agent(n, n)}).encode() for n in range(5000)]
    started = time.perf_counter()
    kept = json.loads(body)
    listed = time.perf_counter() - started
    started = time.perf_counter()
    for line in lines:
        json.loads(line)
    watched = time.perf_counter() - started
    return {"objects/s": len(kept["items"]) / listed, "events/s": 5000 / watched}


async def by_kr8s(url: str, objects: int, events: int) -> dict[str, float]:
    """A loop over kr8s, as one writes it by its documentation."""
    import kr8s  # noqa: PLC0415
    from kr8s.asyncio.objects import new_class  # noqa: PLC0415

    api = await kr8s.asyncio.api(url=url, kubeconfig="/nonexistent")
    cls = new_class("Agent", version="bench.example.com/v1", namespaced=True, plural="agents")
    before, started = resident(), time.perf_counter()
    kept = [o async for o in api.get(cls, namespace=kr8s.ALL)]
    listed = time.perf_counter() - started
    memory = resident() - before
    count, started = 0, time.perf_counter()
    async for _ in api.watch(cls, namespace=kr8s.ALL):
        count += 1
        if count == min(events, 3000):
            break
    watched = time.perf_counter() - started
    return {
        "objects/s": len(kept) / listed,
        "KiB/object": memory / len(kept),
        "events/s": count / watched,
    }


Scenario = Callable[[str, int, int], Awaitable[dict[str, float]]]
SCENARIOS: dict[str, Scenario] = {
    "sync, streamed": lambda u, o, e: sync(u, o, e, streaming=True),
    "sync, pages": lambda u, o, e: sync(u, o, e, streaming=False),
    "storm": lambda u, o, e: storm(u, o, e, write=False),
    "converge": lambda u, o, e: storm(u, o, e, write=True),
    "json.loads": by_json,
    "kr8s": by_kr8s,
}


def run(scenario: str, objects: int, events: int) -> dict[str, float]:
    """One run in a fresh process."""
    server = subprocess.Popen(
        ["taskset", "-c", "1", sys.executable, HERE / "byte_server.py", str(objects), str(events)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    port = server.stdout.readline().strip()
    arguments = ["--one", scenario, "--url", f"http://127.0.0.1:{port}"]
    sizes = ["--objects", str(objects), "--events", str(events)]
    try:
        done = subprocess.run(
            ["taskset", "-c", "0", sys.executable, __file__, *arguments, *sizes],
            capture_output=True,
            text=True,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        print(error.stderr[-2000:])
        raise
    finally:
        server.kill()
        server.wait()
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--objects", type=int, default=10_000)
    parser.add_argument("--events", type=int, default=50_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", choices=SCENARIOS)
    parser.add_argument("--one", choices=SCENARIOS, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(20))
        act = SCENARIOS[options.one]
        print(json.dumps(asyncio.run(act(options.url, options.objects, options.events))))
        return
    for name in [options.only] if options.only else SCENARIOS:
        # kr8s takes so long for a list that a fifth of it must do; its rate does not depend on it.
        objects = options.objects // 5 if name == "kr8s" else options.objects
        results = [run(name, objects, options.events) for _ in range(options.runs)]
        told = {key: statistics.median(r[key] for r in results) for key in results[0]}
        print(f"{name:15}", "  ".join(f"{k} {v:,.1f}" for k, v in told.items()), flush=True)


if __name__ == "__main__":
    main()
