"""Label and field selectors: parsed once per request, asked per object.

Guarantees the grammar of Kubernetes: ``a=b, c!=d, e in (f,g), h notin (i), j, !k,
l>1`` for labels, ``path=value``, ``==`` and ``!=`` for fields. Any field path is
answered from the object (the real server knows a short list per kind and
refuses others); a field that is not there counts as empty.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kaos.local.apiserver.errors import bad_request

_SET = re.compile(r"^(?P<key>[^\s!=(),]+)\s+(?P<op>in|notin)\s*\((?P<values>[^()]*)\)$")
_PAIR = re.compile(r"^(?P<key>[^\s!=(),<>]+)\s*(?P<op>==|=|!=)\s*(?P<value>[^\s!=(),<>]*)$")
_ORDER = re.compile(r"^(?P<key>[^\s!=(),<>]+)\s*(?P<op>[<>])\s*(?P<value>-?[0-9]+)$")
_BARE = re.compile(r"^(?P<op>!?)\s*(?P<key>[^\s!=(),<>]+)$")
_COMMA = re.compile(r",(?![^(]*\))")


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on a label: its value is among ``values`` (or not, or it exists)."""

    key: str
    operator: str  # in, notin, exists, absent, <, >
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels meets the condition."""
        match self.operator:
            case "in":
                return labels.get(self.key) in self.values
            case "notin":
                return labels.get(self.key) not in self.values
            case "exists":
                return self.key in labels
            case "<" | ">":
                return self._in_order(labels.get(self.key, ""))
            case _:
                return self.key not in labels

    def _in_order(self, label: str) -> bool:
        (limit,) = self.values
        if not re.fullmatch(r"-?[0-9]+", label):
            return False
        return int(label) < int(limit) if self.operator == "<" else int(label) > int(limit)


def parse_labels(text: str) -> tuple[Requirement, ...]:
    """Parse a label selector; an empty one matches everything.

    Raises:
        StatusError: 400, the selector cannot be read.
    """
    return tuple(_requirement(part.strip(), text) for part in _split(text))


def _split(text: str) -> list[str]:
    return _COMMA.split(text) if text.strip() else []


def _requirement(part: str, text: str) -> Requirement:
    if found := _SET.match(part):
        values = frozenset(value.strip() for value in found["values"].split(","))
        return Requirement(found["key"], found["op"], values)
    if found := _PAIR.match(part):
        operator = "notin" if found["op"] == "!=" else "in"
        return Requirement(found["key"], operator, frozenset([found["value"]]))
    if found := _ORDER.match(part):
        return Requirement(found["key"], found["op"], frozenset([found["value"]]))
    if found := _BARE.match(part):
        return Requirement(found["key"], "absent" if found["op"] else "exists")
    raise bad_request(f"unable to parse requirement: {part!r} in label selector {text!r}")


@dataclass(frozen=True, slots=True)
class FieldRequirement:
    """One condition on a field of the object."""

    path: tuple[str, ...]
    value: str
    negated: bool = False

    def matches(self, obj: Any) -> bool:
        """Whether the object meets the condition."""
        for name in self.path:
            obj = obj.get(name) if isinstance(obj, dict) else None
        if isinstance(obj, bool):
            obj = str(obj).lower()
        return (("" if obj is None else str(obj)) == self.value) != self.negated


def parse_fields(text: str) -> tuple[FieldRequirement, ...]:
    """Parse a field selector.

    Raises:
        StatusError: 400, the selector cannot be read.
    """
    requirements = []
    for part in _split(text):
        found = re.match(r"^\s*([\w.\-/]+)\s*(==|=|!=)\s*(.*?)\s*$", part)
        if not found:
            raise bad_request(f"invalid field selector: {text!r}: can't understand {part!r}")
        path, operator, value = found.groups()
        requirements.append(FieldRequirement(tuple(path.split(".")), value, operator == "!="))
    return tuple(requirements)


@dataclass(frozen=True, slots=True)
class Selection:
    """What a list or a watch looks at: a namespace ("" for all), labels and fields."""

    namespace: str = ""
    labels: tuple[Requirement, ...] = ()
    fields: tuple[FieldRequirement, ...] = ()

    @property
    def everything(self) -> bool:
        """Whether no selector narrows the choice (the namespace may)."""
        return not self.labels and not self.fields

    def matches(
        self, namespace: str, labels: Mapping[str, str], load: Callable[[], dict[str, Any]]
    ) -> bool:
        """Whether an object is selected; ``load`` decodes it, only called for fields."""
        if self.namespace and namespace != self.namespace:
            return False
        if not all(requirement.matches(labels) for requirement in self.labels):
            return False
        if not self.fields:
            return True
        obj = load()
        return all(requirement.matches(obj) for requirement in self.fields)
