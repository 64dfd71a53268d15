"""A cluster for each test that asks for one."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.node.harness import Cluster, cluster


@pytest.fixture
async def small(tmp_path: Path) -> AsyncIterator[Cluster]:
    """A running cluster with an empty state."""
    async with cluster(tmp_path / "node") as running:
        yield running
