"""`nox -s chaos`: everything at once, for 20 s or 5 min, on the embedded API server or a real."""

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from kaos.runtime import ClusterConfig
from tests.chaos.play import play
from tests.chaos.processes import Cluster, Server, embedded


async def test_whatever_happens_the_world_is_as_wanted(
    request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    option = request.config.getoption
    server: Server
    async with AsyncExitStack() as stack:
        if kubeconfig := option("--kaos-kubeconfig"):
            config = await ClusterConfig.load(Path(kubeconfig))
            server = Cluster(config, option("--restart-command"))
        else:
            server = await stack.enter_async_context(embedded(tmp_path))
        outcome = await play(
            server,
            tmp_path,
            seconds=option("--seconds"),
            objects=option("--objects"),
            seed=option("--seed"),
        )
    with capsys.disabled():
        print(f"\n{outcome}")  # noqa: T201 - what it is run for
    assert not outcome.wrong, f"{outcome}\nlogs: {tmp_path}"
