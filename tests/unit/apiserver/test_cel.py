"""Rules in a schema: what they say of a value, and which are not understood."""

from typing import Any

import pytest

from kaos.local.apiserver.cel import UnknownRuleError, compile_rule, holds
from kaos.local.apiserver.errors import StatusError
from tests.unit.apiserver.support import World, definition, widget

SELF = {"mode": "Hosted", "n": 3, "list": ["a", "b"], "sub": {"x": True}, "text": "|| in"}


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        ("self.mode != 'Hosted' || has(self.hostedConfig)", False),
        ("self.mode != 'Proxy' || has(self.proxyConfig)", True),
        ("has(self.sub.x)", True),
        ("has(self.none.x)", False),
        ("!has(self.sub) || self.sub.x", True),
        ("self.n >= 3 && self.n < 4", True),
        ("self.n == -3", False),
        ("self.mode in ['Hosted', 'Proxy']", True),
        ("'a' in self.list", True),
        ("size(self.list) == 2", True),
        ("self.list.size() > 2", False),
        ("self.mode.startsWith('Ho') && self.mode.endsWith(\"ed\")", True),
        ("self.text == '|| in'", True),
        ("(self.n == 1 || self.n == 3) && !(self.n == 2)", True),
        ("self.n > 2 ? self.sub.x : false", True),
        ("has(self.n) ? self.n == 4 : true", False),
        ("self.none == 1 || true", True),
        ("true || self.none == 1", True),
        ("self.none == 1 && false", False),
        ("self.none == 1", False),
        ("self.mode < 5", False),
        ("self.mode", False),
        ("self.n.startsWith('x')", False),
    ],
)
def test_rules(rule: str, kept: bool) -> None:
    compile_rule(rule)
    assert holds(rule, SELF) is kept


@pytest.mark.parametrize(
    "rule",
    ["self == oldSelf", "self.list.all(x, x == 'a')", "self.mode.matches('^a')", "self.", "(self",
     "self.n + 1 == 2", "", "has(self.n", "self self", "'open"],
)  # fmt: skip
def test_what_is_not_understood_forbids_nothing(rule: str) -> None:
    with pytest.raises(UnknownRuleError):
        compile_rule(rule)
    assert holds(rule, SELF)


def test_a_broken_rule_is_told_by_its_path() -> None:
    crd = definition()
    spec: dict[str, Any] = {
        "type": "object",
        "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
        "x-kubernetes-validations": [{"rule": "has(self.a) || has(self.b)", "message": "a or b"}],
    }
    schema = {"type": "object", "properties": {"spec": spec}}
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = schema
    world = World()
    world.create("apiextensions.k8s.io/v1", "CustomResourceDefinition", crd, namespace="")
    world.create("test.io/v1", "Widget", widget("w", a="x"))
    with pytest.raises(StatusError) as caught:
        world.create("test.io/v1", "Widget", widget("v"))
    assert caught.value.message == (
        'Widget.test.io "v" is invalid: spec: Invalid value: "object": a or b'
    )
