import textwrap

import pytest

from kaos.toolserver.source import SourceError, load


def names(source: str) -> list[str]:
    return [tool.__name__ for tool in load(textwrap.dedent(source))]


def test_the_tools_of_the_users_own_manifest() -> None:
    source = '''\
def calculate(expression: str) -> str:
    """Evaluate a mathematical expression."""
    return str(eval(expression))
'''
    (calculate,) = load(source)
    assert calculate("6 * 7") == "42"


def test_imports_and_helpers_are_visible_inside_tools_r5() -> None:
    (tool,) = load(
        textwrap.dedent("""
        import json
        from math import floor
        PREFIX = "n="
        def _helper(x): return PREFIX + json.dumps(floor(x))
        def tool(x: float) -> str: return _helper(x)
        """)
    )
    assert tool(1.9) == "n=1"


def test_only_public_functions_of_the_source_are_tools() -> None:
    source = """
    from os.path import join
    from dataclasses import dataclass
    import functools

    @dataclass
    class Point: x: int = 0

    def second() -> str: return "2"
    def first() -> str: return "1"
    def _private() -> str: return "p"
    alias = first
    square = lambda x: x * x

    @functools.lru_cache
    def cached(x: int) -> int: return x

    async def later() -> str: return "l"
    """
    assert names(source) == ["second", "first", "cached", "later"]


def test_all_is_the_exact_list() -> None:
    assert names("__all__ = ['b']\ndef a(): ...\ndef b(): ...") == ["b"]
    with pytest.raises(SourceError, match="__all__ names 'c'"):
        load("__all__ = ['c']\ndef a(): ...")


def test_dataclasses_with_postponed_annotations_work() -> None:
    source = """
    from __future__ import annotations
    from dataclasses import dataclass, fields
    @dataclass
    class Point:
        x: int
    def field() -> str: return fields(Point)[0].name
    """
    assert load(textwrap.dedent(source))[0]() == "x"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def f(:\n  pass", "tools.fromString, line 1: invalid syntax: 'def f(:'"),
        ("x = 1\nimport nope_nope", "line 2: ModuleNotFoundError: No module named 'nope_nope'"),
        ("import sys\n\nsys.exit('bye')", "line 3: SystemExit: bye"),
        ("def f():\n  raise ValueError('a\\nb')\nf()", "line 2: ValueError: a b"),
        ("x = 1", "defines no public function"),
        ("def f(): ...\n\0", "tools.fromString"),
    ],
)
def test_a_source_that_cannot_be_used_is_one_line(source: str, message: str) -> None:
    with pytest.raises(SourceError) as caught:
        load(source)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
