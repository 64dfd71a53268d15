"""`python -m kaos.api CRDS REFERENCE`: write what is generated from the models."""

import sys
from pathlib import Path
from typing import Any

import yaml

from kaos.api import MODELS, crds
from kaos.api.reference import reference


class _Plain(yaml.SafeDumper):
    """Repeats what is equal instead of writing YAML anchors, which kubectl users never see."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True


def render(manifest: dict[str, Any]) -> str:
    """A manifest as YAML that is stable from run to run."""
    text = yaml.dump(manifest, Dumper=_Plain, sort_keys=False, width=100, allow_unicode=True)
    return f"# Generated from src/kaos/api by `nox -s manifests`. Do not edit.\n{text}"


def main(folder: Path, page: Path) -> None:
    """Write every kind's definition into the folder, and the reference page."""
    folder.mkdir(parents=True, exist_ok=True)
    for manifest in crds():
        (folder / f"{manifest['metadata']['name']}.yaml").write_text(render(manifest))
    page.write_text(reference(MODELS))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
