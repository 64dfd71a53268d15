"""Servers, once a test session."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.agent.servers import Server, postgres_server, redis_server


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """A folder that another user may enter, which pytest's own is not."""
    with tempfile.TemporaryDirectory(prefix="kaos-") as made:
        path = Path(made)
        path.chmod(0o755)
        yield path


@pytest.fixture(scope="session")
def redis(folder: Path) -> Iterator[Server]:
    own = folder / "redis"
    own.mkdir()
    with redis_server(own) as server:
        yield server


@pytest.fixture(scope="session")
def postgres(folder: Path) -> Iterator[Server]:
    own = folder / "postgres"
    own.mkdir()
    with postgres_server(own) as server:
        yield server
