"""`kaos` on a state folder of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.up.program import SIMPLE, Kaos, using


@pytest.fixture
def kaos(tmp_path: Path) -> Iterator[Kaos]:
    """The program, with nothing running yet."""
    yield from using(tmp_path)


@pytest.fixture(scope="module")
def simple(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kaos]:
    """The program, with `kaos up simple-agent.yaml` running in the foreground."""
    for kaos in using(tmp_path_factory.mktemp("simple")):
        process = kaos.start_up(SIMPLE)
        try:
            yield kaos
        finally:
            process.terminate()
            assert process.wait(60) == 0
