"""Probes, on a virtual clock; and single probes against real servers."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from kaos.local.node.probes import Probe, ProbeError, Prober, Tally, run_exec, watch


def probe(kind: str = "readiness", **fields: Any) -> Probe:
    found = Probe.of({f"{kind}Probe": {"exec": {"command": ["x"]}, **fields}}, kind)
    assert found is not None
    return found


class Watched:
    """Runs `watch` against a script: the times at which the container is healthy."""

    def __init__(self, healthy: Sequence[tuple[float, float]]) -> None:
        self._healthy = healthy
        self.looks: list[float] = []
        self.verdicts: list[tuple[bool, float]] = []
        self.failures = 0

    def now(self) -> float:
        return round(asyncio.get_running_loop().time() - self._begun, 2)

    async def once(self, _probe: Probe) -> None:
        self.looks.append(self.now())
        if not any(begin <= self.now() < end for begin, end in self._healthy):
            raise ProbeError("no")

    async def changed(self, ok: bool, _message: str) -> bool:
        self.verdicts.append((ok, self.now()))
        return True

    def failed(self, _message: str) -> None:
        self.failures += 1

    async def run(self, watched: Probe, seconds: float) -> "Watched":
        self._begun = asyncio.get_running_loop().time()
        task = asyncio.create_task(watch(watched, self.once, self.changed, self.failed))
        await asyncio.sleep(seconds)
        task.cancel()
        return self


@pytest.mark.looptime
async def test_a_pod_is_ready_at_once_when_it_is() -> None:
    found = await Watched([(0.3, 1000)]).run(probe(periodSeconds=10, initialDelaySeconds=30), 60)
    (verdict,) = found.verdicts
    assert verdict[0]
    assert verdict[1] < 0.5  # neither the period nor the delay is waited for
    assert found.looks[-1] - found.looks[-2] == 10  # from then on as declared


@pytest.mark.looptime
async def test_early_looks_do_not_make_a_container_fail_sooner() -> None:
    startup = probe("startup", periodSeconds=2, failureThreshold=3, initialDelaySeconds=5)
    found = await Watched([]).run(startup, 5 + 2 * 4 + 2)
    (verdict,) = found.verdicts
    assert not verdict[0]
    assert verdict[1] >= 5 + 2 * 3
    assert found.failures >= 3


@pytest.mark.looptime
async def test_early_looks_become_rare() -> None:
    found = await Watched([]).run(probe(periodSeconds=10), 100)
    assert len(found.looks) < 40


@pytest.mark.looptime
async def test_readiness_is_lost_after_as_many_failures_as_declared_and_found_again() -> None:
    readiness = probe(periodSeconds=1, failureThreshold=3)
    found = await Watched([(0, 10), (20.5, 99)]).run(readiness, 40)
    assert [ok for ok, _ in found.verdicts] == [True, False, True]
    assert 12 <= found.verdicts[1][1] <= 13
    assert 20.5 <= found.verdicts[2][1] <= 22


@pytest.mark.looptime
async def test_liveness_waits_for_its_delay_and_then_for_its_period() -> None:
    liveness = probe("liveness", periodSeconds=3, failureThreshold=2, initialDelaySeconds=7)
    found = await Watched([]).run(liveness, 20)
    assert found.looks == [7, 10, 13, 16, 19]
    assert found.verdicts == [(False, 10)]


def test_thresholds_count_in_a_row() -> None:
    tally = Tally(success_threshold=2, failure_threshold=2)
    assert [tally.record(ok) for ok in (True, False, True, True)] == [False, False, False, True]
    assert [tally.record(ok) for ok in (False, True, False, False)] == [False, False, False, True]
    assert tally.verdict is False


@pytest.fixture
async def prober() -> AsyncIterator[Prober]:
    async def answer(request: web.Request) -> web.Response:
        await asyncio.sleep(float(request.query.get("delay", 0)))
        return web.Response(
            status=int(request.query["status"]), text=request.headers.get("X-Test", "why")
        )

    app = web.Application()
    app.router.add_get("/check", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]

    async def execute(command: Sequence[str], timeout: float) -> tuple[int, str]:
        argv = [sys.executable, "-c", *command]
        return await run_exec(argv, {"PATH": os.environ["PATH"]}, str(Path.cwd()), timeout)

    async with aiohttp.ClientSession() as session:
        yield Prober(session, {8000: port, 9: 9}, {"http": 8000}, execute)
    await runner.cleanup()


def get(query: str, port: object = "http", **fields: Any) -> Probe:
    action = {"httpGet": {"path": f"/check?{query}", "port": port, "host": "example.org", **fields}}
    return Probe("readiness", action)


@pytest.mark.process
@pytest.mark.parametrize("status", [200, 204, 302, 399])
async def test_http_success(prober: Prober, status: int) -> None:
    await prober.once(get(f"status={status}", 8000))


@pytest.mark.process
async def test_http_failures_say_what_came(prober: Prober) -> None:
    with pytest.raises(ProbeError, match=r"statuscode: 503 \(why\)"):
        await prober.once(get("status=503"))
    headers = [{"name": "X-Test", "value": "sent"}]
    with pytest.raises(ProbeError, match=r"404 \(sent\)"):
        await prober.once(get("status=404", httpHeaders=headers))
    with pytest.raises(ProbeError, match=r"no answer within 0\.05s"):
        await prober.once(Probe("liveness", get("status=200&delay=1").action, timeout=0.05))
    with pytest.raises(ProbeError, match="port 81 is not among"):
        await prober.once(get("status=200", 81))


@pytest.mark.process
async def test_tcp_and_grpc_probes_connect(prober: Prober) -> None:
    await prober.once(Probe("liveness", {"tcpSocket": {"port": "http"}}))
    await prober.once(Probe("liveness", {"grpc": {"port": 8000}}))
    with pytest.raises(ProbeError, match="Connect call failed"):
        await prober.once(Probe("liveness", {"tcpSocket": {"port": 9}}))


@pytest.mark.process
async def test_exec_probes(prober: Prober) -> None:
    def command(code: str, **fields: Any) -> Probe:
        return Probe("liveness", {"exec": {"command": [code]}}, timeout=5, **fields)

    await prober.once(command("pass"))
    with pytest.raises(ProbeError, match="exited with 3: no model"):
        await prober.once(command("print('no model'); raise SystemExit(3)"))
    slow = Probe("liveness", {"exec": {"command": ["import time; time.sleep(9)"]}}, timeout=0.1)
    with pytest.raises(ProbeError, match=r"no answer within 0\.1s"):
        await prober.once(slow)
    with pytest.raises(ProbeError, match="no httpGet"):
        await prober.once(Probe("liveness", {}))


@pytest.mark.process
async def test_a_probe_whose_child_holds_its_output_still_ends_in_time() -> None:
    sleeps = "[sys.executable, '-c', 'import time; time.sleep(30)']"
    child = f"import subprocess, sys; subprocess.run({sleeps})"
    async with asyncio.timeout(10):  # not the probe's own half second
        with pytest.raises(TimeoutError):
            await run_exec([sys.executable, "-c", child], dict(os.environ), "/", 0.5)


@pytest.mark.process
async def test_a_probe_that_says_much_is_read_to_its_end(prober: Prober) -> None:
    command = {"exec": {"command": ["print('x' * 1_000_000); print('end'); raise SystemExit(3)"]}}
    with pytest.raises(ProbeError, match=r"exited with 3: x+\nend"):
        await prober.once(Probe("liveness", command, timeout=10))


@pytest.mark.process
async def test_a_probe_that_cannot_start_has_failed() -> None:
    async def execute(_command: Sequence[str], timeout: float) -> tuple[int, str]:
        return await run_exec(["no-such-program"], {"PATH": "/bin"}, "/", timeout)

    async with aiohttp.ClientSession() as session:
        alone = Prober(session, {}, {}, execute)
        with pytest.raises(ProbeError, match="program not found"):
            await alone.once(Probe("liveness", {"exec": {"command": ["x"]}}))
