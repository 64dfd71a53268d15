r"""The JSONPath of printer columns: Kubernetes' own dialect, not RFC 9535.

Guarantees: fields (``.spec.a``, with ``\.`` for a dot in a name), ``['a']``, indexes and
slices, ``[*]``, filters with one comparison (``[?(@.type=="Ready")]``), ``..name``. A path
is parsed once; what cannot be parsed raises ``ValueError`` there, and evaluation never
raises: a path that leads nowhere finds nothing.

Does not: know kubectl's template words (range, end), which no printer column uses.
"""

import operator
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Final

Path = Callable[[Any], list[Any]]
_Step = Callable[[Any], Iterator[Any]]

_FIELD: Final = re.compile(r"\.(?P<name>(?:\\.|[^.\[\]{}\\'\" ])+)")
_QUOTED: Final = re.compile(r"\[\s*(?P<quote>['\"])(?P<name>.*?)(?<!\\)(?P=quote)\s*\]")
_INDEX: Final = re.compile(r"\[\s*(?P<index>-?\d+)\s*\]")
_SLICE: Final = re.compile(r"\[\s*(?P<start>-?\d*):(?P<end>-?\d*)(?::(?P<step>\d*))?\s*\]")
_ALL: Final = re.compile(r"\[\s*\*\s*\]|\.\*")
_DESCEND: Final = re.compile(r"\.(?=\.[^.])")
_FILTER: Final = re.compile(
    r"\[\?\(\s*@(?P<path>[^=!<>]*?)\s*"
    r"(?:(?P<operator>==|!=|<=|>=|<|>)\s*(?P<value>\"[^\"]*\"|'[^']*'|[^\s)]+)\s*)?\)\]"
)
_OPERATORS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}


@lru_cache(maxsize=1024)
def compile_path(text: str) -> Path:
    """Parse a path such as ``.status.conditions[?(@.type=="Ready")].status``.

    Raises:
        ValueError: The path is not one; the message says from where on.
    """
    steps = list(_steps(text.strip().removeprefix("{").removesuffix("}").removeprefix("$")))

    def find(value: Any) -> list[Any]:
        found = [value]
        for step in steps:
            found = [item for each in found for item in step(each)]
        return found

    return find


def _steps(text: str) -> Iterator[_Step]:
    at = 0
    makers: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], _Step]], ...] = (
        (_ALL, lambda _: _every),
        (_DESCEND, lambda _: _descend),
        (_FIELD, lambda m: _field(_plain(m["name"]))),
        (_QUOTED, lambda m: _field(_plain(m["name"]))),
        (_INDEX, lambda m: _index(int(m["index"]))),
        (_SLICE, lambda m: _slice(m["start"], m["end"], m["step"] or "")),
        (_FILTER, _filter),
    )
    while at < len(text):
        for pattern, make in makers:
            if match := pattern.match(text, at):
                yield make(match)
                at = match.end()
                break
        else:
            raise ValueError(f"{text!r} is no path that is understood, from {text[at:]!r} on")


def _plain(name: str) -> str:
    return re.sub(r"\\(.)", r"\1", name)


def _field(name: str) -> _Step:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, dict) and name in value:
            yield value[name]

    return step


def _index(index: int) -> _Step:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, list) and -len(value) <= index < len(value):
            yield value[index]

    return step


def _slice(start: str, end: str, step: str) -> _Step:
    part = slice(*(int(number) if number else None for number in (start, end, step)))

    def take(value: Any) -> Iterator[Any]:
        if isinstance(value, list):
            yield from value[part]

    return take


def _every(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _descend(value: Any) -> Iterator[Any]:
    yield value
    for item in _every(value):
        yield from _descend(item)


def _filter(match: re.Match[str]) -> _Step:
    path = compile_path(match["path"])
    compare = _OPERATORS.get(match["operator"] or "")
    wanted = _literal(match["value"] or "")

    def step(value: Any) -> Iterator[Any]:
        for item in value if isinstance(value, list) else ():
            found = path(item)
            if compare is None:
                if found:
                    yield item
            elif found and type(found[0]) is type(wanted) and compare(found[0], wanted):
                yield item

    return step


def _literal(text: str) -> Any:
    if text[:1] in {"'", '"'}:
        return text[1:-1]
    if text in {"true", "false"}:
        return text == "true"
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text
