"""Processes under load: an agent as a pod runs it, and a scripted model behind it.

Guarantees: ports are free ones, and nothing outlives its context. What goes wrong in a process is
on the standard error of the test.
"""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from kaos.testing.waiting import eventually

Json = dict[str, Any]


class Process:
    """A server of ours on a port of its own."""

    def __init__(self, url: str, process: asyncio.subprocess.Process) -> None:
        self.url = url
        self._process = process

    def memory(self) -> float:
        """The resident memory in MB (Linux)."""
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def terminate(self) -> None:
        """Tell it to end, as the kubelet does."""
        self._process.send_signal(signal.SIGTERM)

    async def ended(self, within: float) -> int:
        """Wait for its end; returns the exit code."""
        return await asyncio.wait_for(self._process.wait(), within)


@asynccontextmanager
async def process(*arguments: str, **env: str) -> AsyncIterator[Process]:
    """Run a module of ours until the end of the block, from when it is ready."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        listen = f"127.0.0.1:{probe.getsockname()[1]}"
    full = {"PATH": os.environ["PATH"], "LOG_LEVEL": "ERROR", "KAOS_LISTEN": listen, **env}
    started = await asyncio.create_subprocess_exec(sys.executable, "-m", *arguments, env=full)
    made = Process(f"http://{listen}", started)
    try:
        async with aiohttp.ClientSession() as http:
            await eventually(lambda: _ready(http, made.url), within=60)
        yield made
    finally:
        if started.returncode is None:
            started.kill()
            await started.wait()


@asynccontextmanager
async def model(folder: Path, *conversations: Json) -> AsyncIterator[Process]:
    """A scripted model."""
    script = folder / "script.json"
    script.write_text(json.dumps({"conversations": conversations}))
    async with process("kaos.testing.model", "--script", str(script)) as made:
        yield made


@asynccontextmanager
async def agent(model: Process, **env: str) -> AsyncIterator[Process]:
    """An agent of that model."""
    base = {"AGENT_NAME": "agent", "MODEL_API_URL": model.url, "MODEL_NAME": "scripted"}
    async with process("kaos.agent", **base, **env) as made:
        yield made


async def _ready(http: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with http.get(f"{url}/readyz") as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False
