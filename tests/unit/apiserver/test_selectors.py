"""Selectors: the grammar, and what it means."""

import pytest

from kaos.local.apiserver.errors import StatusError
from kaos.local.apiserver.selectors import parse_fields, parse_labels

LABELS = {"app": "web", "tier": "a", "rank": "7"}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("app=web", True),
        ("app==web", True),
        ("app = web", True),
        ("app=web,tier=b", False),
        ("app!=web", False),
        ("none!=web", True),
        ("app", True),
        ("!app", False),
        ("!none", True),
        ("app in (web, api)", True),
        ("app in (api),tier", False),
        ("app notin (api,db),tier in (a)", True),
        ("none notin (x)", True),
        ("none in (x)", False),
        ("app=", False),
        ("kaos.tools/name=x", False),
        ("rank>6", True),
        ("rank < 7,app", False),
        ("rank>-1", True),
        ("app>1", False),
        ("none<1", False),
    ],
)
def test_labels(text: str, matches: bool) -> None:
    assert all(term.matches(LABELS) for term in parse_labels(text)) is matches


@pytest.mark.parametrize(
    "text", ["a b", "app in web", "=x", "a=b=c", "app in (a", ",a=b", "rank>x", "a<>1"]
)
def test_labels_that_cannot_be_read(text: str) -> None:
    with pytest.raises(StatusError) as caught:
        parse_labels(text)
    assert caught.value.code == 400


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("metadata.name=p", True),
        ("metadata.name==p,spec.nodeName=n", True),
        ("spec.nodeName!=n", False),
        ("spec.nodeName=", False),
        ("status.phase=", True),
        ("status.phase!=Running", True),
        ("spec.unschedulable=true", True),
    ],
)
def test_fields(text: str, matches: bool) -> None:
    pod = {"metadata": {"name": "p"}, "spec": {"nodeName": "n", "unschedulable": True}}
    assert all(term.matches(pod) for term in parse_fields(text)) is matches


def test_fields_that_cannot_be_read() -> None:
    with pytest.raises(StatusError):
        parse_fields("metadata.name")
