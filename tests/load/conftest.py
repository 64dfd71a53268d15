"""Options of the load tests."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("load")
    group.addoption("--requests", type=int, default=10_000, help="bad requests to send")
    group.addoption("--streams", type=int, default=500, help="streams at once")
    group.addoption("--seconds", type=float, default=300.0, help="how long the soak lasts")
