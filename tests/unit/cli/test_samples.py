"""The samples are the user's own README examples, byte for byte."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
GIVEN = ROOT.parent / "shared" / "compat"


@pytest.mark.skipif(not GIVEN.is_dir(), reason="the user's files are not on this machine")
@pytest.mark.parametrize("name", ["simple-agent.yaml", "multi-agent-gateway.yaml"])
def test_the_sample_is_the_users_file(name: str) -> None:
    assert (ROOT / "manifests" / "samples" / name).read_bytes() == (GIVEN / name).read_bytes()
