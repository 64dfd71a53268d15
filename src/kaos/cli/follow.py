"""The logs of everything in the cluster, merged, each line with the name of who wrote it.

Guaranteed: every container of every pod of ours is followed from the moment it runs, restarts
included; warnings and errors of the cluster process too. A log that cannot be read is tried again
while its container runs, and never ends the others.

Not guaranteed: order across containers beyond that of arrival.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import anyio
from anyio.abc import TaskGroup
from rich.console import Console

from kaos.cli.loglines import parse, render
from kaos.cli.watcher import Watcher
from kaos.runtime import Client, Object, RuntimeFailure

LOUD = ("warning", "error", "critical", "exception")
_PAUSE = 0.5


class Source(NamedTuple):
    """One run of one container."""

    namespace: str
    pod: str
    uid: str
    container: str
    restart: int
    prefix: str


class Follower:
    """Prints logs as they are written."""

    def __init__(self, client: Client, watcher: Watcher, out: Console) -> None:
        """Read with ``client``, learn of pods from ``watcher``, print to ``out``."""
        self._client = client
        self._watcher = watcher
        self._out = out
        self._followed: set[Source] = set()
        self._width = 0

    async def run(self, cluster_log: Path) -> None:
        """Follow until cancelled: that is how it ends."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._cluster, cluster_log)
            # What was said while things came up was told by the table: go on from here.
            self._start_new(group, tail_lines=0)
            while True:
                await self._watcher.changed(timeout=5.0)
                self._start_new(group, tail_lines=None)

    def _start_new(self, group: TaskGroup, *, tail_lines: int | None) -> None:
        for pod in self._watcher.pods():
            for source in sources(pod):
                if source not in self._followed:
                    self._followed.add(source)
                    self._width = max(self._width, len(source.prefix))
                    group.start_soon(self._follow, source, tail_lines)

    async def _follow(self, source: Source, tail_lines: int | None) -> None:
        try:
            async for line in self._client.logs(
                source.pod,
                source.namespace,
                container=source.container,
                follow=True,
                tail_lines=tail_lines,
            ):
                text = line.decode(errors="replace")
                if not routine(text):
                    self._print(source.prefix, text)
        except RuntimeFailure:
            # The container is not there yet, or the pod is going: seen again if it stays.
            await asyncio.sleep(_PAUSE)
            self._followed.discard(source)

    async def _cluster(self, path: Path) -> None:
        """Warnings and errors that the cluster process logs from now on."""
        with path.open(encoding="utf-8", errors="replace") as file:
            file.seek(0, 2)
            pending = ""
            while True:
                pending += file.read(1 << 16)
                *lines, pending = pending.split("\n")
                for line in lines:
                    event = parse(line)
                    if event is None or str(event.get("level")) in LOUD:
                        self._print("cluster", line)
                await asyncio.sleep(_PAUSE)

    def _print(self, prefix: str, line: str) -> None:
        self._out.print(render(prefix, line, width=self._width), soft_wrap=True)


def sources(pod: Object) -> Iterator[Source]:
    """The containers of ``pod`` that run now."""
    labels = pod.metadata.labels
    owner = f"{labels.get('kaos.tools/kind', 'pod')}/{labels.get('kaos.tools/name', pod.name)}"
    status_of_pod = pod.status
    # A sidecar (the puller of a hosted model) is an init container that goes on running.
    statuses = [
        *(status_of_pod.get("initContainerStatuses") or ()),
        *(status_of_pod.get("containerStatuses") or ()),
    ]
    for status in statuses:
        if "running" in (status.get("state") or {}):
            name = str(status["name"])
            prefix = owner if len(statuses) == 1 else f"{owner}:{name}"
            restart = int(status.get("restartCount") or 0)
            yield Source(pod.namespace, pod.name, pod.uid, name, restart, prefix)


def routine(line: str) -> bool:
    """Whether it is one of the looks that agents take at each other every few seconds.

    `kaos logs` shows them; among the logs of everything they would bury what matters.
    """
    event = parse(line)
    return (
        event is not None
        and event["event"] == "request"
        and event.get("method") == "GET"
        and event.get("outcome") == "ok"
        and event.get("status") == 200
    )
