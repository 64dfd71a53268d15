"""All figures of an agent: what it adds, what it needs, what sessions cost; as Markdown.

Run: `python benchmarks/agent/all.py`, on a machine that does nothing else; about five minutes, and
two more the first time, when LiteLLM is installed. Exit code 1 when a target is missed.
"""

import asyncio
import os
import platform
import sys

import latency
import sessions
import startup
from _report import report


async def main() -> int:
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, CPython {platform.python_version()}, load {load:.1f}\n")
    found = await latency.run(480)
    found += await startup.run(5)
    found += await sessions.run(1000)
    print()
    return report(found)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
