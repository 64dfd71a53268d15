"""JSON merge patch (RFC 7386) and JSON patch (RFC 6902), to the letter.

Guarantees that the input is left alone and that a patch which does not fit says
where. Strategic merge patch has a file of its own.
"""

import copy
from typing import Any

from kaos.local.apiserver.errors import StatusError, bad_request


def merge_patch(target: Any, patch: Any) -> Any:
    """Apply a JSON merge patch."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge_patch(result.get(name), value)
    return result


class _MissError(Exception):
    """A pointer that leads nowhere."""


def json_patch(target: Any, patch: Any) -> Any:
    """Apply a JSON patch; all of it or nothing.

    Raises:
        StatusError: 400 for what is no patch, 422 for one that does not fit.
    """
    if not isinstance(patch, list):
        raise bad_request("a JSON patch is a list of operations")
    document = copy.deepcopy(target)
    for operation in patch:
        try:
            document = _operate(document, operation)
        except _MissError as error:
            message = f"the server rejected our request due to an error in our request: {error}"
            raise StatusError(422, "Invalid", message, details={}) from error
        except (AttributeError, KeyError, TypeError) as error:
            raise bad_request(f"invalid JSON patch operation {operation!r}: {error}") from error
    return document


def _operate(document: Any, operation: dict[str, Any]) -> Any:
    path = _pointer(operation["path"])
    match operation["op"]:
        case "add":
            return _add(document, path, copy.deepcopy(operation["value"]))
        case "remove":
            return _remove(document, path)[0]
        case "replace":
            _find(document, path)
            value = copy.deepcopy(operation["value"])
            if path and isinstance(_find(document, path[:-1]), list):
                document = _remove(document, path)[0]
            return _add(document, path, value)
        case "move":
            source = _pointer(operation["from"])
            if path[: len(source)] == source and path != source:
                raise _MissError(f"cannot move {operation['from']} into itself")
            document, value = _remove(document, source)
            return _add(document, path, value)
        case "copy":
            value = copy.deepcopy(_find(document, _pointer(operation["from"])))
            return _add(document, path, value)
        case "test":
            found = _find(document, path)
            if not _equal(found, operation["value"]):
                raise _MissError(f"testing value {operation['path']} failed")
            return document
        case other:
            raise _MissError(f"unknown operation {other!r}")


def _pointer(text: str) -> list[str]:
    if text == "":
        return []
    if not text.startswith("/"):
        raise bad_request(f"invalid JSON pointer {text!r}: it starts with no slash")
    return [part.replace("~1", "/").replace("~0", "~") for part in text[1:].split("/")]


def _index(items: list[Any], part: str, *, end: bool) -> int:
    if part == "-" and end:
        return len(items)
    if not part.isascii() or not part.isdigit() or (len(part) > 1 and part[0] == "0"):
        raise _MissError(f"{part!r} is no index of a list")
    index = int(part)
    if index >= len(items) + end:
        raise _MissError(f"index {index} is out of range")
    return index


def _find(document: Any, path: list[str]) -> Any:
    for part in path:
        if isinstance(document, list):
            document = document[_index(document, part, end=False)]
        elif isinstance(document, dict) and part in document:
            document = document[part]
        else:
            raise _MissError(f"there is nothing at {'/'.join(['', *path])}")
    return document


def _add(document: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    parent = _find(document, path[:-1])
    if isinstance(parent, list):
        parent.insert(_index(parent, path[-1], end=True), value)
    elif isinstance(parent, dict):
        parent[path[-1]] = value
    else:
        raise _MissError(f"there is no container at {'/'.join(['', *path[:-1]])}")
    return document


def _remove(document: Any, path: list[str]) -> tuple[Any, Any]:
    value = _find(document, path)
    if not path:
        return None, value
    parent = _find(document, path[:-1])
    del parent[_index(parent, path[-1], end=False) if isinstance(parent, list) else path[-1]]
    return document, value


def _equal(left: Any, right: Any) -> bool:
    # In JSON true is not 1, at any depth.
    if isinstance(left, bool) != isinstance(right, bool):
        return False
    if isinstance(left, dict) and isinstance(right, dict):
        same = left.keys() == right.keys()
        return same and all(_equal(value, right[name]) for name, value in left.items())
    if isinstance(left, list) and isinstance(right, list):
        same = len(left) == len(right)
        return same and all(_equal(*pair) for pair in zip(left, right, strict=True))
    return bool(left == right)
