"""LiteLLM behind the gateway: what reaches it, and its own configuration file."""

import importlib.util
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from kaos.modelapi.config import ROUTER, ConfigError, GatewayConfig, Upstream, load
from kaos.modelapi.gateway import build_app
from kaos.modelapi.litellm_config import LiteLLMFile, SettingError, plan
from kaos.telemetry.serving import running
from kaos.testing.model import ScriptedModel
from tests.unit.modelapi.test_gateway import chat, gateway

ENTRY = "{model_name: a, litellm_params: {model: b}}"


async def test_a_caller_cannot_say_where_litellm_sends_the_key(litellm: Any) -> None:
    """As LiteLLM's `base_url`, a field of the body once took the upstream's key along."""
    evil = {"base_url": "http://evil", "extra_headers": {"x": "y"}, "api_key": "mine"}
    model = {"name": "m", "provider": "acme", "api_key_env": "K"}
    async with (
        gateway(model, K="key") as (http, _),
        chat(http, {"model": "m", "messages": [], "seed": 1, **evil}) as reply,
    ):
        assert reply.status == 200
    (asked,) = litellm.asked
    assert asked["api_key"] == "key"
    assert asked["seed"] == 1
    assert not {"base_url", "extra_headers"} & asked.keys()


async def test_litellms_own_configuration_is_its_routers(litellm: Any, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "model_list:\n"
        "  - {model_name: big, litellm_params: {model: acme/a, api_key: os.environ/KEY}}\n"
        "  - {model_name: big, litellm_params: {model: acme/b, nested: [{x: os.environ/KEY}]}}\n"
        "  - {model_name: 'acme/*', litellm_params: {model: 'acme/*'}}\n"
        "litellm_settings: {drop_params: false, callbacks: [otel]}\n"
        "router_settings: {num_retries: 2, redis_host: x}\n"
    )
    app = build_app(load(path), {"KEY": "s3cret"})
    async with running(app) as url, aiohttp.ClientSession(url) as http:
        async with http.get("/v1/models") as reply:
            assert [model["id"] for model in (await reply.json())["data"]] == ["big"]
        for name in ("big", "acme/any"):
            async with chat(http, {"model": name, "messages": []}) as reply:
                assert (await reply.json())["model"] == name
    assert [asked["model"] for asked in litellm.asked] == ["big", "acme/any"]
    entries = litellm.router.pop("model_list")
    assert litellm.router == {"num_retries": 2}  # and nothing that opens connections
    assert entries[0]["litellm_params"] == {"model": "acme/a", "api_key": "s3cret"}
    assert entries[1]["litellm_params"]["nested"] == [{"x": "s3cret"}]
    assert litellm.drop_params is False
    assert not hasattr(litellm, "callbacks")


async def test_litellm_is_given_addresses_that_the_embedded_cluster_knows(
    litellm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = tmp_path / "services.json"
    services.write_text('{"up.default.svc.cluster.local:8000": "127.0.0.1:4711"}')
    monkeypatch.setenv("KAOS_SERVICE_MAP", str(services))
    monkeypatch.setenv("KAOS_CLUSTER_DOMAIN", "cluster.local")
    there, here = "http://up:8000/v1", "http://127.0.0.1:4711/v1"
    async with (
        gateway({"name": "m", "provider": "acme", "api_base": there}) as (http, _),
        chat(http, {"model": "m", "messages": []}) as reply,
    ):
        assert reply.status == 200
    assert litellm.asked[0]["api_base"] == here
    params = {"model": "acme/m", "api_base": there}
    entry = {"model_name": "m", "litellm_params": params}
    found = plan(LiteLLMFile.model_validate({"model_list": [entry]}), {})
    assert found.router["model_list"][0]["litellm_params"]["api_base"] == here
    params["api_base"] = "http://gone.default.svc:8000"
    with pytest.raises(SettingError, match=r"api_base: no Service answers to gone\.default"):
        plan(LiteLLMFile.model_validate({"model_list": [entry]}), {})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model_list: []", "model_list: List should have at least 1 item"),
        ("model_list: [{model_name: a}]", "model_list.0.litellm_params: Field required"),
        ("model_list: [{model_name: a, litellm_params: {}}]", "model_list.0.litellm_params: needs"),
        (
            "model_list: [{model_name: a, litellm_params: {model: b, api_key: os.environ/NONE}}]",
            "model_list.0.litellm_params.api_key: variable NONE is not set",
        ),
        (
            f"{{model_list: [{ENTRY}], general_settings: {{master_key: s3cret}}}}",
            "general_settings: Dictionary should have at most 0 items",
        ),
        (
            f"{{model_list: [{ENTRY}], guardrails: [{{guardrail_name: pii}}]}}",
            "guardrails: List should have at most 0 items",
        ),
        ("model_list: [", "line 1"),
        ("model_list: !!python/object/apply:os.system [id]", "could not determine a constructor"),
    ],
)
def test_what_is_wrong_in_litellms_configuration_is_one_line(
    tmp_path: Path, text: str, words: str, litellm: Any
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        build_app(load(path), {})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.process  # loading it takes many seconds
@pytest.mark.skipif(importlib.util.find_spec("litellm") is None, reason="needs kaos[modelapi]")
@pytest.mark.timeout(120)
@pytest.mark.filterwarnings("default")
async def test_the_real_litellm_routes_to_a_scripted_model() -> None:
    async with ScriptedModel("scripted", "scripted").serve() as base:
        params = {"model": "openai/*", "api_base": f"{base}/v1", "api_key": "os.environ/K"}
        entries = [{"model_name": "any/*", "litellm_params": params}]
        file = LiteLLMFile.model_validate({"model_list": entries})
        config = GatewayConfig(models=[Upstream(name="any/*", provider=ROUTER)], litellm=file)
        app = build_app(config, {"K": "key"})
        async with running(app) as url, aiohttp.ClientSession(url) as http:
            question = {"model": "any/m", "messages": [{"role": "user", "content": "hi"}]}
            async with chat(http, question) as reply:
                answer = await reply.json()
                assert answer["choices"][0]["message"]["content"] == "scripted"
            async with chat(http, {**question, "stream": True}) as reply:
                assert (await reply.text()).endswith("data: [DONE]\n\n")


def test_an_alias_of_a_group_is_a_model_that_is_served(tmp_path: Path) -> None:
    """It was given to LiteLLM's router, and the gateway answered 404 to it."""
    path = tmp_path / "config.yaml"
    alias = "{model_group_alias: {other: a, shy: {model: a, hidden: true}}}"
    path.write_text(f"{{model_list: [{ENTRY}], router_settings: {alias}}}")
    assert [model.name for model in load(path).models] == ["a", "other", "shy"]
