"""Tools from Python source: the functions of a spec's `tools.fromString`.

Guarantees: the source runs once, in one module of its own, so its imports, constants and
helper functions are visible inside its functions (an earlier KAOS ran it with separate global
and local namespaces: every tool that used an import died with `NameError`). The public
functions that the source itself defines are its tools: not what it imports, not names with a
leading underscore, not lambdas or aliases; `__all__`, if there is one, is the exact list.
A source that cannot be a tool server is a `SourceError` of one line with the line's number.

Does not: contain the code. It may do all that this process may; the pod is the boundary.
"""

import inspect
import linecache
import sys
import traceback
import types
from collections.abc import Callable
from typing import Any

MODULE = "kaos_tools"
ORIGIN = "tools.fromString"

Function = Callable[..., Any]


class SourceError(Exception):
    """The source of the tools cannot be used."""


def load(source: str) -> list[Function]:
    """Run the source and return its tools in the order of their definition.

    Raises:
        SourceError: It does not compile, fails when run, or defines no public function.
    """
    try:
        code = compile(source, ORIGIN, "exec", dont_inherit=True)
    except SyntaxError as error:
        text = f": {error.text.strip()!r}" if error.text and error.text.strip() else ""
        raise SourceError(f"{ORIGIN}, line {error.lineno or 1}: {error.msg}{text}") from error
    except ValueError as error:  # a null character
        raise SourceError(f"{ORIGIN}: {error}") from error

    module = types.ModuleType(MODULE)
    module.__file__ = ORIGIN
    # Dataclasses, pydantic and get_type_hints look a class's module up here.
    sys.modules[MODULE] = module
    # Tracebacks of tools then show the line, as they do for a file.
    linecache.cache[ORIGIN] = (len(source), None, source.splitlines(keepends=True), ORIGIN)
    try:
        exec(code, module.__dict__)  # noqa: S102 - running the spec's code is what this is for
    except (Exception, SystemExit) as error:
        raise SourceError(f"{ORIGIN}, line {_line(error)}: {_describe(error)}") from error
    return _tools(module)


def _tools(module: types.ModuleType) -> list[Function]:
    listed = getattr(module, "__all__", None)
    if listed is not None:
        missing = [name for name in listed if not callable(getattr(module, name, None))]
        if missing:
            raise SourceError(f"{ORIGIN}: __all__ names {missing[0]!r}, which is no function of it")
        found = [getattr(module, name) for name in listed]
    else:
        found = [
            value
            for name, value in vars(module).items()
            if not name.startswith("_") and _is_own(value, name, module)
        ]
    if not found:
        raise SourceError(f"{ORIGIN} defines no public function, so there is no tool to serve")
    return found


def _is_own(value: object, name: str, module: types.ModuleType) -> bool:
    if isinstance(value, type) or not callable(value):
        return False
    # A decorator from elsewhere leaves our function behind `__wrapped__`.
    function = inspect.unwrap(value)
    return (
        isinstance(function, types.FunctionType)
        and function.__globals__ is vars(module)
        and function.__name__ == name
    )


def _line(error: BaseException) -> int:
    frames = traceback.extract_tb(error.__traceback__)
    return next((f.lineno or 1 for f in reversed(frames) if f.filename == ORIGIN), 1)


def _describe(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
