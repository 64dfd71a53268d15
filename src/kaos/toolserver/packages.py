"""Servers from a package index: installed into a folder of their own, and what starts them.

Guarantees: a name is a name (a pattern says so before anything is run): no path, URL, option or
word of a shell gets to `pip` or `npm`, and each gets it as one word of a list. What is installed
is kept in the folder, so a container that starts again needs no index. An installation has a
deadline, and goes with its process group when it is cut short. What is missing (a tool, the
package, a program in it) is one line with the way out.

Does not: check what a package does. It is code that runs in the pod, as the user of the pod, and
sees the variables of the pod: the pod is the boundary, and a pinned version the way to know it.

Where packages come from is the tools' own business: `PIP_INDEX_URL`, `PIP_FIND_LINKS`,
`npm_config_registry` and the like in the environment, or for npm a package that the image already
has (`npm install --global`), which is taken as it is unless another version is named.
"""

import asyncio
import contextlib
import importlib.metadata
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

Runtime = Literal["python", "node"]

TIMEOUT = 600.0
MAX_OUTPUT = 65536
PATTERNS: Mapping[str, re.Pattern[str]] = {
    "python": re.compile(
        r"(?P<name>[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?)"
        r"(\[[A-Za-z0-9._-]+(,[A-Za-z0-9._-]+)*\])?(==(?P<version>[A-Za-z0-9][A-Za-z0-9.!+_-]{0,63}))?"
    ),
    "node": re.compile(
        r"(?P<name>(@[a-z0-9][a-z0-9._-]{0,126}/)?[a-z0-9][a-z0-9._-]{0,126})"
        r"(@(?P<version>[A-Za-z0-9][A-Za-z0-9.+-]{0,63}))?"
    ),
}
_ARGV = "kaos-argv.json"


class PackageError(Exception):
    """The package cannot be run; the message says why."""


async def prepare(
    runtime: Runtime, package: str, folder: Path, env: Mapping[str, str]
) -> list[str]:
    """Install a package, unless it is there, and return the command line of its server.

    Args:
        runtime: Whose index it is on.
        package: `name`, `name[extra]` or `name==version`; for node `name` or `name@version`.
        folder: Where it goes; may exist.
        env: The environment of the tools.

    Raises:
        PackageError: It cannot be had, or has no program.
    """
    match = PATTERNS[runtime].fullmatch(package)
    if match is None:
        raise PackageError(f"{package[:200]!r} is not the name of a package for {runtime}")
    kept = folder / _ARGV
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(kept.read_text())
        if found["package"] == package:
            return [str(word) for word in found["argv"]]
    install = _python if runtime == "python" else _node
    try:
        async with asyncio.timeout(TIMEOUT):
            argv = await install(package, match, folder, env)
    except TimeoutError as error:
        raise PackageError(f"{package} was not installed within {TIMEOUT:.0f} s") from error
    kept.write_text(json.dumps({"package": package, "argv": argv}))
    return argv


async def _python(
    package: str, match: re.Match[str], folder: Path, env: Mapping[str, str]
) -> list[str]:
    """An environment of its own with the package, and its console script."""
    await _run([sys.executable, "-m", "venv", "--clear", str(folder)], env)
    python = str(folder / "bin" / "python")
    options = ("--quiet", "--no-input", "--no-cache-dir", "--disable-pip-version-check")
    await _run([python, "-m", "pip", "install", *options, "--", package], env)
    (packages,) = (folder / "lib").glob("python*/site-packages")
    (found,) = importlib.metadata.distributions(name=match["name"], path=[str(packages)])
    scripts = [e.name for e in found.entry_points if e.group == "console_scripts"]
    return [str(folder / "bin" / _program(package, match["name"], scripts))]


async def _node(
    package: str, match: re.Match[str], folder: Path, env: Mapping[str, str]
) -> list[str]:
    """The package in a node_modules of its own, or in the image's, and its program."""
    path = env.get("PATH")
    node, npm = (shutil.which(tool, path=path) for tool in ("node", "npm"))
    if node is None or npm is None:
        raise PackageError(
            f"{package} needs node and npm, which are not on the PATH here: use an image that has "
            "them (docs/reference/mcpserver.md), or on the embedded cluster install Node.js"
        )
    # Not by `npm root --global`: it blots out what looks like a UUID, as a pod's folder does.
    prefixes = [env.get("npm_config_prefix"), str(Path(node).parents[1]), "/usr/local"]
    homes = [Path(p) / "lib" / "node_modules" / match["name"] for p in prefixes if p]
    home = next((home for home in homes if home.is_dir()), homes[0])
    manifest = _manifest(home)
    if manifest.get("version") is None or match["version"] not in (None, manifest["version"]):
        options = ("--no-audit", "--no-fund", "--no-update-notifier", "--omit=dev")
        where = ("--prefix", str(folder), "--cache", str(folder / "npm"))
        await _run([npm, "install", *options, *where, "--", package], env)
        home = folder / "node_modules" / match["name"]
        manifest = _manifest(home)
    programs = manifest.get("bin") or {}
    short = match["name"].rpartition("/")[2]
    if isinstance(programs, str):
        programs = {short: programs}
    program = home / programs[_program(package, short, list(programs))]
    return [node, str(program)]


def _manifest(home: Path) -> dict[str, Any]:
    try:
        found = json.loads((home / "package.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _program(package: str, name: str, programs: Sequence[str]) -> str:
    """Which of a package's programs is its server: the one of its name, or the only one."""
    plain = re.sub(r"[-_.]+", "-", name).lower()
    for program in programs:
        if re.sub(r"[-_.]+", "-", program).lower() == plain:
            return program
    if len(programs) == 1:
        return programs[0]
    has = f"several ({', '.join(sorted(programs))})" if programs else "none"
    raise PackageError(f"{package} has no program of its name that could be its server, but {has}")


async def _run(argv: Sequence[str], env: Mapping[str, str]) -> str:
    """Run a tool to its end; returns what it printed.

    Raises:
        PackageError: It failed; with the last line that it said.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            env=dict(env),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise PackageError(f"{argv[0]} cannot be started: {error.strerror}") from error
    try:
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        output = b""
        while data := await process.stdout.read(MAX_OUTPUT):
            output = (output + data)[-MAX_OUTPUT:]
        status = await process.wait()
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    text = output.decode(errors="replace")
    if status:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        errors = [line for line in lines if re.match(r"(ERROR|npm (ERR!|error))", line)]
        said = (errors or lines or [f"exit status {status}"])[0 if errors else -1]
        raise PackageError(f"{' '.join(argv[1:4])} … failed: {said}")
    return text
