"""Which images run here, and as what."""

import sys
from pathlib import Path
from typing import Any

import pytest

from kaos.local.node.environment import Translation
from kaos.local.node.images import Image, ImageNotRunnable, ImageTable, repository
from kaos.local.node.launch import NodeVariables, plan_launch
from kaos.local.node.sources import LoadedSources

POD: dict[str, Any] = {"metadata": {"name": "web", "namespace": "team", "uid": "u"}, "spec": {}}


def table(**environ: str) -> ImageTable:
    return ImageTable.default(version="1.2", environ=environ)


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("kaos/kaos:1.2", "kaos/kaos"),
        ("docker.io/library/python:3.12", "python"),
        ("localhost:5000/a/b", "localhost:5000/a/b"),
        ("r.example/a@sha256:00", "r.example/a"),
        ("r.example:5000/a:1@sha256:00", "r.example:5000/a"),
    ],
)
def test_tags_and_digests_are_not_compared(name: str, short: str) -> None:
    assert repository(name) == short


def test_the_kaos_image_is_this_interpreter() -> None:
    image = table()["docker.io/kaos/kaos:other"]
    assert image.argv(["python", "-m", "kaos.agent"], []) == [sys.executable, "-m", "kaos.agent"]
    assert image.argv(["/usr/bin/python3.12"], ["-V"]) == [sys.executable, "-V"]
    assert image.argv([], ["sleep", "1"]) == ["sleep", "1"]
    with pytest.raises(ImageNotRunnable, match="no command"):
        image.argv([], [])


def test_the_users_own_build_is_named_by_the_environment() -> None:
    assert table(KAOS_IMAGE="r.example/mine:dev")["r.example/mine:dev"].image_id.startswith("kaos:")
    with pytest.raises(ImageNotRunnable, match=r'"r\.example/mine:dev" cannot be run'):
        table()["r.example/mine:dev"]


def test_ollama_is_the_program_when_there_is_one(tmp_path: Path) -> None:
    program = tmp_path / "ollama"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    real = table(PATH=str(tmp_path))["ollama/ollama:0.17"]
    assert real.argv([], ["serve"]) == [str(program), "serve"]
    assert real.argv(["/bin/ollama", "list"], []) == [str(program), "list"]


def test_the_users_ollama_keeps_its_models_where_the_user_has_them(tmp_path: Path) -> None:
    """In a folder of the pod's, each `kaos up` would download them again."""
    program = tmp_path / "ollama"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    container = {"args": ["serve"], "env": [{"name": "OLLAMA_MODELS", "value": "/models"}]}
    image = table(PATH=str(tmp_path), HOME="/home/u")["ollama/ollama"]
    launch = plan(container, image, tmp_path)
    assert launch.env["OLLAMA_MODELS"] == "/home/u/.ollama/models"
    assert launch.env["HOME"] == "/home/u"
    image = table(PATH=str(tmp_path), HOME="/home/u", OLLAMA_MODELS="/big/disk")["ollama/ollama"]
    assert plan(container, image, tmp_path).env["OLLAMA_MODELS"] == "/big/disk"


def test_ollama_is_the_stand_in_otherwise() -> None:
    image = table(PATH="/nowhere")["ollama/ollama"]
    assert image.argv([], []) == [sys.executable, "-m", "kaos.local.ollama", "serve"]


def plan(container: dict[str, Any], image: Image, tmp_path: Path, **translation: Any) -> Any:
    return plan_launch(
        container,
        POD,
        image,
        LoadedSources({}, {}),
        Translation(**translation),
        variables=NodeVariables(
            environ={"PATH": "/bin", "SECRET": "x"},
            node_folder=tmp_path,
            service_map=tmp_path / "services.json",
            cluster_domain="example.org",
        ),
        working_folder=tmp_path,
    )


def test_what_a_process_is_told(tmp_path: Path) -> None:
    container = {
        "command": ["python", "$(A)"],
        "args": ["localhost:8000", "$(PATH)"],
        "env": [
            {"name": "A", "value": "/data/x"},
            {"name": "KAOS_NODE_STATE", "value": "elsewhere"},
            {"name": "KAOS_POD_NAME", "value": "mine"},
        ],
        "ports": [{"containerPort": 8000}],
    }
    launch = plan(
        container,
        Image("i"),
        tmp_path,
        ports={8000: 20001},
        mounts={"/data": tmp_path / "d", "/tmp": tmp_path / "t"},
    )
    # The machine's own variables are not the container's: `$(PATH)` stays as it is written.
    argv = [sys.executable, f"{tmp_path}/d/x", "127.0.0.1:20001", "$(PATH)"]
    assert launch.argv == argv
    assert launch.env == {
        "PATH": f"{Path(sys.executable).parent}:/bin",
        "HOSTNAME": "web",
        "KAOS_POD_NAME": "mine",
        "KAOS_POD_NAMESPACE": "team",
        "KAOS_SERVICE_MAP": str(tmp_path / "services.json"),
        "KAOS_CLUSTER_DOMAIN": "example.org",
        "KAOS_NODE_STATE": str(tmp_path),
        "TMPDIR": str(tmp_path / "t"),
        "A": f"{tmp_path}/d/x",
        "PORT": "20001",
    }


def test_a_folder_that_lies_below_a_mount_path_is_not_translated_twice(tmp_path: Path) -> None:
    """The state folder below /tmp, and a volume at /tmp: the first KAOS pods were just that."""
    container = {
        "command": ["$(STORE)/run"],
        "env": [{"name": "STORE", "value": "/models"}, {"name": "SUB", "value": "$(STORE)/x"}],
    }
    mounts = {"/models": Path("/tmp/state/models"), "/tmp": Path("/tmp/state/tmp")}
    launch = plan(container, Image("i"), tmp_path, mounts=mounts)
    assert launch.argv == ["/tmp/state/models/run"]
    assert launch.env["SUB"] == "/tmp/state/models/x"


def test_paths_of_an_image_count_only_when_something_is_mounted_there(tmp_path: Path) -> None:
    image = table(PATH="/nowhere")["ollama/ollama"]
    assert "OLLAMA_MODELS" not in plan({}, image, tmp_path).env
    launch = plan({}, image, tmp_path, mounts={"/root/.ollama": tmp_path}, ports={11434: 20001})
    assert launch.env["OLLAMA_MODELS"] == f"{tmp_path}/models"
    assert launch.env["OLLAMA_HOST"] == "127.0.0.1:20001"


def test_a_working_directory_counts_when_it_is_a_mount(tmp_path: Path) -> None:
    mounted = tmp_path / "v"
    mounted.mkdir()
    container = {"command": ["true"], "workingDir": "/work"}
    assert plan(container, Image("i"), tmp_path).cwd == tmp_path
    assert plan(container, Image("i"), tmp_path, mounts={"/work": mounted}).cwd == mounted
