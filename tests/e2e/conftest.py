"""Options of the end-to-end tests."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--cluster",
        choices=["embedded", "current", "kind"],
        default="embedded",
        help="where the scenarios run: an embedded cluster, the current kubeconfig's, or kind",
    )
