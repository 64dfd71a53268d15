"""What all tests of the runtime need."""

from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Keep logs in memory: printing the tracebacks of expected failures takes seconds."""
    with capture_logs():
        yield
