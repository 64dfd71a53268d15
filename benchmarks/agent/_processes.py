"""Processes of a benchmark: started, waited for, ended, and what they have used (Linux only)."""

import asyncio
import os
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

_PIDS: dict[str, int] = {}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@asynccontextmanager
async def process(
    *arguments: str, port: int, python: str = sys.executable, patience: float = 30.0, **env: str
) -> AsyncIterator[str]:
    """Run a Python process until it accepts connections on its port; ends it afterwards."""
    full = {"PATH": os.environ["PATH"], "LOG_LEVEL": "ERROR", **env}
    started = await asyncio.create_subprocess_exec(
        python, *arguments, env=full, stdout=asyncio.subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"
    try:
        await _accepting(port, started, patience)
        _PIDS[url] = started.pid
        yield url
    finally:
        if started.returncode is None:
            started.terminate()
        await started.wait()


async def _accepting(port: int, started: asyncio.subprocess.Process, patience: float) -> None:
    deadline = time.monotonic() + patience
    while started.returncode is None:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            if time.monotonic() > deadline:
                raise TimeoutError(f"nobody listens on {port}") from None
            await asyncio.sleep(0.005)
        else:
            writer.close()
            return
    raise RuntimeError(f"the process ended with {started.returncode}")


def agent(name: str, model: str, **env: str) -> tuple[tuple[str, ...], dict[str, str], int]:
    """Return the command, environment and port of an agent."""
    port = free_port()
    base = {"AGENT_NAME": name, "MODEL_API_URL": model, "MODEL_NAME": "bench"}
    return ("-m", "kaos.agent"), {**base, "KAOS_LISTEN": f"127.0.0.1:{port}", **env}, port


async def until(http: aiohttp.ClientSession, url: str, patience: float = 60.0) -> None:
    """Wait for a 200, and for an agent to have all that it needs."""
    deadline = time.monotonic() + patience
    while True:
        try:
            async with http.get(url) as answer:
                text = await answer.text()
                if answer.status == 200 and "degraded" not in text:
                    return
        except aiohttp.ClientError as error:
            text = str(error)
        if time.monotonic() > deadline:
            raise TimeoutError(f"{url}: {text}")
        await asyncio.sleep(0.005)


def cpu_seconds(url: str) -> float:
    """Return the processor time that the process behind a URL has had, all threads."""
    tasks = Path(f"/proc/{_PIDS[url]}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def resident_mb(url: str) -> float:
    """Return the resident memory of the process behind a URL."""
    for line in Path(f"/proc/{_PIDS[url]}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return float("nan")
