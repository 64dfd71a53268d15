"""The state folder of an embedded cluster, and who owns it.

Guaranteed: at most one cluster process works on a folder (an exclusive ``flock`` that the kernel
drops with the process, however it dies); secrets in it are readable by their owner only; files
appear whole or not at all.

Not guaranteed: anything on a network file system that does not honour ``flock``.

The lock is the only proof of life. A pid in a file proves nothing: the process may be gone and its
number taken by another, which a ``kaos down`` would then kill. The lock file's pid is believed only
while the lock is held.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DEFAULT_FOLDER = ".kaos"
_LOCK_PATIENCE = 1.0  # a look at the lock (`owner`) holds it for an instant: not a reason to fail


class StateError(Exception):
    """The state folder cannot be used; the message says why and what to do."""


class StateInUse(StateError):  # noqa: N818 (an answer, not an accident)
    """Another cluster process owns the folder."""

    def __init__(self, folder: Path, pid: int | None) -> None:
        """Remember who holds ``folder``."""
        self.pid = pid
        who = f"process {pid}" if pid else "another process"
        super().__init__(
            f"the state folder {folder} is in use by {who}: stop it with "
            f"`kaos down --state {folder}` or choose another folder with --state"
        )


@dataclasses.dataclass(frozen=True, slots=True)
class ClusterInfo:
    """What a running cluster process tells about itself, in ``cluster.json``."""

    pid: int
    started_at: str
    url: str
    gateway_port: int
    version: str

    @property
    def gateway_url(self) -> str:
        """The address users send requests to."""
        return f"http://localhost:{self.gateway_port}"


class State:
    """One state folder: the paths in it, its lock and its small files."""

    def __init__(self, folder: Path | str = DEFAULT_FOLDER) -> None:
        """Name the folder; nothing is created or read yet."""
        self.folder = Path(folder).absolute()
        self.kubeconfig = self.folder / "kubeconfig"
        self.database = self.folder / "state.db"
        self.node = self.folder / "node"
        self.logs = self.folder / "logs"
        self.cluster_log = self.logs / "cluster.log"
        self.certificate = self.folder / "server.crt"
        self.key = self.folder / "server.key"
        self.cluster_file = self.folder / "cluster.json"
        self._token_file = self.folder / "token"
        self._lock_file = self.folder / "lock"

    def prepare(self) -> None:
        """Create the folder, private to its owner and invisible to git.

        Raises:
            StateError: it cannot be created or written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for inside in (self.logs, self.node):
                inside.mkdir(exist_ok=True, mode=0o700)
            # In a folder that was there before and that others may enter, so may they not here:
            # the database holds the Secrets. (SQLite gives its journal the database's mode.)
            self.database.touch(mode=0o600)
            self.database.chmod(0o600)
            ignore = self.folder / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n", encoding="ascii")
        except OSError as error:
            raise StateError(
                f"cannot use {self.folder} for the cluster's state: {error.strerror}; "
                "choose another folder with --state"
            ) from error

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Own the folder for the length of the block.

        Raises:
            StateInUse: another process owns it.
        """
        descriptor = self.own()
        try:
            yield
        finally:
            os.close(descriptor)

    def own(self) -> int:
        """Own the folder for as long as this process lives.

        Not released before, so that whoever waits for its release waits for our very end, not for
        the moment before the interpreter is taken down. Returns the lock's file descriptor.

        Raises:
            StateInUse: another process owns it.
        """
        self.prepare()
        descriptor = self._acquire()
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode("ascii"), 0)
        return descriptor

    def _acquire(self) -> int:
        deadline = time.monotonic() + _LOCK_PATIENCE
        while True:
            descriptor = os.open(self._lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._is_current(descriptor):
                    return descriptor
                os.close(descriptor)  # `purge` removed it while we waited: take the new one
            except BlockingIOError:
                pid = _read_pid(descriptor)
                os.close(descriptor)
                if time.monotonic() >= deadline:
                    raise StateInUse(self.folder, pid) from None
                time.sleep(0.02)

    def _is_current(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self._lock_file.stat())
        except FileNotFoundError:
            return False

    def owner(self) -> int | None:
        """The pid of the live process that owns the folder; ``None``: nobody, 0: not known yet."""
        try:
            descriptor = os.open(self._lock_file, os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _read_pid(descriptor) or 0
        else:
            return None
        finally:
            os.close(descriptor)

    def running(self) -> ClusterInfo | None:
        """What the live cluster process says about itself; ``None`` when none is up yet."""
        owner = self.owner()
        info = self.read_info()
        return info if owner is not None and info is not None and info.pid == owner else None

    def read_info(self) -> ClusterInfo | None:
        """What the last cluster process wrote, dead or alive; ``None`` when that is nothing."""
        try:
            return ClusterInfo(**json.loads(self.cluster_file.read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def write_info(self, info: ClusterInfo) -> None:
        """Say that the cluster is up."""
        write_private(self.cluster_file, json.dumps(dataclasses.asdict(info), indent=2) + "\n")

    def forget_info(self) -> None:
        """Say that it is not."""
        self.cluster_file.unlink(missing_ok=True)

    def token(self) -> str:
        """The bearer token of this cluster; made once, kept for as long as the folder."""
        with contextlib.suppress(FileNotFoundError):
            if token := self._token_file.read_text(encoding="ascii").strip():
                return token
        token = secrets.token_urlsafe(32)
        write_private(self._token_file, token + "\n")
        return token

    def is_ours(self) -> bool:
        """Whether the folder looks like one that KAOS made: asked before it is deleted."""
        return self._lock_file.is_file() and (self.folder / ".gitignore").is_file()


def write_private(path: Path, text: str) -> None:
    """Replace ``path`` by ``text`` in one step, readable by the owner only."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _read_pid(descriptor: int) -> int | None:
    text: Any = os.pread(descriptor, 32, 0)
    return int(text) if text.isdigit() else None
