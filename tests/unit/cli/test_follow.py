"""Which logs are followed, and what of them is shown."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from rich.console import Console

from kaos.cli.follow import Follower, routine, sources
from kaos.cli.watcher import Watcher
from kaos.runtime import Client, Object, Unreachable

RUNNING = {"running": {"startedAt": "2026-11-22T10:00:00Z"}}
LABELS = {"kaos.tools/kind": "modelapi", "kaos.tools/name": "ollama"}


def pod(*containers: dict[str, Any], sidecars: list[dict[str, Any]] | None = None) -> Object:
    return Object.from_dict(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "p", "namespace": "default", "uid": "u", "labels": LABELS},
            "status": {
                "containerStatuses": list(containers),
                "initContainerStatuses": sidecars or [],
            },
        }
    )


def container(name: str = "ollama", restarts: int = 0, **state: Any) -> dict[str, Any]:
    return {"name": name, "restartCount": restarts, "state": state or RUNNING}


def test_the_resource_names_the_log() -> None:
    (only,) = sources(pod(container()))
    assert (only.prefix, only.container) == ("modelapi/ollama", "ollama")


def test_the_container_is_named_when_there_are_several() -> None:
    found = sources(pod(container(), sidecars=[container("puller")]))
    assert [source.prefix for source in found] == [
        "modelapi/ollama:puller",
        "modelapi/ollama:ollama",
    ]


def test_only_what_runs_is_followed_and_each_run_is_its_own() -> None:
    assert list(sources(pod(container(waiting={"reason": "CrashLoopBackOff"})))) == []
    assert list(sources(pod())) == []
    assert next(sources(pod(container()))) != next(sources(pod(container(restarts=1))))


class Cluster:
    """A client and a watcher in one."""

    def __init__(self, *pods: Object) -> None:
        self.found = list(pods)
        self.news = asyncio.Event()
        self.asked: list[int | None] = []
        self.lines: Iterator[list[bytes] | Exception] = iter([])

    def pods(self) -> list[Object]:
        return self.found

    async def changed(self, timeout: float) -> None:
        try:
            async with asyncio.timeout(timeout):
                await self.news.wait()
        except TimeoutError:
            pass
        self.news.clear()

    async def logs(
        self, _name: str, _namespace: str, *, container: str, follow: bool, tail_lines: int | None
    ) -> AsyncIterator[bytes]:
        self.asked.append(tail_lines)
        lines = next(self.lines, [])
        if isinstance(lines, Exception):
            raise lines
        for line in lines:
            yield line


@pytest.mark.looptime
async def test_logs_are_followed_from_now_on_and_new_pods_from_their_start(tmp_path: Path) -> None:
    log = tmp_path / "cluster.log"
    log.write_text('{"event": "before", "level": "error"}\n')
    cluster = Cluster(pod(container()))
    cluster.lines = iter([[b"one"], Unreachable("GET", "reset"), [b"three"], [b"other"]])
    out = io.StringIO()
    follower = Follower(
        cast("Client", cluster), cast("Watcher", cluster), Console(file=out, highlight=False)
    )
    task = asyncio.create_task(follower.run(log))
    await asyncio.sleep(1)
    cluster.found.append(pod(container(restarts=1)))  # its log cannot be read the first time
    cluster.news.set()
    await asyncio.sleep(1)
    with log.open("a") as file:
        file.write('{"event": "fine", "level": "info"}\n{"event": "odd", "level": "warning"}\n')
        file.write(json.dumps({"event": "half"})[:5])
    await asyncio.sleep(10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert out.getvalue().splitlines() == [
        "modelapi/ollama | one",
        "cluster         | warning odd",
        "modelapi/ollama | three",
    ]
    assert cluster.asked == [0, None, None]


def test_a_look_at_somebody_is_routine_and_a_failed_one_is_not() -> None:
    look = {"event": "request", "method": "GET", "outcome": "ok", "status": 200}
    assert routine(json.dumps(look))
    for other in ({"status": 500}, {"method": "POST"}, {"event": "step"}, {"outcome": "left"}):
        assert not routine(json.dumps(look | other))
    assert not routine("GET /v1/models 200")
