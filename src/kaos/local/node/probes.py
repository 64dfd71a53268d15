"""Probes of a container: HTTP, TCP and exec, with thresholds and times as a kubelet has them.

Guarantees: startup before liveness and readiness; success and failure thresholds in a row; each
attempt has a deadline; a probe dials loopback only, whatever host its manifest names.

Where it departs from the kubelet, for the sake of a start without idle seconds: until the first
success of a startup or readiness probe it looks every 50 ms and then ever less often up to the
declared period, and does not wait for `initialDelaySeconds`. These early failures do not count:
a failure counts once per declared period, and not before the initial delay and one period are over,
so no container fails sooner here than there. Liveness probes are never early. A gRPC probe is a
TCP probe here.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from kaos.local.node.process import StartError, running

Exec = Callable[[Sequence[str], float], Awaitable[tuple[int, str]]]
"""Run a command in the container's environment: (argv, timeout) → (exit code, output)."""

_FIRST_PERIOD = 0.05
_SLOWER = 1.3
_SHOWN = 300  # characters of an answer in an event
_KEPT = 64 * 1024  # bytes of a command's output
_OK_BELOW = 400


@dataclass(frozen=True, slots=True)
class Probe:
    """A probe as a manifest declares it, with the defaults of the API."""

    kind: str
    action: Mapping[str, Any]
    initial_delay: float = 0
    period: float = 10
    timeout: float = 1
    success_threshold: int = 1
    failure_threshold: int = 3

    @classmethod
    def of(cls, container: Mapping[str, Any], kind: str) -> "Probe | None":
        """The container's "startup", "readiness" or "liveness" probe."""
        body = container.get(f"{kind}Probe")
        if not body:
            return None
        return cls(
            kind=kind,
            action=body,
            initial_delay=body.get("initialDelaySeconds") or 0,
            period=body.get("periodSeconds") or 10,
            timeout=body.get("timeoutSeconds") or 1,
            success_threshold=(body.get("successThreshold") or 1) if kind == "readiness" else 1,
            failure_threshold=body.get("failureThreshold") or 3,
        )


@dataclass(slots=True)
class Tally:
    """Counts results in a row and says when the verdict changes. Pure."""

    success_threshold: int
    failure_threshold: int
    verdict: bool | None = None
    successes: int = 0
    failures: int = 0

    def record(self, ok: bool) -> bool:
        """Count one result; true when the verdict changed."""
        if ok:
            self.successes, self.failures = self.successes + 1, 0
        else:
            self.successes, self.failures = 0, self.failures + 1
        before = self.verdict
        if self.successes >= self.success_threshold:
            self.verdict = True
        elif self.failures >= self.failure_threshold:
            self.verdict = False
        return self.verdict is not before


class ProbeError(Exception):
    """A probe failed; the message is what an event shows."""


@dataclass(frozen=True, slots=True)
class Prober:
    """Does single probes for one container."""

    http: aiohttp.ClientSession
    ports: Mapping[int, int]
    """Host port by container port."""
    names: Mapping[str, int]
    """Container port by name."""
    execute: Exec

    async def once(self, probe: Probe) -> None:
        """Probe once.

        Raises:
            ProbeError: The container did not pass.
        """
        try:
            async with asyncio.timeout(probe.timeout):
                await self._act(probe)
        except TimeoutError as error:
            raise ProbeError(f"no answer within {probe.timeout:g}s") from error
        except (OSError, StartError, aiohttp.ClientError) as error:
            raise ProbeError(str(error) or type(error).__name__) from error

    async def _act(self, probe: Probe) -> None:
        action = probe.action
        if (http := action.get("httpGet")) is not None:
            await self._http(http)
        elif (command := action.get("exec")) is not None:
            code, output = await self.execute(command.get("command") or [], probe.timeout)
            if code:
                raise ProbeError(f"command exited with {code}: {output[-_SHOWN:].strip()}")
        elif (tcp := action.get("tcpSocket") or action.get("grpc")) is not None:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port(tcp.get("port")))
            writer.close()
        else:
            raise ProbeError("the probe has no httpGet, tcpSocket, exec or grpc")

    async def _http(self, get: Mapping[str, Any]) -> None:
        scheme = str(get.get("scheme") or "HTTP").lower()
        path = "/" + str(get.get("path") or "/").lstrip("/")
        url = f"{scheme}://127.0.0.1:{self.port(get.get('port'))}{path}"
        headers = {h["name"]: h.get("value", "") for h in get.get("httpHeaders") or []}
        headers.setdefault("User-Agent", "kube-probe/kaos")
        async with self.http.get(url, headers=headers, allow_redirects=False, ssl=False) as answer:
            if not 200 <= answer.status < _OK_BELOW:
                body = (await answer.content.read(_SHOWN)).decode(errors="replace").strip()
                text = f"HTTP probe failed with statuscode: {answer.status}"
                raise ProbeError(f"{text} ({body})" if body else text)

    def port(self, name: object) -> int:
        """The host port for a container port or a port's name.

        Raises:
            ProbeError: The container does not declare it.
        """
        number = self.names.get(str(name))
        if number is None and str(name).isdigit():
            number = int(str(name))
        if number is None or number not in self.ports:
            raise ProbeError(f"port {name} is not among the container's `ports`: declare it there")
        return self.ports[number]


async def watch(
    probe: Probe,
    once: Callable[[Probe], Awaitable[None]],
    changed: Callable[[bool, str], Awaitable[bool]],
    failed: Callable[[str], None] = lambda _message: None,
) -> None:
    """Probe again and again.

    Args:
        probe: What to probe and how often.
        once: Does one probe; raises ProbeError when it fails.
        changed: Called with the verdict when it changes, and with the last failure's message;
            says whether to go on.
        failed: Called for every failure that counts.
    """
    tally = Tally(probe.success_threshold, probe.failure_threshold)
    early = probe.kind != "liveness"
    clock = asyncio.get_running_loop().time
    # A program that is not listening yet, a moment after its start, is no failure worth an event.
    counts_from = clock() + probe.initial_delay + (probe.period if early else 0)
    if not early:
        await asyncio.sleep(probe.initial_delay)
    period = min(_FIRST_PERIOD, probe.period) if early else probe.period
    while True:
        message = await _outcome(once, probe)
        now = clock()
        if not message:
            period = probe.period
            if tally.record(True) and not await changed(True, ""):
                return
        elif not early or tally.verdict is not None or now >= counts_from:
            counts_from = now + probe.period
            failed(message)
            if tally.record(False) and not await changed(False, message):
                return
        await asyncio.sleep(period)
        if tally.verdict is None:
            period = min(period * _SLOWER, probe.period)


async def _outcome(once: Callable[[Probe], Awaitable[None]], probe: Probe) -> str:
    """The failure's message, or "" for a success."""
    try:
        await once(probe)
    except ProbeError as error:
        return str(error)
    return ""


async def run_exec(
    argv: Sequence[str], env: Mapping[str, str], cwd: str, timeout: float
) -> tuple[int, str]:
    """Run a probe's command to its end, without a shell; what it started ends with it.

    Raises:
        TimeoutError: It took longer than `timeout`; it has been killed.
        StartError: It cannot be started.
    """
    if not argv:
        raise StartError("the command is empty")
    output = bytearray()

    def keep(_stream: str, data: bytes) -> None:
        output.extend(data)
        del output[:-_KEPT]  # all is read, or a command that says much would wait for us

    async with running(argv, env=env, cwd=Path(cwd), output=keep) as process:
        async with asyncio.timeout(timeout):
            ended = await process.wait()
    return ended.code, output.decode(errors="replace")
