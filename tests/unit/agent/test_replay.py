"""One run for a request that is sent twice."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest

from kaos.agent import chat, replay
from kaos.agent import model as model_client
from kaos.testing.model import Failure, ScriptedModel, Turn, tool_call
from kaos.testing.waiting import eventually

Post = Callable[..., Any]
KEY = {"idempotency-key": "k-1"}
FIRST = {"x-stainless-retry-count": "0"}
RETRY = {"x-stainless-retry-count": "1"}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_client, "RETRY_DELAYS", ())


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[replay.Replays]:
    """What the agent's endpoint knows."""
    made: list[replay.Replays] = []

    class Known(replay.Replays):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

    monkeypatch.setattr(
        "kaos.agent.app.ChatEndpoint", lambda exchanges: chat.ChatEndpoint(exchanges, Known())
    )
    return made


@pytest.fixture
def post(http: aiohttp.ClientSession) -> Post:
    async def post(
        url: str, headers: dict[str, str], text: str = "x", **more: Any
    ) -> tuple[int, str, bool]:
        body = {"messages": [{"role": "user", "content": text}], **more}
        async with http.post(f"{url}/v1/chat/completions", json=body, headers=headers) as answer:
            replayed = answer.headers.get("idempotency-replayed") == "true"
            return answer.status, await answer.text(), replayed

    return post


async def cut_off(model: ScriptedModel, call: Any, number: int = 1) -> None:
    """Send a request and hang up when the model has it."""
    task = asyncio.create_task(call)
    await eventually(lambda: len(model.requests) == number)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await asyncio.sleep(0.05)


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_key_is_one_run_under_way_and_after(
    start_agent: Any, post: Post, model: ScriptedModel, streamed: bool
) -> None:
    model.say(Turn(text="a b c d e f", delay=0.1, piece_delay=0.02))
    url = await start_agent()
    first = asyncio.create_task(post(url, KEY, stream=streamed))
    await eventually(lambda: bool(model.requests))
    await asyncio.sleep(0.12)  # a stream has begun
    others = await asyncio.gather(*(post(url, KEY, stream=streamed) for _ in range(3)))
    status, text, replayed = await first
    assert (status, replayed) == (200, False)
    later = await post(url, KEY, stream=streamed)
    assert {*others, later} == {(200, text, True)}
    assert text.endswith("[DONE]\n\n") == streamed
    assert len(model.requests) == 1


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_run_with_a_key_goes_on_when_its_caller_is_cut_off(
    start_agent: Any, post: Post, model: ScriptedModel, streamed: bool
) -> None:
    model.say(Turn(text="a b c d e f", delay=0.1, piece_delay=0.05))
    url = await start_agent()
    await cut_off(model, post(url, KEY, stream=streamed))
    status, text, replayed = await post(url, KEY, stream=streamed)
    assert (status, replayed) == (200, True)
    assert '"f"' in text if streamed else "a b c d e f" in text
    assert [request.outcome for request in model.requests] == ["answered"]


async def test_a_run_that_nobody_comes_back_to_ends(
    start_agent: Any, post: Post, model: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "LINGER", 0.1)
    model.say(Turn(text="late", delay=30), "again")
    url = await start_agent()
    await cut_off(model, post(url, KEY))
    assert model.requests[0].outcome == "running"
    await eventually(lambda: model.requests[0].outcome == "cancelled")
    status, text, replayed = await post(url, KEY)
    assert (status, replayed) == (200, False)
    assert "again" in text


async def test_a_key_used_for_another_request_is_refused(
    start_agent: Any, post: Post, model: ScriptedModel
) -> None:
    model.say("ok", repeat=True)
    url = await start_agent()
    await post(url, KEY)
    for other in (post(url, KEY, "y"), post(url, {**KEY, "x-session-id": "s"})):
        status, text, _ = await other
        assert status == 422
        assert "idempotency_key_reused" in text
    assert (await post(url, {"idempotency-key": "k-2"}, "y"))[0] == 200
    assert (await post(url, {"idempotency-key": "k" * 256}))[0] == 400
    assert (await post(url, {"idempotency-key": ""}))[0] == 400


async def test_keys_of_two_callers_do_not_meet(
    start_agent: Any, post: Post, model: ScriptedModel
) -> None:
    model.say("for alice", "for bob")
    url = await start_agent(auth_tokens="alice a-token, bob b-token")
    for name, token in (("alice", "a-token"), ("bob", "b-token")):
        _, text, replayed = await post(url, {**KEY, "authorization": f"Bearer {token}"})
        assert f"for {name}" in text
        assert not replayed


async def test_what_failed_before_anything_was_done_is_tried_again(
    start_agent: Any, post: Post, model: ScriptedModel
) -> None:
    broken = Turn(text="a b c", break_after=2)
    model.say(Turn(error=Failure(status=503)), "fine", broken, "fine too")
    url = await start_agent()
    assert [(await post(url, KEY))[0] for _ in range(2)] == [503, 200]
    key = {"idempotency-key": "k-2"}
    _, text, _ = await post(url, key, stream=True)
    assert "broke off" in text
    _, text, _ = await post(url, key, stream=True)
    assert "too" in text


async def test_what_failed_after_a_tool_was_called_is_not_done_again(
    start_agent: Any, post: Post, model: ScriptedModel, tool_server: str
) -> None:
    model.say(tool_call("echo", text="x"), Turn(error=Failure(status=500)), "never")
    url = await start_agent(mcp_servers={"tools": tool_server})
    first = await post(url, KEY)
    second = await post(url, KEY)
    assert (first[0], second) == (502, (502, first[1], True))
    assert len(model.requests) == 2


async def test_a_turn_is_remembered_once(
    start_agent: Any, post: Post, http: aiohttp.ClientSession, model: ScriptedModel
) -> None:
    model.say("ok")
    url = await start_agent()
    for _ in range(3):
        await post(url, {**KEY, "x-session-id": "s"})
    async with http.get(f"{url}/sessions/s") as answer:
        assert len((await answer.json())["messages"]) == 2


async def test_what_is_kept_is_bounded(
    start_agent: Any,
    post: Post,
    model: ScriptedModel,
    kept: list[replay.Replays],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replay, "MAX_BYTES", 5000)
    model.say("x" * 1500, repeat=True)
    url = await start_agent()
    for number in range(6):
        await post(url, {"idempotency-key": f"k-{number}"})
    assert len(kept[0]._entries) <= 4
    monkeypatch.setattr(replay, "MAX_ENTRIES", 1)
    await post(url, {"idempotency-key": "k-9"})
    assert len(kept[0]._entries) == 2, "the last, and one that is being made room for"
    monkeypatch.setattr(replay, "KEPT", 0.0)
    assert (await post(url, {"idempotency-key": "k-9"}))[2] is False


async def test_requests_of_the_openai_client_leave_nothing_behind(
    start_agent: Any, post: Post, model: ScriptedModel, kept: list[replay.Replays]
) -> None:
    model.say("ok", repeat=True)
    url = await start_agent()
    answers = await asyncio.gather(*(post(url, FIRST) for _ in range(5)))
    assert not any(replayed for _, _, replayed in answers)
    assert len(model.requests) == 5, "the same question twice is two questions"
    assert not kept[0]._entries
    assert not kept[0]._running


async def test_a_retry_takes_over_the_run_that_was_cut_off_and_only_once(
    start_agent: Any, post: Post, model: ScriptedModel
) -> None:
    model.say(Turn(text="first", delay=0.3), "second", "third")
    url = await start_agent()
    await cut_off(model, post(url, FIRST))
    _, text, replayed = await post(url, RETRY)
    assert replayed
    assert "first" in text
    _, text, replayed = await post(url, RETRY)
    assert not replayed
    assert "second" in text
    assert not (await post(url, RETRY, "another"))[2]


async def test_a_retry_gets_what_ended_while_it_waited(
    start_agent: Any, post: Post, model: ScriptedModel
) -> None:
    model.say(Turn(text="first", delay=0.1))
    url = await start_agent()
    await cut_off(model, post(url, FIRST))
    await eventually(lambda: model.requests[0].outcome == "answered")
    assert (await post(url, RETRY))[2]


async def test_a_retry_does_not_take_a_run_that_has_its_caller(
    start_agent: Any, post: Post, model: ScriptedModel
) -> None:
    model.say(Turn(text="first", delay=0.2), "second")
    url = await start_agent()
    first = asyncio.create_task(post(url, FIRST))
    await eventually(lambda: bool(model.requests))
    _, text, replayed = await post(url, RETRY)
    assert not replayed
    assert "second" in text
    assert "first" in (await first)[1]


async def test_a_stream_that_was_seen_ends_with_its_caller(
    start_agent: Any, post: Post, model: ScriptedModel
) -> None:
    model.say(Turn(text="a b c d", piece_delay=30))
    url = await start_agent()
    call = asyncio.create_task(post(url, FIRST, stream=True))
    await eventually(lambda: bool(model.requests))
    await asyncio.sleep(0.2)
    call.cancel()
    await eventually(lambda: model.requests[0].outcome == "cancelled", within=2)


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_shutdown_is_said_to_all_who_joined(
    start_agent: Any, post: Post, stack: AsyncExitStack, model: ScriptedModel, streamed: bool
) -> None:
    model.say(Turn(text="a b", delay=0 if streamed else 30, piece_delay=30))
    url = await start_agent()
    first = asyncio.create_task(post(url, KEY, stream=streamed))
    await eventually(lambda: bool(model.requests))
    second = asyncio.create_task(post(url, KEY, stream=streamed))
    await asyncio.sleep(0.1)
    await stack.aclose()
    for status, text, _ in await asyncio.gather(first, second):
        assert status == (200 if streamed else 503)
        assert "the agent is shutting down" in text


class TestOpenAIClient:
    """What the client really does: it times out and tries again."""

    @pytest.fixture
    async def client(self, start_agent: Any) -> AsyncIterator[Any]:
        openai = pytest.importorskip("openai")
        url = await start_agent()
        async with openai.AsyncOpenAI(
            base_url=f"{url}/v1", api_key="none", max_retries=2, timeout=0.4
        ) as made:
            yield made

    @pytest.mark.parametrize("streamed", [False, True])
    async def test_its_retry_gets_the_run_under_way(
        self, client: Any, model: ScriptedModel, streamed: bool
    ) -> None:
        model.say(Turn(text="at last", delay=0.8))
        answer = await client.chat.completions.create(
            model="assistant", messages=[{"role": "user", "content": "x"}], stream=streamed
        )
        if streamed:
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in answer])
        else:
            text = answer.choices[0].message.content
        assert text == "at last"
        assert len(model.requests) == 1

    async def test_a_key_of_its_users_is_honoured(self, client: Any, model: ScriptedModel) -> None:
        model.say("one", "two")
        texts = [
            (
                await client.chat.completions.create(
                    model="assistant",
                    messages=[{"role": "user", "content": "x"}],
                    extra_headers={"Idempotency-Key": "mine"},
                )
            )
            .choices[0]
            .message.content
            for _ in range(2)
        ]
        assert texts == ["one", "one"]
