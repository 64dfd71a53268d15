"""The project's own scripts name what is there, and fix nothing to one machine."""

import re
from pathlib import Path

import pytest

from kaos import __version__

ROOT = Path(__file__).parents[3]
FOLDERS = r"src|tests|docs|deploy|manifests|benchmarks|examples|requirements|\.ci"
PATH = re.compile(rf"(?<![\w./-])(?:{FOLDERS})(?:/[\w.-]+)+")
SCRIPTS = ["noxfile.py", "deploy/Dockerfile", ".ci/run", "README.md", "CONTRIBUTING.md"]
ARCHITECTURES = r"amd64|arm64|x86_64|aarch64"


@pytest.mark.parametrize("script", SCRIPTS)
def test_w17_a_script_names_files_that_exist(script: str) -> None:
    named = {path.rstrip(".") for path in PATH.findall((ROOT / script).read_text())}
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_w17_paths_are_found_where_there_are_any() -> None:
    assert PATH.findall("build -f deploy/Dockerfile x/src/y src/kaos.") == [
        "deploy/Dockerfile",
        "src/kaos.",
    ]


def test_w17_the_kustomization_lists_what_is_there() -> None:
    text = (ROOT / "manifests" / "kustomization.yaml").read_text()
    listed = re.findall(r"^  - (\S+\.yaml)$", text, re.MULTILINE)
    there = {path.name for path in (ROOT / "manifests" / "crds").iterdir()}
    assert {name.removeprefix("crds/") for name in listed if name.startswith("crds/")} == there
    assert [name for name in listed if not (ROOT / "manifests" / name).exists()] == []


def test_w17_the_image_is_built_for_whatever_machine_builds_it() -> None:
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    assert not re.search(rf"--platform|GOARCH|TARGETARCH|{ARCHITECTURES}", text)


def test_w17_the_manifests_start_the_version_that_this_is() -> None:
    text = (ROOT / "manifests" / "controller.yaml").read_text()
    assert re.findall(r"image: (\S+)", text) == [f"kaos/kaos:{__version__}"]
