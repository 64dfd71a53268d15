import os
import pwd
from pathlib import Path

import pytest

from kaos.local.ollama.catalogue import CATALOGUE, SMOLLM2, Model, UnknownModelError, resolve
from kaos.local.ollama.store import Store, cache_folder
from tests.unit.ollama.conftest import CONTENT


@pytest.fixture
def store(tmp_path: Path, model: Model) -> Store:
    store = Store(tmp_path / "cache", tmp_path / "names", (model,))
    store.weights.mkdir()
    store.path(model.weights).write_bytes(CONTENT)
    return store


def names(store: Store) -> list[str]:
    return [pulled.name for pulled, _ in store.list()]


def test_names_come_and_go(store: Store, model: Model) -> None:
    assert names(store) == []
    store.add("tiny:1b", model)
    store.add("a/b", model)
    assert names(store) == ["a/b:latest", "tiny:1b"]
    assert store.get("a/b") is model
    assert store.get("ollama/tiny:1b") is model
    assert store.get("a_b") is None
    assert store.remove("a/b")
    assert not store.remove("a/b")
    assert names(store) == ["tiny:1b"]


def test_names_that_look_alike_are_two(store: Store, model: Model) -> None:
    store.add("a/b", model)
    store.add("a_b", model)
    assert len(names(store)) == 2


def test_a_name_without_its_weights_is_not_listed(store: Store, model: Model) -> None:
    store.add("tiny", model)
    store.path(model.weights).write_bytes(CONTENT[:-1])
    assert names(store) == []


def test_what_is_not_ours_is_left_alone(store: Store, model: Model, tmp_path: Path) -> None:
    store.add("tiny", model)
    (tmp_path / "names" / "names" / "x.json").write_text("{")
    (tmp_path / "names" / "names" / "y.json").write_text('{"name": "y"}')
    assert names(store) == ["tiny:latest"]


def test_damaged_weights_are_found_and_removed(store: Store, model: Model) -> None:
    assert store.check(model.weights)
    path = store.path(model.weights)
    path.unlink()
    path.write_bytes(b"X" + CONTENT[1:])
    assert not store.check(model.weights)
    assert not path.exists()
    assert not store.check(model.weights)


def test_the_cache_is_the_users_even_where_home_is_the_model_store() -> None:
    own = Path(pwd.getpwuid(os.getuid()).pw_dir)
    assert cache_folder({"XDG_CACHE_HOME": "/c", "HOME": "/h"}) == Path("/c/kaos/models")
    assert cache_folder({"HOME": "/h"}).is_relative_to("/h")
    assert cache_folder({"HOME": "/m", "OLLAMA_MODELS": "/m"}).is_relative_to(own)
    assert cache_folder({"HOME": "/h", "OLLAMA_MODELS": "/m"}).is_relative_to("/h")


@pytest.mark.parametrize(
    "name", ["smollm2:135m", "smollm2", "ollama/smollm2:135m", "smollm2:135m-instruct"]
)
def test_names_of_the_one_real_model(name: str) -> None:
    assert resolve(name, {}) is SMOLLM2


def test_an_override_serves_another_model() -> None:
    overrides = {"llama3.2:latest": "smollm2:135m"}
    assert resolve("llama3.2", overrides) is SMOLLM2


def test_a_model_that_cannot_be_had_is_named_with_the_ways_out() -> None:
    with pytest.raises(UnknownModelError) as caught:
        resolve("llama3.2:latest", {})
    for words in (
        "'llama3.2:latest' cannot be had without the ollama program",
        "install ollama",
        "--model-override llama3.2:latest=smollm2:135m",
        "mode Proxy",
    ):
        assert words in str(caught.value)


def test_the_catalogue_has_no_name_twice() -> None:
    every = [name for model in CATALOGUE for name in (model.name, *model.aliases)]
    assert len(every) == len(set(every))
