"""Pytest fixtures and options, found by pytest through the entry point of this package.

Fixtures import what they need when they are asked for: this module is loaded by every pytest
session in an environment with KAOS, also by those that never heard of it. Names begin with
``kaos_`` for the same reason. The asynchronous ones are there when pytest-asyncio is.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from kaos.testing.model import ScriptedModel


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option that puts the same tests on a real cluster."""
    parser.getgroup("kaos").addoption(
        "--kaos-kubeconfig",
        metavar="FILE",
        default="",
        help="run tests that use kaos_api on this kubeconfig's cluster, each in a new namespace, "
        "not on an embedded API server",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Add the asynchronous fixtures, which only pytest-asyncio can run."""
    if config.pluginmanager.hasplugin("asyncio"):
        from kaos.testing import fixtures  # noqa: PLC0415 - see above

        config.pluginmanager.register(fixtures, "kaos-fixtures")


@pytest.fixture
def scripted_model() -> "Callable[..., ScriptedModel]":
    """The class to script a model with, as in `scripted_model("Hello").serve()`."""
    from kaos.testing.model import ScriptedModel  # noqa: PLC0415 - see above

    return ScriptedModel
