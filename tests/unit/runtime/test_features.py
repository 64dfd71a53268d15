"""The list of features names tests that exist, so that it cannot promise what nobody checks."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
ROWS = [
    line
    for line in (ROOT / "docs/reference/runtime-features.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith(("| **", "| Feature"))
]


@pytest.fixture(scope="module")
def known() -> set[str]:
    sources = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py")]
    return {name for text in sources for name in re.findall(r"def (test_\w+)", text)}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip())
def test_every_feature_has_tests(row: str, known: set[str]) -> None:
    named = re.findall(r"`(test_\w+)`", row)
    assert named
    assert set(named) <= known
