"""What the README's first command costs once everything is downloaded: five runs, the median.

The first answer's time is that of the whole command less the time that it takes to stop.
"""

import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
RUNS = 5
SAMPLE = ROOT / "manifests" / "samples" / "simple-agent.yaml"
READY = re.compile(r"(Cluster is up|Agent/assistant is ready) \(([\d.]+) s\)")


def main() -> None:
    """Measure, and print."""
    rows: dict[str, list[float]] = {}
    for run in range(RUNS + 1):
        for name, seconds in _up(18090 + run).items():
            if run:  # the first warms the caches
                rows.setdefault(name, []).append(seconds)
    for name, values in rows.items():
        print(f"{name:28} {statistics.median(values):6.2f} s  (of {len(values)})")


def _up(port: int) -> dict[str, float]:
    """One run: seconds from the start of the command to what it printed."""
    seen: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="kaos-bench-") as state:
        command = [sys.executable, "-m", "kaos.cli.main", "up", str(SAMPLE), "--ask", "Hello!"]
        begin = time.monotonic()
        process = subprocess.Popen(
            [*command, "--state", state, "--port", str(port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stderr:
            if found := READY.match(line):
                seen[found[1]] = time.monotonic() - begin
            if "Agent/assistant is ready" in line:
                break
        process.stdout.readline()
        seen["first answer"] = time.monotonic() - begin
        process.communicate(timeout=60)
        seen["whole command"] = time.monotonic() - begin
        assert process.returncode == 0
    return seen


if __name__ == "__main__":
    main()
