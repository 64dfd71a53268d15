"""The embedded API server as a process that can be killed: `python -m tests.chaos.server …`."""

import asyncio
import os
import sys
from pathlib import Path

from kaos.local.apiserver import APIServer


async def main(port: int, database: Path, token: str) -> None:
    async with APIServer(database=database, token=token).serve(port=port):
        parent = os.getppid()
        while os.getppid() == parent:  # noqa: ASYNC110 - else the test was killed
            await asyncio.sleep(1)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
