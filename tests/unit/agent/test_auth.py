"""Who may call: tokens from a file or the environment, and what the guard lets through."""

import hmac
import os
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from kaos.agent import __main__ as agent_main
from kaos.agent.auth.open import open_verifiers
from kaos.agent.auth.tokens import TokenFile, Tokens
from kaos.agent.settings import Settings, SettingsError
from kaos.testing.model import ScriptedModel

ALICE = {"authorization": "Bearer token-of-alice"}
BOB = {"authorization": "Bearer token-of-bob"}
TOKENS = "alice token-of-alice, bob token-of-bob, unnamed-token"
HELLO = {"messages": [{"role": "user", "content": "x"}]}


async def test_it_is_off_by_default(start_agent: Any, ask: Any, model: ScriptedModel) -> None:
    model.say("ok")
    assert (await ask(await start_agent()))[0] == 200


@pytest.mark.parametrize(
    ("header", "shown"),
    [
        (None, False),
        ("", False),
        ("Bearer ", False),
        ("Basic token-of-alice", False),
        ("Bearer wrong", True),
        ("Bearer token-of-alic", True),
        ("Bearer token-of-alice x", True),
        ("Bearer alice", True),
        ("Bearer \xe9", True),
        ("Bearer a.b.c", True),
        ("Bearer " + "x" * 7000, True),
    ],
)
async def test_without_a_valid_token_it_is_401_in_openais_form(
    start_agent: Any,
    http: aiohttp.ClientSession,
    model: ScriptedModel,
    header: str | None,
    shown: bool,
) -> None:
    url = await start_agent(auth_tokens=TOKENS)
    headers = {} if header is None else {"authorization": header}
    for method, path in (
        ("POST", "/v1/chat/completions"),
        ("GET", "/v1/models"),
        ("GET", "/sessions"),
        ("GET", "/v1/runs"),
        ("GET", "/nothing"),
    ):
        async with http.request(method, url + path, json=HELLO, headers=headers) as answer:
            assert answer.status == 401
            assert answer.headers["www-authenticate"].startswith('Bearer realm="kaos"')
            assert ("invalid_token" in answer.headers["www-authenticate"]) == shown
            assert answer.headers["x-should-retry"] == "false"
            error = (await answer.json())["error"]
            assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_api_key")
    assert model.requests == []


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_every_token_of_the_list_opens(
    start_agent: Any, ask: Any, model: ScriptedModel, scheme: str
) -> None:
    model.say("ok", repeat=True)
    url = await start_agent(auth_tokens=TOKENS)
    for token in ("token-of-alice", "token-of-bob", "unnamed-token"):
        assert (await ask(url, headers={"authorization": f"{scheme} {token}"}))[0] == 200


async def test_probes_metrics_and_the_card_stay_open(
    start_agent: Any, http: aiohttp.ClientSession
) -> None:
    url = await start_agent(auth_tokens=TOKENS)
    for path in ("/healthz", "/readyz", "/metrics", "/.well-known/agent-card.json"):
        async with http.get(url + path) as answer:
            assert answer.status == 200, path


async def test_a_large_body_without_a_token_is_refused_and_not_read(
    start_agent: Any, http: aiohttp.ClientSession
) -> None:
    url = await start_agent(auth_tokens=TOKENS)
    body = b"x" * 1_000_000
    async with http.post(f"{url}/v1/chat/completions", data=body) as answer:
        assert answer.status == 401


async def test_the_log_names_the_caller_and_no_token(
    start_agent: Any, ask: Any, model: ScriptedModel, capfd: pytest.CaptureFixture[str]
) -> None:
    model.say("ok")
    url = await start_agent(auth_tokens=TOKENS)
    await ask(url, headers=ALICE)
    await ask(url, headers={"authorization": "Bearer not-a-token"})
    printed = "".join(capfd.readouterr())
    (step,) = [line for line in printed.splitlines() if "kind=model" in line]
    assert "caller=alice" in step
    assert "token-of-alice" not in printed
    assert "not-a-token" not in printed


async def test_sessions_belong_to_the_caller(
    start_agent: Any, ask: Any, http: aiohttp.ClientSession, model: ScriptedModel
) -> None:
    model.say("ok", repeat=True)
    url = await start_agent(auth_tokens=TOKENS)
    await ask(url, "a secret of Alice's", headers={**ALICE, "x-session-id": "s"})
    await ask(url, "what?", headers={**BOB, "x-session-id": "s"})
    shown = [m["content"] for m in model.requests[-1].messages[1:]]
    assert shown == ["what?"]
    for headers, text in ((ALICE, "a secret of Alice's"), (BOB, "what?")):
        async with http.get(f"{url}/sessions", headers=headers) as answer:
            assert [entry["id"] for entry in (await answer.json())["data"]] == ["s"]
        async with http.get(f"{url}/sessions/s", headers=headers) as answer:
            assert (await answer.json())["messages"][0]["content"] == text
    async with http.delete(f"{url}/sessions/s", headers=BOB) as answer:
        assert answer.status == 200
    async with http.get(f"{url}/sessions/s", headers=ALICE) as answer:
        assert answer.status == 200


async def test_runs_belong_to_the_caller(
    start_agent: Any, ask: Any, http: aiohttp.ClientSession, model: ScriptedModel
) -> None:
    """Everybody with a token saw all runs, and could write into them by their id."""
    model.say("ok", repeat=True)
    url = await start_agent(auth_tokens=TOKENS)
    for headers in (ALICE, ALICE, BOB):
        await ask(url, "hi", headers={**headers, "x-kaos-run": "run-1"})
    await ask(url, "hi", headers={**BOB, "x-kaos-run": "run-2"})
    for headers, ids, events in ((ALICE, ["run-1"], 8), (BOB, ["run-2", "run-1"], 4)):
        async with http.get(f"{url}/v1/runs", headers=headers) as answer:
            assert [run["id"] for run in (await answer.json())["data"]] == ids
        async with http.get(f"{url}/v1/runs/run-1", headers=headers) as answer:
            assert (await answer.json())["last_event"] == events
    for path in ("run-2", "run-2/events"):
        async with http.get(f"{url}/v1/runs/{path}", headers=ALICE) as answer:
            assert answer.status == 404


async def test_every_token_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    compare = hmac.compare_digest

    def counting(first: bytes, second: bytes) -> bool:
        compared.append((len(first), len(second)))
        return compare(first, second)

    monkeypatch.setattr(hmac, "compare_digest", counting)
    tokens = Tokens(["a one", "b two", "c three"])
    for given, name in (("one", "a"), ("three", "c"), ("four", None), ("o", None)):
        compared.clear()
        assert await tokens.identify(given) == name
        assert compared == [(32, 32)] * 3


def write(path: Path, text: str | None, encoding: str = "utf-8") -> None:
    if text is None:
        path.unlink()
    else:
        path.write_text(text, encoding)


class TestFile:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        path = tmp_path / "tokens"
        path.write_text("# comment\n\n  alice   old-token  \nplain\n")
        return path

    async def test_names_comments_and_blank_lines(self, path: Path) -> None:
        tokens = TokenFile(path)
        assert await tokens.identify("old-token") == "alice"
        assert await tokens.identify("plain") == "token"
        for other in ("alice", "#", "comment", "", "old-token plain"):
            assert await tokens.identify(other) is None

    async def test_tokens_rotate_without_a_restart(
        self, start_agent: Any, ask: Any, model: ScriptedModel, path: Path
    ) -> None:
        model.say("ok", repeat=True)
        url = await start_agent(auth_tokens_file=str(path))

        async def status(token: str) -> int:
            answered, _ = await ask(url, headers={"authorization": f"Bearer {token}"})
            return int(answered)

        assert (await status("old-token"), await status("new-token")) == (200, 401)
        write(path, "alice old-token\nalice new-token\n")
        assert (await status("old-token"), await status("new-token")) == (200, 200)
        write(path, "alice new-token\n")
        assert (await status("old-token"), await status("new-token")) == (401, 200)

    async def test_a_mounted_secret_is_replaced_by_a_link(self, tmp_path: Path) -> None:
        for version in ("1", "2"):
            (tmp_path / version).mkdir()
            (tmp_path / version / "tokens").write_text(f"token-{version}\n")
        (tmp_path / "now").symlink_to("1")
        tokens = TokenFile(tmp_path / "now" / "tokens")
        assert await tokens.identify("token-1")
        (tmp_path / "next").symlink_to("2")
        os.replace(tmp_path / "next", tmp_path / "now")  # noqa: PTH105 - as the kubelet does
        assert await tokens.identify("token-1") is None
        assert await tokens.identify("token-2")

    async def test_a_file_that_is_gone_lets_nobody_in(self, path: Path) -> None:
        tokens = TokenFile(path)
        write(path, None)
        assert await tokens.identify("old-token") is None
        write(path, "alice old-token")
        assert await tokens.identify("old-token") == "alice"
        write(path, "alice \xff", "latin-1")
        assert await tokens.identify("old-token") is None


NEEDED: dict[str, Any] = {"name": "a", "model_api_url": "http://m", "model_name": "m"}


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"auth_tokens_file": "/nowhere/tokens"}, "KAOS_AUTH_TOKENS_FILE /nowhere/tokens: No such"),
        ({"auth_tokens_file": "EMPTY"}, "there is no token in it"),
        ({"auth_service_accounts": "tokenreview"}, "KAOS_AUTH_ALLOW names nobody"),
        (
            {"auth_service_accounts": "jwks", "auth_allow_file": "/nowhere/allow"},
            "KAOS_AUTH_ALLOW_FILE /nowhere/allow: No such",
        ),
        (
            {"auth_service_accounts": "jwks", "auth_allow": "ns/a"},
            "outside a cluster: set KAOS_AUTH_API_SERVER",
        ),
    ],
)
def test_what_cannot_be_guarded_does_not_start(
    given: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    empty = tmp_path / "tokens"
    empty.write_text("# nobody\n")
    given = {name: str(empty) if value == "EMPTY" else value for name, value in given.items()}
    with pytest.raises(SettingsError, match=problem):
        open_verifiers(Settings(**NEEDED, **given), {})


def test_a_wrong_setting_is_one_line_at_the_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {
        "AGENT_NAME": "a",
        "MODEL_API_URL": "http://m",
        "MODEL_NAME": "m",
        "MEMORY_TYPE": "sqlite",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("kaos.telemetry.logs.configure", lambda *_: None)
    assert agent_main.main() == 2
    printed = capsys.readouterr().err
    assert printed.splitlines()[-1].startswith("error: the agent cannot start: MEMORY_URL must be")
