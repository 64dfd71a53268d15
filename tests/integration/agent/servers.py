"""Redis and Postgres for a test session: Debian's, on a free loopback port, in a folder of ours."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

_STARTED_WITHIN = 20.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def accepts(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=0.5):
            return True
    except OSError:
        return False


def until(condition: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + _STARTED_WITHIN
    while not condition():
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"{process.args!r} did not start: {log.read_text()[-2000:]}")
        time.sleep(0.02)


class Server:
    """A server that can be stopped and started again on the same data and port."""

    def __init__(
        self,
        command: list[str],
        folder: Path,
        user: str | None = None,
        ready: Callable[[int], bool] = accepts,
    ) -> None:
        self.port = free_port()
        self._command = [part.replace("{port}", str(self.port)) for part in command]
        self._log = folder / "server.log"
        self._folder = folder
        self._user = user
        self._ready = ready
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self._folder, stdout=log, stderr=log, user=self._user
            )
        until(lambda: self._ready(self.port), self._process, self._log)

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # to Postgres, TERM is to wait for clients
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None


@contextlib.contextmanager
def redis_server(folder: Path) -> Iterator[Server]:
    """Redis, which keeps what it was told when it is stopped and started."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed (apt-get install redis-server)")
    options = ["--bind", "127.0.0.1", "--port", "{port}", "--dir", str(folder)]
    server = Server([program, *options, "--save", "", "--appendonly", "yes"], folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def postgres_server(folder: Path) -> Iterator[Server]:
    """Postgres with a database `postgres` and everybody trusted; it does not run as root."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    initdb = shutil.which("initdb") or (str(found[-1]) if found else None)
    if initdb is None:
        pytest.skip("postgresql is not installed (apt-get install postgresql)")
    programs = Path(initdb).resolve().parent
    user = "postgres" if os.geteuid() == 0 else None
    data = folder / "data"
    data.mkdir()
    if user is not None:
        for path in (folder, data):
            shutil.chown(path, user)
    made = subprocess.run(
        [str(programs / "initdb"), "-D", str(data), "-A", "trust", "-U", "postgres", "-N"],
        cwd=folder,
        user=user,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    settings = {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "fsync": "off",
    }
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    command = [str(programs / "postgres"), "-D", str(data), "-p", "{port}", *options]

    def ready(port: int) -> bool:
        asked = [str(programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", f"{port}"]
        return subprocess.run(asked, check=False).returncode == 0

    server = Server(command, folder, user, ready)
    server.start()
    try:
        yield server
    finally:
        server.stop()
