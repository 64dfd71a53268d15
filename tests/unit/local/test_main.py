"""The cluster process itself: what it writes, and where."""

from pathlib import Path

import pytest

from kaos.local.__main__ import _open_log
from kaos.local.state import State

_FULL = Path("/dev/full")


@pytest.mark.skipif(not _FULL.exists(), reason="this system has no /dev/full")
def test_a_log_on_a_full_disk_loses_lines_and_fails_nobody(tmp_path: Path) -> None:
    state = State(tmp_path)
    state.prepare()
    state.cluster_log.symlink_to(_FULL)
    with _open_log(state) as file:
        for number in range(2000):
            print('{"event": "starting"}', number, file=file, flush=True)


def test_the_log_is_appended_to_and_the_last_one_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = State(tmp_path)
    state.prepare()
    for line in ("one\n", "two\n"):
        with _open_log(state) as file:
            file.write(line)
            assert state.cluster_log.read_text().endswith(line)  # at once
    assert state.cluster_log.read_text() == "one\ntwo\n"
    monkeypatch.setattr("kaos.local.__main__._KEPT_LOG", 4)
    _open_log(state).close()
    assert state.cluster_log.read_text() == ""
    assert state.cluster_log.with_suffix(".log.1").read_text() == "one\ntwo\n"
