"""`kaos` as a user runs it: a program of its own, with a state folder and a port for each test."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
SIMPLE = ROOT / "manifests" / "samples" / "simple-agent.yaml"
MULTI = ROOT / "manifests" / "samples" / "multi-agent-gateway.yaml"
KAOS = Path(sys.executable).parent / "kaos"


class Kaos:
    """The program on one state folder."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / ".kaos"
        self.port = free_port()
        self.gateway = f"http://localhost:{self.port}"
        self.kubeconfig = self.state / "kubeconfig"
        self.output = folder / "output"
        self._folder = folder

    def run(
        self, *arguments: str, timeout: float = 180, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """A command, to its end."""
        return subprocess.run(
            self._command(*arguments),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=self._folder,
            check=False,
        )

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """A command that stays; what it says goes to `output`."""
        with self.output.open("wb") as file:
            return subprocess.Popen(
                self._command(*arguments), stdout=file, stderr=file, cwd=self._folder
            )

    def start_up(self, *files: Path | str) -> subprocess.Popen[bytes]:
        """`kaos up` in the foreground, waited for until all is ready."""
        process = self.start("up", *map(str, files))
        try:
            self.wait_for_output("Ctrl-C stops everything", process)
        except BaseException:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
            raise
        return process

    def said(self) -> str:
        """What the command that stays has said."""
        return self.output.read_text(errors="replace")

    def wait_for_output(
        self, text: str, process: subprocess.Popen[bytes], timeout: float = 180
    ) -> None:
        """Wait until the command that stays says ``text``."""

        def heard() -> bool:
            assert process.poll() is None or text in self.said(), self.said() + self.log()
            return text in self.said()

        eventually(f"{text!r} in:\n{self.said()}", heard, timeout)

    def log(self) -> str:
        """The end of the cluster's log."""
        path = self.state / "logs" / "cluster.log"
        return path.read_text(errors="replace")[-4000:] if path.exists() else ""

    def cluster_pid(self) -> int:
        """The process that owns the state folder."""
        return int((self.state / "lock").read_text())

    def kubectl(self, *arguments: str, timeout: float = 150) -> str:
        """What kubectl prints."""
        done = subprocess.run(
            [kubectl(), "--kubeconfig", str(self.kubeconfig), *arguments],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def processes(self) -> list[str]:
        """What still runs on this state folder."""
        mark = str(self.state).encode()
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            if int(entry.name) == os.getpid():
                continue
            try:
                command = (entry / "cmdline").read_bytes()
                if command and (mark in command or mark in (entry / "environ").read_bytes()):
                    found.append(f"{entry.name}: {command.decode(errors='replace')}")
            except OSError:
                continue
        return found

    def left_behind(self) -> list[str]:
        """What still runs on this state folder, or listens on its gateway's port."""
        found = self.processes()
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", self.port))
            except OSError:
                found.append(f"port {self.port}")
        return found

    def nothing_is_left(self, timeout: float = 20) -> None:
        """Wait until everything has ended: a program that is killed cannot wait for it itself."""
        eventually("everything ends", lambda: not self.left_behind(), timeout, self.left_behind)

    def _command(self, command: str, *arguments: str) -> list[str]:
        common = ["--state", str(self.state)]
        if command == "up":
            common += ["--port", str(self.port)]
        return [str(KAOS), command, *arguments, *common]


def kubectl() -> str:
    """The kubectl of this environment, else the one on the PATH."""
    own = Path(sys.executable).parent / "kubectl"
    return str(own) if own.exists() else "kubectl"


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def eventually(
    what: str, check: Callable[[], Any], timeout: float, seen: Callable[[], object] | None = None
) -> None:
    """Wait until a check holds."""
    end = time.monotonic() + timeout
    while not check():
        state = seen() if seen else ""
        assert time.monotonic() < end, f"not within {timeout:.0f} s: {what} {state}"
        time.sleep(0.1)


def using(folder: Path) -> Iterator[Kaos]:
    """`Kaos` on ``folder``; whatever the test did, nothing of it stays."""
    kaos = Kaos(folder)
    try:
        yield kaos
    finally:
        kaos.run("down")
        left = kaos.left_behind()
    assert left == []
