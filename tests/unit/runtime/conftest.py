"""What all tests of the runtime need."""

from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from tests.unit.runtime.fake import FakeServer
from tests.unit.runtime.support import empty, things


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Keep logs in memory: printing the tracebacks of expected failures takes seconds."""
    with capture_logs():
        yield


@pytest.fixture
def server() -> FakeServer:
    """A server with one thing, "a", and room for ConfigMaps."""
    made = empty()
    things(made).put("a", spec={"n": 1})
    return made
