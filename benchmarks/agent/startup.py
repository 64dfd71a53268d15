"""What an agent costs to start: exec to /healthz, exec to /readyz, and resident memory.

Run: `python benchmarks/agent/startup.py [RUNS]`. Starts real agent processes, without tools and
with one MCP server, and asks each twenty times, with a tool round each where there is a tool.
Medians of all runs; exit code 1 when a target is missed. Linux only (/proc).
"""

import asyncio
import statistics
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
from _processes import agent, free_port, process, resident_mb, until
from _report import Row, report

HERE = Path(__file__).parent
ASKED = 20


async def sample(http: aiohttp.ClientSession, model: str, **env: str) -> tuple[float, float, float]:
    """Return the seconds to the first answer and to readiness, and the megabytes in the end."""
    command, base, port = agent("bench", model)
    started = time.perf_counter()
    async with process(*command, port=port, **base, **env) as url:
        await until(http, f"{url}/healthz")
        healthy = time.perf_counter() - started
        await until(http, f"{url}/readyz")
        ready = time.perf_counter() - started
        body = {"messages": [{"role": "user", "content": "tool" if env else "hi"}]}
        for _ in range(ASKED):
            async with http.post(f"{url}/v1/chat/completions", json=body) as answer:
                if answer.status != 200:
                    raise RuntimeError(await answer.text())
        return healthy, ready, resident_mb(url)


async def run(runs: int) -> list[Row]:
    """Measure, and return what is beside a target."""
    async with AsyncExitStack() as stack:
        start = stack.enter_async_context
        http = await start(aiohttp.ClientSession())
        port = free_port()
        model = await start(process(str(HERE / "_model.py"), str(port), port=port))
        port = free_port()
        env = {
            "MCP_SERVER_NAME": "echo",
            "MCP_TOOLS_STRING": "def echo(text: str) -> str:\n    return text\n",
            "KAOS_LISTEN": f"127.0.0.1:{port}",
        }
        tools = await start(process("-m", "kaos.toolserver", port=port, **env))
        found = []
        for name, more, megabytes, seconds in (
            ("without tools", {}, 50, 0.6),
            ("with an MCP server", {"MCP_SERVERS": "echo", "MCP_SERVER_ECHO_URL": tools}, 80, 1.2),
        ):
            samples = [await sample(http, model, **more) for _ in range(runs)]
            healthy, ready, used = (statistics.median(kind) for kind in zip(*samples, strict=True))
            found += [
                Row(f"exec to the first answer of /healthz, {name}", healthy, unit="s"),
                Row(f"exec to ready, {name}", ready, seconds, unit="s"),
                Row(f"resident, {name}", used, megabytes, unit="MB"),
            ]
        return found


if __name__ == "__main__":
    sys.exit(report(asyncio.run(run(int(sys.argv[1]) if len(sys.argv) > 1 else 5))))
