"""One cluster for all scenarios, and a namespace for each."""

import uuid
from collections.abc import Iterator

import pytest

from tests.e2e.scenarios.targets import TARGETS, Target


@pytest.fixture(scope="session")
def target(request: pytest.FixtureRequest) -> Iterator[Target]:
    """The cluster that `--cluster` names, with KAOS installed."""
    chosen = TARGETS[request.config.getoption("--cluster")]()
    with chosen.running():
        yield chosen


@pytest.fixture
def namespace(target: Target) -> Iterator[str]:
    """A namespace that goes afterwards, with all that is in it; nobody waits for its end."""
    name = f"e2e-{uuid.uuid4().hex[:8]}"
    target.kubectl("create", "namespace", name)
    yield name
    target.kubectl("delete", "namespace", name, "--wait=false")
