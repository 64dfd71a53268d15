"""The paths of printer columns: what they find, and what is none."""

from typing import Any

import pytest

from kaos.local.apiserver.jsonpath import compile_path

DOCUMENT = {
    "a": {"b.c": 1, "d": [10, 20, 30]},
    "list": [{"n": "x", "v": 1}, {"n": "y", "v": 2}, {"n": "y"}, "odd"],
}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".a.d[0]", [10]),
        ("{.a.d[-1]}", [30]),
        ("$.a.d[5]", []),
        (".a.d[1:]", [20, 30]),
        (".a.d[0:3:2]", [10, 30]),
        (".a.d[*]", [10, 20, 30]),
        (".a['b.c']", [1]),
        (r".a.b\.c", [1]),
        (".list[?(@.n=='y')].v", [2]),
        ('.list[?(@.n != "y")].n', ["x"]),
        (".list[?(@.v>1)].n", ["y"]),
        (".list[?(@.v>='1')].n", []),
        (".list[?(@.v)].n", ["x", "y"]),
        ("..v", [1, 2]),
        (".nothing.here", []),
        (".list.n", []),
    ],
)
def test_paths_find(path: str, found: list[Any]) -> None:
    assert compile_path(path)(DOCUMENT) == found


@pytest.mark.parametrize("path", [".a[", "a b", ".a[?(b)]", ".a..", ".list[?(@.n==)]"])
def test_paths_that_are_none_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match="no path"):
        compile_path(path)
