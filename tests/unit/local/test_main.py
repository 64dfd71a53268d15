"""The cluster process itself: what it writes, and where."""

import resource
from pathlib import Path

import pytest

from kaos.local.__main__ import _allow_open_files, _open_log
from kaos.local.state import State

_FULL = Path("/dev/full")


def test_a_cluster_may_open_more_files_than_a_shell_of_macos_grants() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        _allow_open_files()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert hard == before[1]
    assert soft > 256


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
