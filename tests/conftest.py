"""What holds for every test."""

import asyncio
import sys

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """What tests of faults need to know of a real cluster."""
    group = parser.getgroup("kaos faults")
    group.addoption(
        "--restart-command",
        default="",
        help="with --kaos-kubeconfig: the command that kills and starts the API server",
    )
    group.addoption(
        "--restart-etcd-command",
        default="",
        help="with --kaos-kubeconfig: the command that kills and starts etcd",
    )


def pytest_configure() -> None:
    """Say that this thread has no event loop yet.

    pytest-asyncio asks for "the" loop before its first test; before Python 3.14 asyncio answers
    with one made for the occasion, which nobody closes: with warnings as errors a whole run
    then fails at its end, depending on when garbage is collected.
    """
    if sys.version_info < (3, 14):
        asyncio.set_event_loop(None)
