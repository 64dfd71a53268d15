"""Sessions over HTTP: what the model is shown, what callers are shown, and failing stores."""

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from kaos.agent import app as agent_app
from kaos.agent.memory import keeper
from kaos.agent.memory.local import LocalStore
from kaos.agent.memory.store import Key, Limits, SessionInfo, Stored, StoreError, Turn
from kaos.testing.model import Failure, ScriptedModel, tool_call
from kaos.testing.model import Turn as Say
from kaos.testing.waiting import eventually

Session = Callable[..., Any]
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def said(model: ScriptedModel, number: int = -1) -> list[tuple[str, str]]:
    """What the model was shown in a request, without the agent's instructions."""
    messages = model.requests[number].messages
    return [(m["role"], m["content"]) for m in messages if m["role"] != "system"]


@pytest.fixture
def get(http: aiohttp.ClientSession) -> Session:
    async def get(url: str, method: str = "GET", **headers: str) -> tuple[int, Any]:
        async with http.request(method, url, headers=headers) as answer:
            return answer.status, await answer.json()

    return get


async def test_a_session_is_remembered(start_agent: Any, ask: Any, model: ScriptedModel) -> None:
    model.say("Hello, Ada.", "You are Ada.", "I do not know.")
    url = await start_agent()
    headers = {"x-session-id": "s-1"}
    _, first = await ask(url, "I am Ada.", headers=headers)
    assert first["kaos"]["session"] == "s-1"
    await ask(url, "Who am I?", headers=headers)
    assert said(model) == [
        ("user", "I am Ada."),
        ("assistant", "Hello, Ada."),
        ("user", "Who am I?"),
    ]
    await ask(url, "Who am I?", headers={"x-session-id": "s-2"})
    assert said(model) == [("user", "Who am I?")]


async def test_a_new_session_is_returned_and_can_be_used(
    start_agent: Any, http: aiohttp.ClientSession, ask: Any, model: ScriptedModel
) -> None:
    model.say("one", repeat=True)
    url = await start_agent()
    for streamed in (False, True):
        body = {"messages": [{"role": "user", "content": "x"}], "stream": streamed}
        async with http.post(f"{url}/v1/chat/completions", json=body) as answer:
            session = answer.headers["x-session-id"]
            assert f'"session":"{session}"' in await answer.text()
        await ask(url, "y", headers={"x-session-id": session})
        assert said(model) == [("user", "x"), ("assistant", "one"), ("user", "y")]


async def test_a_whole_conversation_with_a_session_is_not_doubled(
    start_agent: Any, ask: Any, model: ScriptedModel
) -> None:
    model.say("A", "B", "C")
    url = await start_agent()
    headers = {"x-session-id": "s"}
    conversation: list[Any] = []
    for text in ("a", "b"):
        conversation.append({"role": "user", "content": text})
        _, answer = await ask(url, conversation, headers=headers)
        conversation.append(answer["choices"][0]["message"])
    await ask(url, "c", headers=headers)
    assert [content for _, content in said(model)] == ["a", "A", "b", "B", "c"]


@pytest.mark.parametrize(
    "named", [{"metadata": {"session_id": "s-1"}}, {"user": "ada@example.org"}]
)
async def test_metadata_and_user_name_a_session_too(
    start_agent: Any, ask: Any, model: ScriptedModel, named: dict[str, Any]
) -> None:
    model.say("A", "B", "C")
    url = await start_agent()
    await ask(url, "a", **named)
    _, answer = await ask(url, "b", **named)
    assert [content for _, content in said(model)] == ["a", "A", "b"]
    assert "ada" not in answer["kaos"]["session"]
    await ask(url, "c", headers={"x-session-id": "s-2"}, **named)
    assert [content for _, content in said(model)] == ["c"], "the header goes first"


@pytest.mark.parametrize("wrong", ["a b", "x" * 129, "a/b", "é"])
async def test_an_id_that_is_none_is_refused(
    start_agent: Any, ask: Any, model: ScriptedModel, wrong: str
) -> None:
    model.say("x", repeat=True)
    url = await start_agent()
    status, body = await ask(url, metadata={"session_id": wrong})
    assert (status, body["error"]["param"]) == (400, "metadata.session_id")
    status, _ = await ask(url, metadata={"session_id": 7, "other": wrong})
    assert status == 200
    status, _ = await ask(url, metadata="x", user=["x"])
    assert status == 200


async def test_a_call_handed_back_is_continued_by_its_result_alone(
    start_agent: Any, ask: Any, model: ScriptedModel
) -> None:
    model.say(tool_call("weather", city="Ulm"), "It rains.", "Yes.")
    url = await start_agent()
    headers = {"x-session-id": "s"}
    _, body = await ask(url, "Weather?", tools=[WEATHER], headers=headers)
    (call,) = body["choices"][0]["message"]["tool_calls"]
    result = {"role": "tool", "tool_call_id": call["id"], "content": "rain"}
    await ask(url, [result], tools=[WEATHER], headers=headers)
    shown = model.requests[-1].messages[1:]
    assert [m["role"] for m in shown] == ["user", "assistant", "tool"]
    assert shown[1]["tool_calls"] == [call]
    await ask(url, "Sure?", headers=headers)
    assert [role for role, _ in said(model)] == ["user", "assistant", "tool", "assistant", "user"]


async def test_the_budget_holds_and_the_instructions_stay(
    start_agent: Any, ask: Any, model: ScriptedModel
) -> None:
    model.say("ok", repeat=True)
    url = await start_agent(memory_context_limit=200)
    for number in range(6):
        await ask(url, f"{number} " + "x" * 150, headers={"x-session-id": "s"})
    assert model.requests[-1].messages[0] == {"role": "system", "content": "You are a test."}
    assert [content[:1] for _, content in said(model)] == list("2o3o4o5")


async def test_two_requests_at_once_lose_no_turn(
    start_agent: Any, ask: Any, get: Session, model: ScriptedModel
) -> None:
    model.say(Say(text="ok: {last}", delay=0.05), repeat=True)
    url = await start_agent()
    headers = {"x-session-id": "s"}
    await asyncio.gather(*(ask(url, f"{n}", headers=headers) for n in range(10)))
    _, session = await get(f"{url}/sessions/s")
    pairs = [m["content"] for m in session["messages"]]
    assert sorted(pairs[::2]) == [f"{n}" for n in range(10)]
    assert [f"ok: {asked}" for asked in pairs[::2]] == pairs[1::2]


async def test_an_answer_that_failed_is_not_remembered(
    start_agent: Any, ask: Any, get: Session, model: ScriptedModel
) -> None:
    model.say(Say(error=Failure(status=400)), "fine")
    url = await start_agent()
    await ask(url, "a", headers={"x-session-id": "s"})
    await ask(url, "b", headers={"x-session-id": "s"})
    _, session = await get(f"{url}/sessions/s")
    assert [m["content"] for m in session["messages"]] == ["b", "fine"]


async def test_a_caller_without_a_session_that_sends_its_conversation_is_not_kept(
    start_agent: Any, ask: Any, get: Session, model: ScriptedModel
) -> None:
    model.say("ok", repeat=True)
    url = await start_agent(memory_open_list=True)
    conversation = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "A"},
        {"role": "user", "content": "b"},
    ]
    await ask(url, conversation)
    assert (await get(f"{url}/sessions"))[1]["data"] == []
    await ask(url, conversation, headers={"x-session-id": "s"})
    assert (await get(f"{url}/sessions"))[1]["data"][0]["messages"] == 4


async def test_sessions_are_listed_read_and_deleted(
    start_agent: Any, ask: Any, get: Session, model: ScriptedModel
) -> None:
    model.say("ok", repeat=True)
    url = await start_agent(memory_open_list=True)
    for name in ("a", "b", "c"):
        await ask(url, f"I am {name}", headers={"x-session-id": name})
    _, listed = await get(f"{url}/sessions?limit=2")
    assert [entry["id"] for entry in listed["data"]] == ["c", "b"]
    assert listed["has_more"] is True
    before = listed["data"][-1]["updated_at"]
    _, rest = await get(f"{url}/sessions?before={before}")
    assert ([e["id"] for e in rest["data"]], rest["has_more"]) == (["a"], False)
    _, one = await get(f"{url}/sessions/a")
    assert [m["content"] for m in one["messages"]] == ["I am a", "ok"]
    assert (await get(f"{url}/sessions/a", "DELETE"))[1]["deleted"] is True
    for method in ("GET", "DELETE"):
        status, body = await get(f"{url}/sessions/a", method)
        assert (status, body["error"]["code"]) == (404, "not_found")
    for query in ("limit=0", "limit=x", "limit=1001", "limit=nan", "before=x"):
        assert (await get(f"{url}/sessions?{query}"))[0] == 400
    assert (await get(f"{url}/sessions/a%20b"))[0] == 400


async def test_strangers_cannot_list_sessions_unless_told_so(
    start_agent: Any, get: Session
) -> None:
    # R11: an earlier agent showed all sessions to whoever asked.
    status, body = await get(f"{await start_agent()}/sessions")
    assert (status, body["error"]["code"]) == (403, "listing_refused")


async def test_without_memory_there_are_no_sessions(
    start_agent: Any, ask: Any, get: Session, model: ScriptedModel
) -> None:
    model.say("ok", repeat=True)
    url = await start_agent(memory_enabled=False)
    for _ in range(2):
        _, body = await ask(url, "x", headers={"x-session-id": "s"})
        assert "session" not in body["kaos"]
    assert said(model) == [("user", "x")]
    assert (await get(f"{url}/sessions"))[0] == 404


class Failing(LocalStore):
    """A store that is down when told so."""

    down = False
    hangs = False
    failures = 0

    async def _maybe(self) -> None:
        if self.hangs:
            await asyncio.sleep(60)
        if self.down or self.failures:
            self.failures = max(0, self.failures - 1)
            raise StoreError("no connection")

    async def load(self, key: Key) -> Stored | None:
        await self._maybe()
        return await super().load(key)

    async def append(self, key: Key, turn: Turn) -> None:
        await self._maybe()
        await super().append(key, turn)

    async def sessions(
        self, owner: str, limit: int, before: float | None = None
    ) -> list[SessionInfo]:
        await self._maybe()
        return await super().sessions(owner, limit, before)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Failing:
    store = Failing(Limits())
    monkeypatch.setattr(agent_app, "open_store", lambda _settings: store)
    return store


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_store_that_is_down_is_503_for_those_who_need_it(
    start_agent: Any, ask: Any, get: Session, model: ScriptedModel, failing: Failing, streamed: bool
) -> None:
    model.say("ok", repeat=True)
    url = await start_agent(memory_open_list=True)
    failing.down = True
    status, body = await ask(url, headers={"x-session-id": "s"}, stream=streamed)
    assert (status, body["error"]["code"]) == (503, "memory_unavailable")
    assert model.requests == []
    for path in ("/sessions", "/sessions/s"):
        assert (await get(url + path))[0] == 503
    failing.down = False
    assert (await ask(url, headers={"x-session-id": "s"}))[0] == 200


async def test_a_store_that_is_down_loses_no_answer(
    start_agent: Any, ask: Any, stream: Any, text_of: Any, model: ScriptedModel, failing: Failing
) -> None:
    model.say("ok", repeat=True)
    url = await start_agent()
    failing.down = True
    status, body = await ask(url)
    assert (status, body["kaos"]["remembered"]) == (200, False)
    events = await stream(url)
    assert text_of(events) == "ok"
    assert events[-2]["kaos"]["remembered"] is False


async def test_a_write_that_fails_once_is_made_again(
    start_agent: Any, ask: Any, get: Session, model: ScriptedModel, failing: Failing
) -> None:
    model.say("ok")
    url = await start_agent()
    failing.failures = 1
    _, body = await ask(url)
    assert "remembered" not in body["kaos"]
    assert (await get(f"{url}/sessions/{body['kaos']['session']}"))[0] == 200


async def test_a_store_that_hangs_is_not_waited_for(
    start_agent: Any,
    ask: Any,
    model: ScriptedModel,
    failing: Failing,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory = keeper.Memory
    monkeypatch.setattr(agent_app, "Memory", lambda s, limit: memory(s, limit, timeout=0.05))
    model.say("ok", repeat=True)
    url = await start_agent()
    failing.hangs = True
    assert (await ask(url, headers={"x-session-id": "s"}))[0] == 503
    _, body = await ask(url)
    assert body["kaos"]["remembered"] is False


async def test_a_store_that_hangs_costs_no_answer_at_the_deadline(
    start_agent: Any,
    ask: Any,
    model: ScriptedModel,
    failing: Failing,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory = keeper.Memory
    monkeypatch.setattr(agent_app, "Memory", lambda s, limit: memory(s, limit, timeout=0.4))
    model.say("ok")
    url = await start_agent(request_timeout=0.5)
    failing.hangs = True
    status, body = await ask(url)
    assert (status, body["kaos"]["remembered"]) == (200, False)


async def test_a_turn_too_large_to_keep_is_said_so(
    start_agent: Any, ask: Any, model: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "MAX_SESSION_BYTES", 1000)
    model.say("ok")
    _, body = await ask(await start_agent(), "x" * 1000)
    assert body["kaos"]["remembered"] is False


async def test_a_caller_that_hangs_up_at_the_end_is_remembered_all_the_same(
    start_agent: Any,
    http: aiohttp.ClientSession,
    get: Session,
    model: ScriptedModel,
    failing: Failing,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model.say("ok")
    url = await start_agent()
    writing = asyncio.Event()
    append = LocalStore.append

    async def slow(self: LocalStore, key: Key, turn: Turn) -> None:
        writing.set()
        await asyncio.sleep(0.1)
        await append(self, key, turn)

    monkeypatch.setattr(Failing, "append", slow)
    body = {"messages": [{"role": "user", "content": "x"}], "stream": True}
    headers = {"x-session-id": "s"}
    answer = await http.post(f"{url}/v1/chat/completions", json=body, headers=headers)
    await writing.wait()
    answer.close()

    async def kept() -> bool:
        status, _ = await get(f"{url}/sessions/s")
        return bool(status == 200)

    await eventually(kept)
