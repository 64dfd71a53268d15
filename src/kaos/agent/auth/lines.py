"""A file of lines that is read again when it changed, as a mounted Secret or ConfigMap does.

Guarantees: what was taken out of the file holds no longer than until the next look at it; a file
that cannot be read any more has no lines, and the log says so once.
"""

from pathlib import Path

import structlog

from kaos.agent.errors import reason

log = structlog.get_logger(__name__)

_Signature = tuple[int, int, int]
_GONE: _Signature = (0, 0, 0)


class LiveLines:
    """The lines of a file.

    Args:
        path: The file.

    Raises:
        OSError: It cannot be read at the start.
        UnicodeDecodeError: It is no text.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._first: list[str] | None = path.read_text("utf-8").splitlines()
        self._seen = _signature(path)

    def changed(self) -> list[str] | None:
        """Return the lines if they are news, as they are the first time, else None."""
        if (lines := self._first) is not None:
            self._first = None
            return lines
        try:
            now = _signature(self._path)
            if now == self._seen:
                return None
            lines = self._path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            if self._seen == _GONE:
                return None
            log.error(  # noqa: TRY400 - the trace says no more than the line
                "a list of callers cannot be read, so it is empty",
                path=str(self._path),
                error=reason(error),
            )
            self._seen = _GONE
            return []
        self._seen = now
        log.info("a list of callers was read again", path=str(self._path))
        return lines


def _signature(path: Path) -> _Signature:
    status = path.stat()
    return status.st_mtime_ns, status.st_ino, status.st_size
