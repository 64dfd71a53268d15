"""What the pages show is true: shell blocks run in a fresh clone, manifests and links hold.

Blocks are told by their language: `bash` and `python` are run, `yaml` with a KAOS resource must be
valid. What cannot run here (it needs a cluster of the reader's) is marked `text`.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from kaos.api import GROUP, MODELS
from tests.docs.blocks import ROOT, Block, blocks, pages

TEST_COMMAND = re.compile(r"-m venv .*nox")
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader has after `git clone`."""
    folder = tmp_path_factory.mktemp("readme") / "kaos"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
    return folder


def test_the_readmes_commands_work_in_a_fresh_clone(clone: Path) -> None:
    readme = [block for block in blocks("bash") if block.page.name == "README.md"]
    script = [block.text for block in readme if not TEST_COMMAND.search(block.text)]
    assert len(script) >= 2
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for variable in ("VIRTUAL_ENV", "KUBECONFIG", "PYTHONPATH"):
        environment.pop(variable, None)
    try:
        for text in script:
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", text],
                cwd=clone,
                env=environment,
                capture_output=True,
                text=True,
                timeout=600,
                check=False,
            )
            assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    finally:
        command = clone / ".venv" / "bin" / "kaos"
        if command.exists():
            subprocess.run([command, "down"], cwd=clone, env=environment, check=False, timeout=60)


def test_ci_runs_the_readmes_test_command() -> None:
    (command,) = [b.text.strip() for b in blocks("bash") if TEST_COMMAND.search(b.text)]
    assert command in (ROOT / ".ci" / "run").read_text().splitlines()


@pytest.mark.parametrize(
    "page",
    sorted({block.page for block in blocks("python")}),
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_a_pages_python_blocks_run_in_their_order(page: Path, tmp_path: Path) -> None:
    script = tmp_path / "page.py"
    script.write_text("\n".join(b.text for b in blocks("python") if b.page == page))
    subprocess.run([sys.executable, "-W", "error", script], check=True, timeout=60)


@pytest.mark.parametrize("block", blocks("yaml"), ids=lambda block: block.where)
def test_manifests_are_valid(block: Block) -> None:
    models = {model.KIND: model for model in MODELS}
    for document in yaml.safe_load_all(block.text):
        if document["apiVersion"].startswith(GROUP):
            models[document["kind"]].parse(document)


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"
