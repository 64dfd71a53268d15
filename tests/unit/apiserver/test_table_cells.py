"""Cells that read as kubectl's: durations and selectors."""

import pytest

from kaos.local.apiserver.table_cells import duration, selector


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "<invalid>"),
        (-1, "0s"),
        (119, "119s"),
        (120, "2m"),
        (200, "3m20s"),
        (600, "10m"),
        (3 * 3600, "3h"),
        (3 * 3600 + 60, "3h1m"),
        (8 * 3600 + 60, "8h"),
        (2 * 86400, "2d"),
        (2 * 86400 + 3 * 3600, "2d3h"),
        (8 * 86400 + 3600, "8d"),
        (730 * 86400, "2y"),
        (740 * 86400, "2y10d"),
        (9 * 365 * 86400 + 86400, "9y"),
    ],
)
def test_durations_read_as_kubectls(seconds: int, text: str) -> None:
    assert duration(seconds) == text


def test_selectors_read_as_after_dash_l() -> None:
    rules = [
        {"key": "tier", "operator": "In", "values": ["a", "b"]},
        {"key": "x", "operator": "NotIn", "values": ["c"]},
        {"key": "y", "operator": "Exists"},
        {"key": "z", "operator": "DoesNotExist"},
    ]
    value = {"matchLabels": {"b": "2", "a": "1"}, "matchExpressions": rules}
    assert selector(value) == "a=1,b=2,tier in (a,b),x notin (c),y,!z"
    assert selector(None) == "<none>"
