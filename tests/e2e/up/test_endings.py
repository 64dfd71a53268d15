"""However it ends, no process and no port is left."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.up.program import Kaos, eventually

TOOLS = """\
apiVersion: kaos.tools/v1alpha1
kind: MCPServer
metadata: {name: tools}
spec:
  type: python-runtime
  config: {mcp: test-mcp-echo-server}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A manifest that starts quickly."""
    path = tmp_path / "tools.yaml"
    path.write_text(TOOLS)
    return path


@pytest.fixture
def up(kaos: Kaos, file: Path) -> subprocess.Popen[bytes]:
    """A `kaos up` in the foreground with one pod."""
    return kaos.start_up(file)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_in_order(
    kaos: Kaos, up: subprocess.Popen[bytes], number: signal.Signals
) -> None:
    up.send_signal(number)
    assert up.wait(40) == 0
    assert "Stopping everything" in kaos.said()
    assert kaos.said().strip().endswith("Stopped")
    assert kaos.left_behind() == []
    assert kaos.run("status").returncode == 3


def test_the_second_ctrl_c_kills(kaos: Kaos, up: subprocess.Popen[bytes]) -> None:
    os.kill(kaos.cluster_pid(), signal.SIGSTOP)  # it will not stop in order
    up.send_signal(signal.SIGINT)
    kaos.wait_for_output("Stopping everything", up)
    time.sleep(0.5)  # no hand is faster
    up.send_signal(signal.SIGINT)
    up.wait(40)
    assert kaos.left_behind() == []


def test_kill_9_of_the_terminal_program_stops_all(kaos: Kaos, up: subprocess.Popen[bytes]) -> None:
    up.kill()
    up.wait(5)
    kaos.nothing_is_left(timeout=40)
    down = kaos.run("down")
    assert (down.returncode, down.stdout) == (0, "Nothing runs\n")


def test_kill_9_of_the_cluster_is_noticed_and_cleaned_up(
    kaos: Kaos, up: subprocess.Popen[bytes]
) -> None:
    os.kill(kaos.cluster_pid(), signal.SIGKILL)
    assert up.wait(20) == 1
    assert "the cluster process was killed (signal 9)" in kaos.said()
    assert "Traceback" not in kaos.said()
    assert kaos.left_behind() == []


def test_kill_9_of_a_detached_cluster_then_down(kaos: Kaos, file: Path) -> None:
    up = kaos.run("up", str(file), "-d")
    assert up.returncode == 0, up.stdout + up.stderr + kaos.log()
    os.kill(kaos.cluster_pid(), signal.SIGKILL)
    eventually("the cluster is gone", lambda: kaos.run("status").returncode == 3, 5)
    assert kaos.left_behind() != []  # its pods are
    down = kaos.run("down")
    assert down.returncode == 0
    assert "Ended a leftover of a killed cluster: default/mcpserver-tools" in down.stdout
    assert kaos.left_behind() == []


def test_kill_9_of_both_then_up_again(kaos: Kaos, up: subprocess.Popen[bytes]) -> None:
    cluster = kaos.cluster_pid()
    up.kill()
    os.kill(cluster, signal.SIGKILL)
    up.wait(5)
    eventually("the cluster is gone", lambda: kaos.run("status").returncode == 3, 5)
    orphans = kaos.processes()
    assert orphans != []
    again = kaos.run("up", "-d")
    assert again.returncode == 0, again.stderr + kaos.log()
    assert not set(orphans) & set(kaos.processes())
    # What was there before is there again, without a file.
    eventually("the tools serve again", lambda: kaos.run("status").returncode == 0, 30)
    assert "mcpserver.kaos.tools/tools" in kaos.kubectl("get", "mcpservers", "-o", "name")
    assert kaos.run("down", "--purge").returncode == 0
    assert not kaos.state.exists()
    assert kaos.left_behind() == []


def test_ctrl_c_while_it_starts(kaos: Kaos, file: Path) -> None:
    process = kaos.start("up", str(file))
    kaos.wait_for_output("Cluster is up", process)
    process.send_signal(signal.SIGINT)
    assert process.wait(40) in (0, 130)
    assert "Traceback" not in kaos.said()
    assert kaos.left_behind() == []
