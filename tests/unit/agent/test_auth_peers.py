"""Agents that ask for a token, and agents that show theirs."""

import json
from pathlib import Path
from typing import Any

import pytest

from kaos.testing.model import ScriptedModel, tool_call


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("token-of-coordinator\n")
    return path


async def test_a_peer_is_shown_our_token_inside_the_cluster_only(
    start_agent: Any,
    ask: Any,
    model: ScriptedModel,
    token: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    guarded = await start_agent(
        name="analyst",
        instructions="I analyse.",
        auth_tokens="coordinator token-of-coordinator",
    )
    services = tmp_path / "services.json"
    inside = "analyst.default.svc.cluster.local"
    services.write_text(json.dumps({f"{inside}:80": guarded.removeprefix("http://")}))
    monkeypatch.setenv("KAOS_SERVICE_MAP", str(services))
    monkeypatch.setenv("KAOS_CLUSTER_DOMAIN", "cluster.local")
    for url, said in ((f"http://{inside}", "It is 4."), (guarded, "asks for a token")):
        model.say(tool_call("delegate_to_analyst", task="2+2?"), "done: {last}")
        model.say("It is 4.", when="I analyse.", repeat=True)
        caller = await start_agent(
            name="coordinator", peers={"analyst": url}, peer_token_files={"analyst": str(token)}
        )
        _, body = await ask(caller)
        assert said in body["choices"][0]["message"]["content"]
    printed = "".join(capfd.readouterr())
    assert "caller=coordinator" in printed
    assert "token-of-coordinator" not in printed


async def test_without_its_token_file_an_agent_says_so_to_the_model(
    start_agent: Any, ask: Any, model: ScriptedModel
) -> None:
    model.say(tool_call("delegate_to_analyst", task="2+2?"), "done: {last}")
    caller = await start_agent(
        peers={"analyst": "http://analyst.default.svc"},
        peer_token_files={"analyst": "/nowhere/token"},
    )
    _, body = await ask(caller)
    assert "we have no token" in body["choices"][0]["message"]["content"]
