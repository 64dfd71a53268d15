"""Options of the end-to-end tests."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--cluster",
        choices=["embedded", "current", "kind"],
        default="embedded",
        help="where the scenarios run: an embedded cluster, the current kubeconfig's, or kind",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On a cluster of somebody else's only the scenarios run: `kaos up` makes its own."""
    if config.getoption("--cluster") != "embedded":
        items[:] = [item for item in items if "target" in getattr(item, "fixturenames", ())]
