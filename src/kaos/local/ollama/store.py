"""What is "pulled": names in a folder, weights in the user's cache.

Guarantees: a name is one small JSON file in `names`, written atomically; it is listed only
while its weights are in the cache with the right size. Weights are shared by all stores of the
user, so a pod whose volume is new does not download them again; `check` compares the sha256
and removes a file that does not have it.

Does not: delete weights with the last name, since other stores may use them.

Folders: `OLLAMA_MODELS` holds the names, if it is set; weights are in `<cache>/kaos/models`
(`XDG_CACHE_HOME`, `~/Library/Caches` on macOS, else `~/.cache`). Where HOME is the model store
itself, as in the pods that KAOS makes, the account's own home is meant.
"""

import hashlib
import json
import os
import pwd
import re
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from kaos.local.ollama.catalogue import Model, Weights
from kaos.modelapi.names import full_name


@dataclass(frozen=True, slots=True)
class Pulled:
    """A name in the store.

    Attributes:
        name: With its tag.
        model: The catalogue's name of the model behind it.
        modified_at: When it was pulled, RFC 3339.
    """

    name: str
    model: str
    modified_at: str


def cache_folder(env: Mapping[str, str]) -> Path:
    """The folder of weights."""
    if given := env.get("XDG_CACHE_HOME"):
        return Path(given) / "kaos" / "models"
    home = Path(env.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir)
    if env.get("OLLAMA_MODELS") and home == Path(env["OLLAMA_MODELS"]):
        home = Path(pwd.getpwuid(os.getuid()).pw_dir)
    caches = home / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    return caches / "kaos" / "models"


class Store:
    """Names and weights.

    Args:
        weights: The folder of weights.
        names: The folder of names; below the weights if not given.
        catalogue: The models that names can stand for.
    """

    def __init__(self, weights: Path, names: Path | None, catalogue: tuple[Model, ...]) -> None:
        self.weights = weights
        self._names = (names or weights) / "names"
        self._models = {model.name: model for model in catalogue}
        self._checked: dict[str, tuple[int, int]] = {}

    def path(self, weights: Weights) -> Path:
        """Where a file of weights is, or will be."""
        return self.weights / f"sha256-{weights.sha256}.gguf"

    def has(self, weights: Weights) -> bool:
        """Whether the weights are there, by their size."""
        try:
            return self.path(weights).stat().st_size == weights.size
        except FileNotFoundError:
            return False

    def check(self, weights: Weights) -> bool:
        """Compare the weights' sha256; a file that differs is removed.

        Reads all of the file, unless this object has done so and the file is the same since.
        """
        path = self.path(weights)
        if self.has(weights):
            seen = _identity(path)
            if self._checked.get(weights.sha256) == seen:
                return True
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() == weights.sha256:
                    self._checked[weights.sha256] = seen
                    return True
        path.unlink(missing_ok=True)
        return False

    def list(self) -> list[tuple[Pulled, Model]]:
        """The names whose weights are there, in alphabetical order."""
        found = []
        for path in sorted(self._names.glob("*.json")):
            try:
                pulled = Pulled(**json.loads(path.read_bytes()))
            except (OSError, ValueError, TypeError):
                continue  # not ours, or going away right now
            model = self._models.get(pulled.model)
            if model is not None and self.has(model.weights):
                found.append((pulled, model))
        return found

    def get(self, name: str) -> Model | None:
        """The model pulled under a name."""
        wanted = full_name(name)
        return next((model for pulled, model in self.list() if pulled.name == wanted), None)

    def add(self, name: str, model: Model) -> None:
        """Note that a model is pulled under a name."""
        self._names.mkdir(parents=True, exist_ok=True)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        entry = Pulled(name=full_name(name), model=model.name, modified_at=now)
        with tempfile.NamedTemporaryFile("w", dir=self._names, delete=False) as file:
            json.dump(asdict(entry), file)
        Path(file.name).replace(self._entry(name))

    def remove(self, name: str) -> bool:
        """Forget a name; whether it was there."""
        try:
            self._entry(name).unlink()
        except FileNotFoundError:
            return False
        return True

    def _entry(self, name: str) -> Path:
        full = full_name(name)
        readable = re.sub(r"[^A-Za-z0-9.-]+", "_", full)[:80]
        # Two names that look alike once made readable must not share a file.
        return self._names / f"{readable}-{hashlib.sha256(full.encode()).hexdigest()[:12]}.json"


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_ino, status.st_mtime_ns
