import json
from pathlib import Path
from typing import Any

import pytest

from kaos.modelapi.config import ConfigError, GatewayConfig, load

BASE = "http://up.example/v1"


def config(*models: dict[str, Any]) -> GatewayConfig:
    return GatewayConfig.model_validate({"models": list(models)})


@pytest.mark.parametrize(
    ("requested", "asked", "entry"),
    [
        ("gpt-5", "gpt-5-2026", "gpt-5"),
        ("local/llama", "llama", "local/*"),
        ("local/big/llama", "big/llama", "local/*"),
        ("local/big-one", "one", "local/big-*"),
        ("local/", "local/", "*"),
        ("anything", "anything", "*"),
    ],
)
def test_which_entry_answers_and_under_which_name(requested: str, asked: str, entry: str) -> None:
    found = config(
        {"name": "*", "api_base": BASE},
        {"name": "local/*", "model": "*", "api_base": BASE},
        {"name": "local/big-*", "model": "*", "api_base": BASE},
        {"name": "gpt-5", "model": "gpt-5-2026", "api_base": BASE},
    ).target(requested)
    assert found is not None
    assert (found.model, found.upstream.name) == (asked, entry)


def test_a_name_that_nothing_answers() -> None:
    assert config({"name": "a/*", "api_base": BASE}).target("b/c") is None


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ([], "models: List should have at least 1 item"),
        ([{"name": "a"}], "models.0: Value error, set api_base"),
        ([{"name": "a", "api_base": BASE, "key": "s3cret"}], "models.0.key: Extra inputs"),
        ([{"name": "a", "api_base": "ftp://x"}], "models.0.api_base: String should match"),
        ([{"name": "*/*", "api_base": BASE}], "`*` may stand once"),
        ([{"name": "a", "model": "*", "api_base": BASE}], "`*` may stand once"),
        ([{"name": "a", "api_base": BASE}] * 2, "two models are named 'a'"),
        (
            [{"name": "a", "api_base": BASE, "api_key_env": "K", "api_key_file": "/k"}],
            "set one of api_key_env and api_key_file",
        ),
    ],
)
def test_a_wrong_file_is_one_line_with_the_place(
    tmp_path: Path, models: list[Any], message: str
) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"models": models}))
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_json_and_yaml(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text("models:\n  - name: a\n    api_base: http://x\n")
    assert load(path).models[0].name == "a"
    path.write_text("models: [\n")
    with pytest.raises(ConfigError, match="line 2"):
        load(path)
    path = tmp_path / "config.json"
    path.write_text("{")
    with pytest.raises(ConfigError, match=r"config\.json: Expecting"):
        load(path)
    with pytest.raises(ConfigError, match=r"cannot read .*none\.json: No such file"):
        load(tmp_path / "none.json")
