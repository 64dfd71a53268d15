"""Rules in a schema (``x-kubernetes-validations``): the part of CEL that most of them need.

Guarantees, for what it understands (fields of ``self``, ``has``, ``size``,
comparison, ``in``, ``&&``, ``||``, ``!``, ``?:``, ``startsWith``, ``endsWith``,
``contains``, literals), CEL's own answer, also about fields that are absent:
they are an error, which the other side of an ``||`` or ``&&`` may outweigh.

A rule that uses more (``oldSelf``, macros, regular expressions) is not
evaluated: what it forbids is refused by a real cluster only.
"""

import re
from collections.abc import Callable
from functools import cache
from typing import Any

Value = Any
Expression = Callable[[Value], Value]
Step = Callable[[Expression, Expression], Expression]

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?)|(?P<text>'[^'\\]*'|\"[^\"\\]*\")|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<sign>\|\||&&|==|!=|<=|>=|[-!<>().,\[\]?:]))"
)
_WORDS: dict[str, Value] = {"true": True, "false": False, "null": None}
_METHODS: dict[str, Callable[[Any, Any], bool]] = {
    "startsWith": lambda text, part: text.startswith(part),
    "endsWith": lambda text, part: text.endswith(part),
    "contains": lambda text, part: part in text,
}


class UnknownRuleError(ValueError):
    """The rule uses more of CEL than there is here."""


class EvaluationError(Exception):
    """The rule cannot be answered for this value: a field is absent or of another type."""


@cache
def compile_rule(rule: str) -> Expression:
    """Make a function of ``self`` from a rule.

    Raises:
        UnknownRuleError: The rule uses more of CEL than there is here.
    """
    parser = _Parser(rule)
    expression = parser.choice()
    if parser.tokens:
        raise UnknownRuleError(rule)
    return expression


def holds(rule: str, value: Value) -> bool:
    """Whether a value keeps a rule; a rule that is not understood counts as kept."""
    try:
        return compile_rule(rule)(value) is True
    except UnknownRuleError:
        return True
    except EvaluationError:
        return False


class _Parser:
    def __init__(self, rule: str) -> None:
        self.rule = rule
        self.tokens: list[tuple[str, str]] = []
        at = 0
        while rule[at:].strip():
            found = _TOKEN.match(rule, at)
            if found is None or found.lastgroup is None:
                raise UnknownRuleError(rule)
            self.tokens.append((found.lastgroup, found[found.lastgroup]))
            at = found.end()

    def _take(self, *signs: str) -> str:
        if self.tokens and self.tokens[0][1] in signs and self.tokens[0][0] != "text":
            return self.tokens.pop(0)[1]
        return ""

    def _expect(self, sign: str) -> None:
        if not self._take(sign):
            raise UnknownRuleError(self.rule)

    def choice(self) -> Expression:
        test = self._joined(self._both, "||", either=True)
        if not self._take("?"):
            return test
        first = self.choice()
        self._expect(":")
        second = self.choice()
        return lambda it: first(it) if _truth(test(it)) else second(it)

    def _both(self) -> Expression:
        return self._joined(self._comparison, "&&", either=False)

    def _joined(self, part: Callable[[], Expression], sign: str, *, either: bool) -> Expression:
        left = part()
        while self._take(sign):
            left = _outweighing(left, part(), either=either)
        return left

    def _comparison(self) -> Expression:
        left = self._unary()
        sign = self._take("==", "!=", "<", "<=", ">", ">=", "in")
        return _compared(sign, left, self._unary()) if sign else left

    def _unary(self) -> Expression:
        if self._take("!"):
            inner = self._unary()
            return lambda it: not _truth(inner(it))
        if self._take("-"):
            number = self._unary()
            return lambda it: -number(it)
        return self._member()

    def _member(self) -> Expression:
        value = self._primary()
        while self._take("."):
            sort, name = self.tokens.pop(0) if self.tokens else ("", "")
            if sort != "name":
                raise UnknownRuleError(self.rule)
            value = self._call(name, value) if self._take("(") else _field(value, name)
        return value

    def _call(self, name: str, target: Expression) -> Expression:
        if name == "size":
            self._expect(")")
            return lambda it: _size(target(it))
        method = _METHODS.get(name)
        if method is None:
            raise UnknownRuleError(self.rule)
        argument = self.choice()
        self._expect(")")
        return lambda it: _checked(method, target(it), argument(it))

    def _primary(self) -> Expression:
        if self._take("("):
            inner = self.choice()
            self._expect(")")
            return inner
        if self._take("["):
            items: list[Expression] = []
            while not self._take("]"):
                items.append(self.choice())
                self._take(",")
            return lambda it: [item(it) for item in items]
        sort, text = self.tokens.pop(0) if self.tokens else ("", "")
        if sort == "number":
            number = float(text) if "." in text else int(text)
            return lambda _: number
        if sort == "text":
            return lambda _: text[1:-1]
        if text in _WORDS:
            return lambda _: _WORDS[text]
        if text == "self":
            return lambda it: it
        if text in {"has", "size"} and self._take("("):
            inner = self.choice()
            self._expect(")")
            return _has(inner) if text == "has" else lambda it: _size(inner(it))
        raise UnknownRuleError(self.rule)


def _field(value: Expression, name: str) -> Expression:
    def read(it: Value) -> Value:
        obj = value(it)
        if not isinstance(obj, dict) or name not in obj:
            raise EvaluationError(f"no such key: {name}")
        return obj[name]

    return read


def _has(field: Expression) -> Expression:
    def there(it: Value) -> bool:
        try:
            field(it)
        except EvaluationError:
            return False
        return True

    return there


def _truth(value: Value) -> bool:
    if not isinstance(value, bool):
        raise EvaluationError("no such overload: a condition is no boolean")
    return value


def _size(value: Value) -> int:
    if not isinstance(value, str | list | dict):
        raise EvaluationError("no such overload: size")
    return len(value)


def _checked(operate: Callable[[Any, Any], Any], left: Value, right: Value) -> Value:
    try:
        return operate(left, right)
    except (AttributeError, TypeError) as error:
        raise EvaluationError(f"no such overload: {error}") from error


def _outweighing(left: Expression, right: Expression, *, either: bool) -> Expression:
    """``||`` or ``&&``: an error on one side does not matter if the other decides."""

    def decide(it: Value) -> bool:
        try:
            if _truth(left(it)) is either:
                return either
        except EvaluationError:
            if _truth(right(it)) is either:
                return either
            raise
        return _truth(right(it))

    return decide


def _compared(sign: str, left: Expression, right: Expression) -> Expression:
    operations: dict[str, Callable[[Any, Any], bool]] = {
        "==": lambda a, b: a == b,
        "!=": lambda a, b: a != b,
        "<": lambda a, b: a < b,
        "<=": lambda a, b: a <= b,
        ">": lambda a, b: a > b,
        ">=": lambda a, b: a >= b,
        "in": lambda a, b: a in b,
    }
    return lambda it: _checked(operations[sign], left(it), right(it))
