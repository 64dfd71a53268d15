"""Processes that a killed cluster process left behind: remembered, found, ended.

Guarantees: every process of a pod is recorded on disk right after its start, and `reap` ends what
the records name, with its process group, even when the cluster process died by `kill -9`. A
record is believed only while the process with that number is the same one (same boot, same start
time): numbers are used again, and a stranger must never be hit. On Linux a second pass finds what
has no record (the cluster died between start and record, or a descendant made a session of its
own) by the variable `KAOS_NODE_STATE`, which every process of a pod carries.

Does not: touch anything while a cluster process lives; the caller holds the state folder's lock.
Elsewhere than on Linux (macOS) a group whose first process is gone is left alone, because nothing
proves there whose group it is.

Why not PR_SET_PDEATHSIG: it needs a preexec_fn, which is unsafe with threads, and exists on
Linux only.
"""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

STATE_VARIABLE = "KAOS_NODE_STATE"
"""Names the node's folder in the environment of every process of a pod."""

_PROC = Path("/proc")
_POLL_SECONDS = 0.05
_FIELD_STATE, _FIELD_GROUP, _FIELD_START = 0, 2, 19  # of /proc/<pid>/stat, after the name


@dataclass(frozen=True, slots=True)
class Orphan:
    """A process group that was ended."""

    pid: int
    owner: str
    """"namespace/pod/container", or what is known of it."""


class ProcessRecords:
    """The records of the processes started below one state folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, pid: int, owner: str) -> None:
        """Remember a process that was just started."""
        self._folder.mkdir(parents=True, exist_ok=True)
        record = {"pid": pid, "identity": identity(pid), "owner": owner}
        path = self._folder / f"{pid}.json"
        whole = path.with_suffix(".new")
        whole.write_text(json.dumps(record), encoding="utf-8")
        whole.replace(path)

    def remove(self, pid: int) -> None:
        """Forget a process whose group has ended."""
        (self._folder / f"{pid}.json").unlink(missing_ok=True)

    def __iter__(self) -> Iterator[tuple[int, str, str]]:
        for path in sorted(self._folder.glob("*.json")):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                record = json.loads(path.read_text(encoding="utf-8"))
                yield int(record["pid"]), str(record["identity"]), str(record["owner"])

    def clear(self) -> None:
        """Forget all."""
        for path in self._folder.glob("*"):
            path.unlink(missing_ok=True)


def identity(pid: int) -> str:
    """What distinguishes a process from a later one with the same number; "" when it is gone."""
    if _has_proc():
        fields = _stat(pid)
        if fields is None or fields[_FIELD_STATE] == "Z":
            return ""
        return f"{_boot()}:{fields[_FIELD_START]}"
    ps = subprocess.run(  # noqa: S603 - a fixed program, a number
        ["/bin/ps", "-o", "lstart=,stat=", "-p", str(pid)],
        capture_output=True, text=True, check=False, timeout=5, env={"LC_ALL": "C"},
    )  # fmt: skip
    *started, state = ps.stdout.split() or [""]
    return "" if state.startswith("Z") else " ".join(started)


def reap(node_folder: Path, *, grace: float = 2.0) -> list[Orphan]:
    """End every process that an earlier cluster process left behind. Blocks up to `grace` + 1 s.

    Args:
        node_folder: The node's folder, `<state>/node`.
        grace: Seconds between SIGTERM and SIGKILL.

    Returns:
        What was ended.
    """
    records = ProcessRecords(node_folder / "processes")
    targets = {pid: owner for pid, known, owner in records if _same(pid, known, node_folder)}
    for pid, group in _marked(node_folder):
        targets.setdefault(group if group in targets else pid, "without a record")
    for pid in targets:
        _signal(pid, signal.SIGTERM)
    _wait_gone(targets, grace)
    for pid in targets:
        _signal(pid, signal.SIGKILL)
    _wait_gone(targets, 1.0)
    records.clear()
    return [Orphan(pid, owner) for pid, owner in targets.items()]


def _same(pid: int, known: str, node_folder: Path) -> bool:
    now = identity(pid)
    if now:
        return now == known
    # The first process is gone, and its number cannot be given out while its group lives. But a
    # group may have ended and the number may stand for a stranger's group now: only the mark of
    # our own state folder on a member is proof.
    return any(group == pid for _, group in _marked(node_folder))


def _marked(node_folder: Path) -> Iterable[tuple[int, int]]:
    """(pid, group) of the living processes that carry our mark (Linux only)."""
    if not _has_proc():
        return
    mark = f"{STATE_VARIABLE}={node_folder.absolute()}".encode()
    for entry in _PROC.iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        # Processes end while we look, and those of other users are not ours to read.
        with contextlib.suppress(OSError):
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                fields = _stat(int(entry.name))
                if fields is not None and fields[_FIELD_STATE] != "Z":
                    yield int(entry.name), int(fields[_FIELD_GROUP])


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _wait_gone(pids: Iterable[int], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while any(_alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)


def _alive(pid: int) -> bool:
    if identity(pid):
        return True
    if not _has_proc():
        return False
    return any(
        fields is not None and fields[_FIELD_STATE] != "Z" and int(fields[_FIELD_GROUP]) == pid
        for fields in (_stat(int(p.name)) for p in _PROC.iterdir() if p.name.isdigit())
    )


def _has_proc() -> bool:
    return (_PROC / "self" / "stat").exists()


def _boot() -> str:
    return (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _stat(pid: int) -> list[str] | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # "pid (name) state ppid pgrp …"; the name may hold spaces and parentheses.
    return text.rpartition(")")[2].split()
