"""The log files of containers, written and read as a kubelet does.

Layout: `<folder>/<namespace>_<pod>_<uid>/<container>/<attempt>.log`, one line per log line in the
CRI format `<RFC3339 time> <stdout|stderr> <F|P> <text>` (P: the line goes on in the next entry).

Guarantees: bounded (an attempt keeps at most two files of `max_bytes`; a container keeps its two
latest attempts), never an unbounded line in memory, and a full disk loses log lines but does not
stop a container. A follower sees a line as soon as it is written and ends when the attempt ends.

Does not: keep logs of a pod that is gone; they are removed with it.
"""

import asyncio
import contextlib
import os
import shutil
import time
from collections import deque
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from kaos.local.node.paths import folder_name

_LINE_BYTES = 16 * 1024
_BLOCK = 64 * 1024


def rfc3339_nano(nanoseconds: int) -> str:
    """A time as the log files spell it; always nine digits, so that texts compare as times."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


class LogWriter:
    """Writes the log of one attempt of a container."""

    def __init__(self, path: Path, *, max_bytes: int = 5 * 1024 * 1024) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.closed = False
        self.dropped = 0
        """Pieces of output lost because the file could not be written."""
        self._changed = asyncio.Event()
        self._max_bytes = max_bytes
        self._partial: dict[str, bytes] = {}
        self._file: BinaryIO = path.open("ab", buffering=0)
        self._size = self._file.tell()

    def write(self, stream: str, data: bytes) -> None:
        """Add output of "stdout" or "stderr"; complete lines are written at once."""
        if self.closed:
            return
        lines = (self._partial.pop(stream, b"") + data).split(b"\n")
        rest = lines.pop()
        entries = [entry for line in lines for entry in _entries(stream, line)]
        while len(rest) > _LINE_BYTES:
            entries.append(_entry(stream, b"P", rest[:_LINE_BYTES]))
            rest = rest[_LINE_BYTES:]
        if rest:
            self._partial[stream] = rest
        if entries:
            self._append(b"".join(entries))

    def close(self) -> None:
        """Write what is left of unfinished lines, and end the followers."""
        if self.closed:
            return
        for stream, rest in self._partial.items():
            self._append(_entry(stream, b"F", rest))
        self._partial.clear()
        self.closed = True
        self._file.close()
        self._notify()

    @property
    def changed(self) -> asyncio.Event:
        """Set at the next write. Take it, read to the end, then wait for it: nothing is missed."""
        return self._changed

    def _append(self, data: bytes) -> None:
        try:
            if self._size and self._size + len(data) > self._max_bytes:
                self._rotate()
            self._file.write(data)
            self._size += len(data)
        except OSError:
            self.dropped += 1
        self._notify()

    def _rotate(self) -> None:
        with contextlib.suppress(FileNotFoundError):  # moved already, when no new one could be had
            self.path.replace(rotated(self.path))
        following = self.path.open("ab", buffering=0)
        self._file.close()
        self._file, self._size = following, 0

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def rotated(path: Path) -> Path:
    """The older file of an attempt."""
    return path.with_name(path.name + ".1")


def _entry(stream: str, tag: bytes, text: bytes) -> bytes:
    stamp = rfc3339_nano(time.time_ns())
    return b"%s %s %s %s\n" % (stamp.encode(), stream.encode(), tag, text)


def _entries(stream: str, line: bytes) -> Iterator[bytes]:
    while len(line) > _LINE_BYTES:
        yield _entry(stream, b"P", line[:_LINE_BYTES])
        line = line[_LINE_BYTES:]
    yield _entry(stream, b"F", line)


class LogFolder:
    """All log files of one container of one pod."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._writer: LogWriter | None = None

    def start(self, attempt: int) -> LogWriter:
        """Begin an attempt; files of attempts before the previous one are removed."""
        self.close()
        for number in self.attempts():
            if number < attempt - 1:
                for path in (self._path(number), rotated(self._path(number))):
                    path.unlink(missing_ok=True)
        self._writer = LogWriter(self._path(attempt))
        return self._writer

    def close(self) -> None:
        """End the current attempt's log."""
        if self._writer is not None:
            self._writer.close()

    def attempts(self) -> list[int]:
        """Numbers of the attempts that have a log, in order."""
        if not self.folder.is_dir():
            return []
        return sorted(int(p.stem) for p in self.folder.glob("*.log") if p.stem.isdigit())

    def last(self, attempt: int, *, lines: int = 80, size: int = 2048) -> str:
        """The end of an attempt's log, as the kubelet puts it into a termination message."""
        texts = [entry.text for entry in _tail(self._path(attempt), lines)]
        return b"".join(texts)[-size:].decode(errors="replace").strip()

    async def read(
        self,
        *,
        follow: bool = False,
        tail_lines: int | None = None,
        since_seconds: float | None = None,
        timestamps: bool = False,
        previous: bool = False,
    ) -> AsyncIterator[bytes]:
        """Read the current (or previous) attempt, piece by piece, each ending where a line ends.

        Raises:
            LookupError: There is no such log.
        """
        attempts = self.attempts()
        if len(attempts) < (2 if previous else 1):
            raise LookupError("previous terminated container not found" if previous else "no log")
        path = self._path(attempts[-2 if previous else -1])
        writer = self._writer if self._writer and self._writer.path == path else None
        oldest = rfc3339_nano(time.time_ns() - int(since_seconds * 1e9)) if since_seconds else ""

        def piece(entries: "list[Entry] | Iterator[Entry]") -> bytes:
            return b"".join(e.render(timestamps) for e in entries if e.time >= oldest)

        reader = _Reader(path)
        try:
            # The file is at most `max_bytes`, but still not a thing to read on the event loop.
            begin = await asyncio.to_thread(_begin, path, reader, tail_lines)
            if begin:
                yield piece(begin)
            while follow and writer is not None:
                changed = writer.changed
                if new := list(reader.entries()):
                    yield piece(new)
                if writer.closed:
                    break
                # No deadline: the client that follows decides when it has seen enough.
                await changed.wait()
        finally:
            reader.close()

    def _path(self, attempt: int) -> Path:
        return self.folder / f"{attempt}.log"


class PodLogs:
    """The log folders of all pods; one object for each container, shared by writer and readers."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._open: dict[str, dict[str, LogFolder]] = {}

    def of(self, pod: Mapping[str, Any], container: str) -> LogFolder:
        """The log folder of a container."""
        folders = self._open.setdefault(pod["metadata"]["uid"], {})
        if container not in folders:
            folders[container] = LogFolder(self._folder(pod) / folder_name(container))
        return folders[container]

    def remove(self, pod: Mapping[str, Any]) -> None:
        """Remove all logs of a pod. Blocking, perhaps for long: call it in a thread."""
        for folder in self._open.pop(pod["metadata"]["uid"], {}).values():
            folder.close()
        shutil.rmtree(self._folder(pod), ignore_errors=True)

    def keep_only(self, uids: Collection[str]) -> None:
        """Remove the logs of pods that are gone. Blocking."""
        for path in self._root.glob("*"):
            if path.name.rpartition("_")[2] not in uids:
                shutil.rmtree(path, ignore_errors=True)

    def _folder(self, pod: Mapping[str, Any]) -> Path:
        metadata = pod["metadata"]
        return self._root / folder_name(
            f"{metadata['namespace']}_{metadata['name']}_{metadata['uid']}"
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a log file."""

    time: str
    text: bytes
    """With its newline, unless the line goes on in the next entry."""

    def render(self, timestamps: bool) -> bytes:
        """The entry as `kubectl logs` prints it."""
        return self.time.encode() + b" " + self.text if timestamps else self.text


def _parse(line: bytes) -> Entry | None:
    stamp, _, rest = line.partition(b" ")
    _, _, rest = rest.partition(b" ")
    tag, _, text = rest.partition(b" ")
    if tag not in (b"F", b"P"):
        return None  # cut short by a killed node
    return Entry(time=stamp.decode(errors="replace"), text=text + b"\n" if tag == b"F" else text)


class _Reader:
    """Reads entries from where it stopped, over a rotation."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._rest = b""
        with contextlib.suppress(FileNotFoundError):
            self._file = path.open("rb", buffering=0)

    def entries(self) -> Iterator[Entry]:
        while self._file is not None:
            while block := self._file.read(_BLOCK):
                lines = (self._rest + block).split(b"\n")
                self._rest = lines.pop()
                yield from filter(None, map(_parse, lines))
            if not self._next_file():
                return

    def _next_file(self) -> bool:
        assert self._file is not None  # noqa: S101
        try:
            now = self._path.stat()
        except FileNotFoundError:
            return False
        here = os.fstat(self._file.fileno())
        if (now.st_ino, now.st_dev) == (here.st_ino, here.st_dev):
            return False
        self._file.close()
        self._file, self._rest = self._path.open("rb", buffering=0), b""
        return True

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _begin(path: Path, reader: _Reader, tail_lines: int | None) -> list[Entry]:
    older = _Reader(rotated(path))
    try:
        entries = [*older.entries(), *reader.entries()]
    finally:
        older.close()
    return entries if tail_lines is None else _last_lines(entries, tail_lines)


def _tail(path: Path, lines: int) -> list[Entry]:
    reader = _Reader(path)
    try:
        return _last_lines(deque(reader.entries(), maxlen=lines * 2), lines)
    finally:
        reader.close()


def _last_lines(entries: "list[Entry] | deque[Entry]", lines: int) -> list[Entry]:
    """The last lines, where a line may be several entries."""
    kept: deque[Entry] = deque()
    for entry in reversed(entries):
        if entry.text.endswith(b"\n"):
            if lines == 0:
                break
            lines -= 1
        kept.appendleft(entry)
    return list(kept)
