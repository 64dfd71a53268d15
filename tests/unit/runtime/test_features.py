"""The list of features names tests that exist, so that it cannot promise what nobody checks."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FEATURES, BUGS = (
    [
        line
        for line in part.splitlines()
        if line.startswith("| ") and not line.startswith(("| **", "| Feature", "| Bug"))
    ]
    for part in (ROOT / "docs/reference/runtime-features.md").read_text().split("## The classic")
)


@pytest.fixture(scope="module")
def known() -> dict[str, str]:
    """Each test by its name, with its head: signature and docstring."""
    sources = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py")]
    heads = re.compile(r'def (test_\w+)(\([^"]*?-> None:\s+(?:"""[^"]*""")?)?')
    return {found[1]: found[0] for text in sources for found in heads.finditer(text)}


@pytest.mark.parametrize("row", [*FEATURES, *BUGS], ids=lambda row: row.split("|")[1].strip())
def test_every_feature_has_tests(row: str, known: dict[str, str]) -> None:
    named = re.findall(r"`(test_\w+)`", row)
    assert named
    assert set(named) <= known.keys()


@pytest.mark.parametrize("row", BUGS, ids=lambda row: row.split("|")[1].strip())
def test_the_test_of_a_classic_bug_says_where_it_was_told(row: str, known: dict[str, str]) -> None:
    thread = row.split("|")[2].strip()
    for name in re.findall(r"`(test_\w+)`", row):
        assert thread in known[name]
