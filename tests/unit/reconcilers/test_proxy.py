"""Who is asked by a ModelAPI in mode Proxy, with what, and by which image."""

import json
from typing import Any

import pytest

from kaos.api import InvalidSpecError, ModelAPI
from kaos.reconcilers.children.modelapi import modelapi_children
from kaos.reconcilers.settings import Settings
from tests.unit.reconcilers.resources import by_kind, env_of, proxy

SETTINGS = Settings(image="kaos/kaos:test", litellm_image="kaos/kaos-litellm:test")
LITELLM = """
model_list:
  - model_name: gpt-5
    litellm_params:
      model: azure/gpt-5-eu
      api_base: os.environ/BASE
      api_key: os.environ/PROXY_API_KEY
  - model_name: local/*
    litellm_params: {model: openai/*, api_base: "http://vllm.models.svc:8000/v1"}
  - model_name: claude
    litellm_params: {model: anthropic/claude}
"""


def children(api: ModelAPI) -> dict[str, dict[str, Any]]:
    return by_kind(modelapi_children(api, SETTINGS, routes=False))


def gateway(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    (container,) = found["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert isinstance(container, dict)
    return container


def entry(api: ModelAPI) -> dict[str, Any]:
    (found,) = json.loads(children(api)["ConfigMap"]["data"]["config.json"])["models"]
    assert isinstance(found, dict)
    return found


BASE = "https://up.test/v1"


@pytest.mark.parametrize(
    ("config", "provider", "image"),
    [
        ({"apiBase": BASE}, None, "kaos/kaos:test"),
        ({"apiBase": BASE, "direct": True}, None, "kaos/kaos:test"),
        ({"apiBase": BASE, "direct": False}, "openai", "kaos/kaos-litellm:test"),
        ({"provider": "anthropic"}, "anthropic", "kaos/kaos-litellm:test"),
        ({"apiBase": BASE, "provider": "azure"}, "azure", "kaos/kaos-litellm:test"),
    ],
)
def test_litellm_is_asked_when_a_provider_is(
    config: dict[str, Any], provider: str | None, image: str
) -> None:
    api = proxy("m", **config)
    assert entry(api).get("provider") == provider
    container = gateway(children(api))
    assert container["image"] == image
    memory = container["resources"]["requests"]["memory"]
    assert memory == ("400Mi" if provider else "96Mi")
    # Its import ended with "No usable temporary directory" on a read-only root.
    mounted = [mount["mountPath"] for mount in container["volumeMounts"]]
    assert ("/tmp" in mounted) == (provider is not None)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"direct": True, "provider": "x"}, "direct needs an OpenAI-compatible apiBase"),
        ({"direct": True, "provider": "x", "apiBase": BASE}, "and no provider"),
        ({"configYaml": {"fromString": "x"}, "direct": True}, "configYaml replaces"),
        ({}, "set apiBase"),
    ],
)
def test_what_does_not_go_together_is_refused(config: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidSpecError, match=words):
        proxy("m", **config)


@pytest.mark.parametrize("field", ["secretKeyRef", "configMapKeyRef"])
def test_a_key_is_read_from_where_it_is_and_a_plain_one_is_taken_as_it_stands(field: str) -> None:
    source = {field: {"name": "upstream", "key": "token"}}
    for key, value in [({"valueFrom": source}, source), ({"value": "a$(b)"}, "a$$(b)")]:
        api = proxy("m", apiBase=BASE, apiKey=key)
        assert env_of(children(api)["Deployment"])["PROXY_API_KEY"] == value
        assert entry(api)["api_key_env"] == "PROXY_API_KEY"


def test_a_key_in_the_users_own_environment_wins_and_is_there_once() -> None:
    """It was there twice, and real API servers refuse that."""
    for key in ({"value": "k"}, {"valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}):
        mine = [{"name": "PROXY_API_KEY", "value": "mine"}]
        api = proxy("m", apiBase=BASE, apiKey=key, env=mine)
        assert env_of(children(api)["Deployment"])["PROXY_API_KEY"] == "mine"


def test_litellms_own_configuration_is_passed_on_and_its_upstreams_may_be_reached() -> None:
    env = [{"name": "BASE", "value": "https://eu.azure.test:8443"}]
    found = children(proxy("gpt-5", "local/llama", configYaml={"fromString": LITELLM}, env=env))
    assert found["ConfigMap"]["data"] == {"config.yaml": LITELLM}
    assert gateway(found)["image"] == "kaos/kaos-litellm:test"
    azure, local, public = found["NetworkPolicy"]["spec"]["egress"][1:]
    assert azure == {"ports": [{"protocol": "TCP", "port": 8443}]}
    assert local["to"][0]["namespaceSelector"]["matchLabels"] == {
        "kubernetes.io/metadata.name": "models"
    }
    assert public["ports"] == [{"protocol": "TCP", "port": 443}]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (LITELLM, r'no entry for model "other" \(it has: gpt-5, local/\*, claude\)'),
        ("model_list: {a: b}", "needs a list named model_list"),
        ("model_list: [1]", "needs a list named model_list"),
        ("!!python/object/apply:os.system [id]", "could not determine a constructor"),
        ("\0", "characters are not allowed"),
    ],
)
def test_a_configuration_that_is_none_is_refused_in_accepted(text: str, words: str) -> None:
    with pytest.raises(InvalidSpecError, match=words):
        children(proxy("other", configYaml={"fromString": text}))


@pytest.mark.parametrize("part", ["router_settings", "litellm_settings"])
def test_an_alias_of_the_router_may_be_asked_for(part: str) -> None:
    """The gateway served it, and the spec that named it was refused."""
    text = f"{LITELLM}\n{part}: {{model_group_alias: {{fast: gpt-5}}}}"
    assert children(proxy("fast", configYaml={"fromString": text}))


def test_a_configuration_in_a_secret_gets_the_image_that_can_do_all() -> None:
    ref = {"name": "s", "key": "k"}
    assert gateway(children(proxy("m", configYaml={"fromSecretKeyRef": ref})))["image"] == (
        "kaos/kaos-litellm:test"
    )
