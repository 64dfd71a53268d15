"""Ports of this machine: whether one is free, and who has it when it is not.

The answer to "is it free" is true for a moment only; who binds it must still cope. It is asked
first so that a user reads one line instead of the log of a process that died.
"""

import contextlib
import errno
import shutil
import socket
import subprocess
from pathlib import Path

from kaos.cli.errors import CliError, UsageError

_LISTEN = "0A"


def require_free(port: int) -> None:
    """Fail clearly when the gateway cannot have ``port``.

    Raises:
        CliError: somebody listens on it, or this user may not.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except PermissionError as error:
            raise UsageError(
                f"port {port} needs root: choose another with --port (e.g. --port 8080)"
            ) from error
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise CliError(f"port {port} cannot be used: {error.strerror}") from error
            raise _in_use(port) from error
    if _taken_on_ipv6(port):
        raise _in_use(port)


def _in_use(port: int) -> CliError:
    by = holder(port)
    return CliError(
        f"port {port} is in use{f' by {by}' if by else ''}: "
        f"stop that, or choose another with --port (e.g. --port {free_port()})"
    )


def _taken_on_ipv6(port: int) -> bool:
    """Whether somebody else answers users who are told `localhost`, which may mean ::1 first."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("::1", port))
            probe.listen(1)
    except OSError as error:  # also: a machine without IPv6
        return error.errno == errno.EADDRINUSE
    return False


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def holder(port: int) -> str:
    """``python (process 123)``: who listens on ``port``; empty when that cannot be known."""
    return _holder_by_proc(port) or _holder_by_lsof(port)


def _holder_by_proc(port: int) -> str:
    wanted = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    if not wanted:
        return ""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    if str(descriptor.readlink()) in wanted:
                        return f"{_command(process)} (process {process.name})"
    return ""


def _listening_inodes(port: int) -> list[str]:
    inodes = []
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        with contextlib.suppress(OSError):
            for line in table.read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.append(fields[9])
    return inodes


def _command(process: Path) -> str:
    words = (process / "cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
    text = " ".join([Path(words[0]).name, *words[1:]])
    return f"`{text[:77]}…`" if len(text) > 78 else f"`{text}`"


def _holder_by_lsof(port: int) -> str:
    lsof = shutil.which("lsof")
    if lsof is None:
        return ""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(  # noqa: S603 (a fixed program, and a number)
            [lsof, "-nP", f"-iTCP:{port}", "-sTCP:LISTEN", "-Fpc"],
            capture_output=True,
            text=True,
            timeout=3,
            check=False,
        )
        fields = {line[0]: line[1:] for line in done.stdout.splitlines() if line}
        if "p" in fields:
            return f"{fields.get('c', 'process')} (process {fields['p']})"
    return ""
