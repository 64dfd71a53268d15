"""A list of tokens, from a file or the environment.

One token a line, before it the name of who holds it if there is one:

    # may be several, so that a new one can be handed out before the old one goes
    alice  b0e4…
    c77a…

Guarantees: the file is read again when it changed, as a mounted Secret does, so tokens come and
go without a restart; a file that cannot be read any more lets nobody in; comparing takes the
same time whichever token comes close, and only digests are kept in memory.

Sessions belong to the name and outlive its tokens; holders of tokens without a name are one
caller, `token`.
"""

import hashlib
import hmac
from collections.abc import Iterable
from pathlib import Path

from kaos.agent.auth.lines import LiveLines

UNNAMED = "token"


class Tokens:
    """A `Verifier` for tokens from the environment."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._known = _parsed(lines)

    async def identify(self, token: str) -> str | None:
        """See `Verifier`."""
        given = _digest(token)
        found = None
        for name, digest in self._known:
            if hmac.compare_digest(given, digest):  # and no end here: every one is compared
                found = name
        return found

    async def close(self) -> None:
        """See `Verifier`."""


class TokenFile(Tokens):
    """A `Verifier` for tokens in a file.

    Raises:
        OSError: The file cannot be read at the start.
        ValueError: There is no token in it.
    """

    def __init__(self, path: Path) -> None:
        self._lines = LiveLines(path)
        super().__init__(self._lines.changed() or ())
        if not self._known:
            raise ValueError("there is no token in it")

    async def identify(self, token: str) -> str | None:
        """See `Verifier`."""
        if (lines := self._lines.changed()) is not None:
            self._known = _parsed(lines)
        return await super().identify(token)


def _parsed(lines: Iterable[str]) -> list[tuple[str, bytes]]:
    known = []
    for line in lines:
        words = line.split()
        if words and not words[0].startswith("#"):
            known.append((words[0] if len(words) > 1 else UNNAMED, _digest(words[-1])))
    return known


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()
