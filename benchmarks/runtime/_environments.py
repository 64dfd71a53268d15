"""Environments of the comparators, made on demand in a cache folder and kept there.

Libraries that cannot live in one environment each get their own, from PyPI by name; the Go module
is built where Go is installed. A comparator that cannot be had is left out, with a line that says
why.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kaos-benchmarks"
_HERE = Path(__file__).parent


class UnavailableError(Exception):
    """A comparator cannot be had here."""


def python(name: str, *requirements: str) -> str:
    """The interpreter of an environment with these packages."""
    folder = CACHE / f"{name}-{sys.version_info.major}.{sys.version_info.minor}"
    stamp, wanted = folder / "requirements.txt", "\n".join(requirements)
    interpreter = folder / "bin" / "python"
    if not stamp.exists() or stamp.read_text() != wanted:
        _run("make an environment", sys.executable, "-m", "venv", "--clear", str(folder))
        install = ("-m", "pip", "install", "--quiet", *requirements)
        _run(f"install {', '.join(requirements)}", str(interpreter), *install)
        stamp.write_text(wanted)
    return str(interpreter)


def go() -> str:
    """The client-go comparator, built."""
    if shutil.which("go") is None:
        raise UnavailableError("Go is not installed")
    target = CACHE / "client-go"
    CACHE.mkdir(parents=True, exist_ok=True)
    _run("build the Go module", "go", "build", "-o", str(target), ".", cwd=_HERE / "client-go")
    return str(target)


def _run(what: str, *command: str, cwd: Path | None = None) -> None:
    try:
        subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True, timeout=600)
    except subprocess.CalledProcessError as error:
        words = error.stderr.strip().splitlines() or [str(error)]
        raise UnavailableError(f"could not {what}: {words[-1]}") from error
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(f"could not {what}: it took too long") from error
