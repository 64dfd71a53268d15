"""The chaos test, as short as it makes sense; `nox -s chaos` plays the long one."""

from pathlib import Path

from tests.chaos.play import play
from tests.chaos.processes import embedded


async def test_twenty_seconds_of_everything(tmp_path: Path) -> None:
    async with embedded(tmp_path) as server:
        outcome = await play(server, tmp_path, seconds=20, objects=150)
    assert not outcome.wrong, f"{outcome}\nlogs: {tmp_path}"
