"""Names from manifests as parts of paths.

Guarantees: nothing that a manifest says leads out of the folder it is meant for.
"""

import hashlib
import re
from pathlib import Path, PurePosixPath

_PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,252}")


class UnsafePath(ValueError):  # noqa: N818
    """A path from a manifest is absolute, empty or leads out of its folder."""


def folder_name(name: str) -> str:
    """A name as one part of a path: itself when it is plain, else a stand-in of its own."""
    if _PLAIN.fullmatch(name):
        return name
    return "_" + hashlib.sha256(name.encode()).hexdigest()[:32]


def inside(folder: Path, relative: str) -> Path:
    """A path below a folder.

    Raises:
        UnsafePath: It would lead out of it.
    """
    parts = PurePosixPath(relative).parts
    if not parts or PurePosixPath(relative).is_absolute() or ".." in parts:
        raise UnsafePath(f"path {relative!r} must be relative and stay inside its volume")
    return folder.joinpath(*parts)
