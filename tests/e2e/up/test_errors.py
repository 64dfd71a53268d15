"""What a new user gets wrong once the cluster is up, or just before."""

import socket
from pathlib import Path

from tests.e2e.up.program import Kaos

LONELY = """\
apiVersion: kaos.tools/v1alpha1
kind: Agent
metadata: {name: assistant}
spec: {modelAPI: ollama}
"""


def test_an_agent_that_names_a_missing_model_api_is_waited_for(kaos: Kaos, tmp_path: Path) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text(LONELY)
    done = kaos.run("up", str(file), "--timeout", "6")
    assert done.returncode == 1
    assert 'Agent/assistant waits: ModelAPI "ollama" does not exist' in done.stdout
    first, last = done.stderr.splitlines()
    assert first.startswith('kaos: Agent/assistant is not ready: ModelAPI "ollama" does not exist')
    assert last == "kaos: gave up after 6 s (--timeout)"
    assert kaos.left_behind() == []


def test_a_port_in_use_is_one_line(kaos: Kaos) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", kaos.port))
        taken.listen(1)
        done = kaos.run("up")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"kaos: port {kaos.port} is in use by ")
    assert "--port" in line


def test_a_second_cluster_process_on_the_same_folder_says_who_owns_it(kaos: Kaos) -> None:
    assert kaos.run("up", "-d").returncode == 0
    pid = kaos.cluster_pid()
    second = kaos.run("up", "-d")
    assert second.returncode == 0
    assert kaos.cluster_pid() == pid
