"""What an agent costs to start: exec to /healthz, exec to /readyz, and resident memory.

Run: `python benchmarks/agent/startup.py [RUNS]`. Starts real agent processes, without tools and
with one MCP server, against a scripted model in this process. Medians of all runs are printed
beside the targets; exit code 1 when one is missed. Linux only for the memory (/proc).
"""

import asyncio
import os
import signal
import socket
import statistics
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from mcp.server import MCPServer

from kaos.telemetry import serving
from kaos.testing.model import ScriptedModel

# Of the walking skeleton; the agent that is complete is to need 50 MB and 80 MB.
TARGETS = {"no tools": (55.0, 1000.0), "one MCP server": (85.0, 1500.0)}


@dataclass
class Sample:
    healthy_ms: float
    ready_ms: float
    idle_mb: float
    used_mb: float


def resident_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return float("nan")


def status_of(url: str, body: bytes | None = None) -> int:
    try:
        request = urllib.request.Request(url, data=body)
        with urllib.request.urlopen(request, timeout=10) as response:
            response.read()
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


async def until_200(url: str, started: float) -> float:
    while await asyncio.to_thread(status_of, url) != 200:
        if time.perf_counter() - started > 30:
            raise TimeoutError(url)
        await asyncio.sleep(0.005)
    return (time.perf_counter() - started) * 1000


async def sample(model: str, tools: str | None) -> Sample:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = "{}:{}".format(*probe.getsockname()[:2])
    env = {
        "PATH": os.environ["PATH"],
        "AGENT_NAME": "bench",
        "MODEL_API_URL": model,
        "MODEL_NAME": "scripted",
        "KAOS_LISTEN": address,
        "LOG_LEVEL": "WARNING",
    }
    if tools:
        env |= {"MCP_SERVERS": "echo", "MCP_SERVER_ECHO_URL": tools}
    started = time.perf_counter()
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "kaos.agent", env=env)
    try:
        healthy = await until_200(f"http://{address}/healthz", started)
        ready = await until_200(f"http://{address}/readyz", started)
        idle = resident_mb(process.pid)
        body = b'{"messages": [{"role": "user", "content": "hi"}]}'
        for _ in range(20):
            url = f"http://{address}/v1/chat/completions"
            if await asyncio.to_thread(status_of, url, body) != 200:
                raise RuntimeError("the agent did not answer")
        return Sample(healthy, ready, idle, resident_mb(process.pid))
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()


async def main(runs: int) -> int:
    server = MCPServer("echo")

    @server.tool()
    def echo(text: str) -> str:
        """Repeat a text."""
        return text

    model = ScriptedModel()
    model.say("Hello", repeat=True)
    missed = False
    async with (
        model.serve() as model_url,
        serving.running(server.streamable_http_app()) as tools_url,
    ):
        print(f"{'':16} {'healthz ms':>10} {'ready ms':>10} {'idle MB':>8} {'used MB':>8}  target")
        for name, tools in (("no tools", None), ("one MCP server", tools_url)):
            samples = [await sample(model_url, tools) for _ in range(runs)]
            healthy, ready, idle, used = (
                statistics.median(getattr(s, field) for s in samples)
                for field in ("healthy_ms", "ready_ms", "idle_mb", "used_mb")
            )
            megabytes, milliseconds = TARGETS[name]
            missed |= used > megabytes or ready > milliseconds
            print(
                f"{name:16} {healthy:10.0f} {ready:10.0f} {idle:8.1f} {used:8.1f}"
                f"  <= {megabytes:g} MB, <= {milliseconds:g} ms"
            )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)))
