"""Manifests: from files, folders and standard input to objects that know where they came from.

Guaranteed: the order of the files and of the documents in them is kept; a YAML error names file,
line and column; every value in an object can be traced to its line (`Manifest.where`), so that
later checks can point at it; a key given twice is an error, not a silent loss.

Not done here: URLs (an address is a thing to look at before it is applied), and checking against
schemas (`kaos.cli.check`).
"""

import dataclasses
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from kaos.cli.errors import UsageError

SUFFIXES = (".yaml", ".yml", ".json")
_MAX_BYTES = 8 << 20
_MAX_NODES = 200_000  # aliases can make a small file endless

Path_ = tuple[str | int, ...]
_Mark = tuple[int, int]


class _Loader(yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader):  # type: ignore[misc]
    """YAML as kubectl reads it: dates and 10:30 are text, 1e3 is a number, 1.0 is the number 1."""


_TAG = "tag:yaml.org,2002:"
_KEPT = (f"{_TAG}bool", f"{_TAG}null", f"{_TAG}merge")
_INT = re.compile(r"[-+]?(0b[01][01_]*|0o?[0-7][0-7_]*|0x[0-9a-fA-F][0-9a-fA-F_]*|0|[1-9][0-9_]*)$")
_FLOAT = re.compile(
    r"([-+]?(\.[0-9_]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?"
    r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$"
)
_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag in _KEPT]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _regexp in ((f"{_TAG}int", _INT), (f"{_TAG}float", _FLOAT)):
    _Loader.add_implicit_resolver(_tag, _regexp, list("-+.0123456789"))


def _number(loader: Any, node: yaml.ScalarNode) -> float:
    value: float = loader.construct_yaml_float(node)
    return int(value) if value.is_integer() else value


_Loader.add_constructor(f"{_TAG}float", _number)


@dataclasses.dataclass(frozen=True, slots=True)
class Manifest:
    """One object of a manifest file."""

    source: str
    body: dict[str, Any]
    marks: Mapping[Path_, _Mark] = dataclasses.field(repr=False)

    @property
    def kind(self) -> str:
        """The object's kind."""
        return str(self.body["kind"])

    @property
    def api_version(self) -> str:
        """The object's apiVersion."""
        return str(self.body["apiVersion"])

    @property
    def name(self) -> str:
        """The object's name."""
        return str(self.body["metadata"]["name"])

    @property
    def namespace(self) -> str:
        """The object's namespace as written, empty when it is not."""
        return str(self.body["metadata"].get("namespace") or "")

    def where(self, path: Iterable[str | int] = ()) -> str:
        """``file:line:column`` of the value at ``path``, or of the nearest thing around it."""
        path = tuple(path)
        while path and path not in self.marks:
            path = path[:-1]
        line, column = self.marks[path]
        return f"{self.source}:{line}:{column}"


def load(files: Iterable[str]) -> list[Manifest]:
    """Read files, folders (their YAML and JSON files, by name) and ``-`` (standard input).

    Raises:
        UsageError: something is missing, unreadable, not YAML, empty, or not a Kubernetes object.
    """
    loaded = []
    for name in files:
        found = [manifest for source, text in _texts(name) for manifest in parse(source, text)]
        if not found:  # a template that came out empty is no success
            raise UsageError(f"{'<stdin>' if name == '-' else name}: there is no object in it")
        loaded += found
    return loaded


def parse(source: str, text: str) -> Iterator[Manifest]:
    """The objects of one YAML text; a `List` counts as its items."""
    try:
        loader = _Loader(text)
        while loader.check_node():
            node = loader.get_node()
            marks = _Marks(source)
            marks.walk(node, ())
            body = loader.construct_document(node)
            if body is not None:
                yield from _objects(source, body, marks.found, ())
    except yaml.MarkedYAMLError as error:
        raise UsageError(_yaml_error(source, error)) from error
    except yaml.YAMLError as error:
        raise UsageError(f"{source}: not YAML: {error}") from error
    except RecursionError as error:
        raise UsageError(f"{source}: nested too deeply, or an alias within itself") from error


def _texts(name: str) -> Iterator[tuple[str, str]]:
    if name == "-":
        yield "<stdin>", sys.stdin.read(_MAX_BYTES)
        return
    path = Path(name)
    if name.startswith(("http://", "https://")):
        raise UsageError(f"{name}: an address is not read: download it, look at it, apply it")
    if path.is_dir():
        inside = sorted(entry for entry in path.iterdir() if entry.suffix in SUFFIXES)
        if not inside:
            raise UsageError(f"{name}: no {', '.join(SUFFIXES)} file in this folder")
        yield from ((str(entry), _read(entry)) for entry in inside)
    else:
        yield name, _read(path)


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise UsageError(f"{path}: larger than {_MAX_BYTES >> 20} MB: not a manifest")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not text (UTF-8): {error.reason}") from error
    except OSError as error:
        hint = "" if path.is_absolute() else f" (looked in {Path.cwd()})"
        raise UsageError(f"{path}: {error.strerror}{hint}") from error


def _objects(source: str, body: Any, marks: Mapping[Path_, _Mark], at: Path_) -> Iterator[Manifest]:
    """The objects in ``body``; ``at`` is where it lies in its document."""
    own = {path[len(at) :]: mark for path, mark in marks.items() if path[: len(at)] == at}
    line, column = own[()]
    here = f"{source}:{line}:{column}"
    if not isinstance(body, dict):
        raise UsageError(f"{here}: expected a Kubernetes object, found {_described(body)}")
    for field in ("apiVersion", "kind"):
        if not isinstance(body.get(field), str) or not body[field]:
            raise UsageError(f"{here}: this object has no {field}")
    if body["kind"] == "List" and isinstance(body.get("items"), list):
        for index, item in enumerate(body["items"]):
            yield from _objects(source, item, own, ("items", index))
        return
    metadata = body.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if isinstance(name, int | float):
        raise UsageError(f"{here}: metadata.name must be text: write it in quotes")
    if not isinstance(name, str) or not name:
        raise UsageError(f"{here}: this {body['kind']} has no metadata.name")
    yield Manifest(source, body, own)


class _Marks:
    """Where each value of a document begins."""

    def __init__(self, source: str) -> None:
        self.found: dict[Path_, _Mark] = {}
        self._source = source

    def walk(self, node: yaml.Node, path: Path_, key: yaml.Node | None = None) -> None:
        mark = (key or node).start_mark
        self.found[path] = (mark.line + 1, mark.column + 1)
        if len(self.found) > _MAX_NODES:
            raise UsageError(f"{self._source}: more than {_MAX_NODES} values: not a manifest")
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for name, value in node.value:
                if name.tag == "tag:yaml.org,2002:merge":
                    continue
                if not isinstance(name, yaml.ScalarNode):
                    mark = name.start_mark
                    raise UsageError(
                        f"{self._source}:{mark.line + 1}:{mark.column + 1}: a key must be text"
                    )
                if name.value in seen:
                    mark = name.start_mark
                    raise UsageError(
                        f"{self._source}:{mark.line + 1}:{mark.column + 1}: "
                        f"{name.value} is given twice"
                    )
                seen.add(str(name.value))
                self.walk(value, (*path, str(name.value)), name)
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                self.walk(value, (*path, index))


def _yaml_error(source: str, error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    where = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
    return f"{where}: broken YAML: {error.problem or error.context}"


def _described(value: Any) -> str:
    return {list: "a list", str: "text", bool: "a boolean"}.get(type(value), "a number")
