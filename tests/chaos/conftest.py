"""Options of the chaos test."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("chaos")
    group.addoption("--seconds", type=float, default=20.0, help="how long the faults last")
    group.addoption("--objects", type=int, default=150, help="how many widgets there are")
    group.addoption("--seed", type=int, default=1, help="of all dice")
