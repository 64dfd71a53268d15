"""Pytest fixtures, found by pytest through the entry point of this package.

Fixtures import what they need when they are asked for: this module is loaded by every pytest
session in an environment with KAOS, also by those that never heard of it.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from kaos.testing.model import ScriptedModel


@pytest.fixture
def scripted_model() -> "Callable[..., ScriptedModel]":
    """The class to script a model with, as in `scripted_model("Hello").serve()`."""
    from kaos.testing.model import ScriptedModel  # noqa: PLC0415 - see above

    return ScriptedModel
