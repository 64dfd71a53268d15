"""The model's client against servers that speak the API in their own ways."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from kaos.agent import model as model_client
from kaos.agent.errors import AgentError, BadRequest, ModelFailed, ModelUnavailable
from kaos.agent.model import ModelClient
from kaos.agent.openai import Json, Turn
from kaos.telemetry import serving

Served = Callable[[Any], Any]
Complete = Callable[..., Any]


@pytest.fixture
async def complete(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Complete]:
    """Ask a model whose responses are given, one for each try; the deltas are kept."""
    monkeypatch.setattr(model_client, "RETRY_DELAYS", (0.01, 0.01))
    responses: list[Response] = []
    seen: list[Request] = []

    async def chat(request: Request) -> Response:
        seen.append(request)
        await request.body()
        return responses.pop(0)

    app = Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])])
    async with serving.running(app) as url, aiohttp.ClientSession() as http:

        async def ask(
            *given: Response, stream: bool = True, **body: Any
        ) -> tuple[Turn, list[Json]]:
            responses[:] = given
            deltas: list[Json] = []

            async def emit(delta: Json) -> None:
                deltas.append(delta)

            client = ModelClient(http, url, key="k1")
            turn = await client.complete(body, emit=emit)
            assert not responses
            assert seen[-1].headers["authorization"] == "Bearer k1"
            return turn, deltas

        yield ask


def sse(*events: Any, done: bool = True, end: str = "\n\n") -> Response:
    lines = [
        f"data: {json.dumps(event) if not isinstance(event, str) else event}" for event in events
    ]
    lines += ["data: [DONE]"] if done else []
    return StreamingResponse(iter([end.join([*lines, ""])]), media_type="text/event-stream")


def delta(finish: str | None = None, **fields: Any) -> Json:
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": finish}]}


def piece(arguments: Any, **fields: Any) -> Json:
    return {"function": {"arguments": arguments, **fields.pop("function", {})}, **fields}


class Ending(StreamingResponse):
    """An answer whose stream ends some time after the last event; notes whose connection it was."""

    def __init__(self, callers: list[Any], wait: float) -> None:
        async def pieces() -> AsyncIterator[str]:
            yield f"data: {json.dumps(delta('stop', content='a'))}\n\ndata: [DONE]\n\n"
            await asyncio.sleep(wait)

        super().__init__(pieces(), media_type="text/event-stream")
        self._callers = callers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._callers.append(scope["client"])
        await super().__call__(scope, receive, send)


@pytest.mark.parametrize(("wait", "patience", "connections"), [(0.01, 2.0, 1), (60.0, 0.01, 2)])
async def test_a_streams_connection_is_used_again_if_the_stream_ends_soon(
    complete: Complete,
    monkeypatch: pytest.MonkeyPatch,
    wait: float,
    patience: float,
    connections: int,
) -> None:
    """It ends after its last event, so it was closed: a new connection for each answer."""
    monkeypatch.setattr(model_client, "END_OF_STREAM", patience)
    callers: list[Any] = []
    for _ in range(2):
        turn, _ = await complete(Ending(callers, wait))
        assert turn["message"]["content"] == "a"
    assert len(set(callers)) == connections


async def test_text_is_put_together_and_handed_on(complete: Complete) -> None:
    turn, deltas = await complete(
        sse(
            delta(role="assistant", content=""),
            delta(content="a"),
            delta(content="b"),
            delta("stop"),
        )
    )
    assert turn["message"] == {"role": "assistant", "content": "ab"}
    assert deltas == [{"content": "a"}, {"content": "b"}]


@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n", "\n: comment\n\n", "\nevent: x\nid: 1\n\n"])
async def test_every_way_to_frame_events_is_read(complete: Complete, end: str) -> None:
    turn, _ = await complete(sse(delta(content="a"), delta("stop"), end=end))
    assert turn["message"]["content"] == "a"


async def test_a_stream_may_end_without_done_but_not_without_its_end(complete: Complete) -> None:
    turn, _ = await complete(sse(delta(content="a"), delta("stop"), done=False))
    assert turn["finish_reason"] == "stop"
    with pytest.raises(ModelFailed, match="broke off"):
        await complete(sse(delta(content="a"), done=False))


@pytest.mark.parametrize(
    "pieces",
    [
        [piece('{"a":', index=0, id="x", function={"name": "f"}), piece("1}", index=0)],
        [piece('{"a":', id="x", function={"name": "f"}), piece("1}")],
        [piece('{"a":1}', id="x", function={"name": "f"})],
        [piece({"a": 1}, index=3, id="x", function={"name": "f"})],
    ],
)
async def test_tool_calls_of_all_kinds_of_servers(complete: Complete, pieces: list[Json]) -> None:
    events = [delta(tool_calls=[part]) for part in pieces]
    turn, deltas = await complete(sse(*events, delta("tool_calls")))
    (call,) = turn["message"]["tool_calls"]
    assert (call["id"], call["function"]["name"]) == ("x", "f")
    assert json.loads(call["function"]["arguments"]) == {"a": 1}
    assert deltas == [], "calls are the loop's business"


async def test_calls_without_an_index_are_told_apart_by_their_ids(complete: Complete) -> None:
    calls = [piece("{}", id=name, function={"name": name}) for name in ("f", "g")]
    turn, _ = await complete(sse(delta(tool_calls=calls), delta("tool_calls")))
    assert [call["id"] for call in turn["message"]["tool_calls"]] == ["f", "g"]


async def test_a_call_without_an_id_gets_one(complete: Complete) -> None:
    call = piece("{}", index=0, function={"name": "f"})
    turn, _ = await complete(sse(delta(tool_calls=[call]), delta("tool_calls")))
    assert turn["message"]["tool_calls"][0]["id"].startswith("call_")


async def test_a_server_that_does_not_stream_is_understood(complete: Complete) -> None:
    message = {"role": "assistant", "content": "whole"}
    answer = {
        "choices": [{"message": message, "finish_reason": "stop"}],
        "usage": {"total_tokens": 3},
    }
    turn, deltas = await complete(JSONResponse(answer))
    assert (turn["message"]["content"], turn["usage"]) == ("whole", {"total_tokens": 3})
    assert deltas == [{"content": "whole"}]


async def test_reasoning_is_handed_on(complete: Complete) -> None:
    turn, deltas = await complete(sse(delta(reasoning_content="hm"), delta("stop", content="x")))
    assert deltas == [{"reasoning_content": "hm"}, {"content": "x"}]
    assert turn["message"]["reasoning_content"] == "hm"


async def test_a_line_of_any_length_is_read(complete: Complete) -> None:
    turn, _ = await complete(sse(delta(content="x" * 700_000), delta("stop")))
    assert len(turn["message"]["content"]) == 700_000


@pytest.mark.parametrize(
    "response",
    [
        JSONResponse({}),
        JSONResponse([1]),
        JSONResponse({"choices": [{"message": None}]}),
        PlainTextResponse("hello"),
        sse("not json"),
        sse({"error": {"message": "out of memory"}}),
        sse({"choices": "x"}, [1], {"choices": [None]}, {"choices": [{"delta": "x"}]}),
    ],
)
async def test_nonsense_is_a_failure_and_not_asked_again(
    complete: Complete, response: Response
) -> None:
    with pytest.raises(ModelFailed):
        await complete(response)


async def test_failures_that_pass_are_tried_again(complete: Complete) -> None:
    late = JSONResponse({"error": {"message": "loading"}}, status_code=503)
    bad = PlainTextResponse("Bad Gateway", status_code=502)
    turn, _ = await complete(late, bad, sse(delta("stop", content="x")))
    assert turn["message"]["content"] == "x"


async def test_after_a_few_tries_it_gives_up(complete: Complete) -> None:
    late = [JSONResponse({"error": "loading"}, status_code=503) for _ in range(3)]
    with pytest.raises(ModelUnavailable, match="loading") as caught:
        await complete(*late)
    assert caught.value.retry_after


async def test_a_long_retry_after_is_the_callers_to_wait(complete: Complete) -> None:
    late = PlainTextResponse("", status_code=503, headers={"retry-after": "60"})
    with pytest.raises(ModelUnavailable) as caught:
        await complete(late)
    assert caught.value.retry_after == 60


@pytest.mark.parametrize("status", [302, 400, 413, 422, 500])
async def test_what_will_not_pass_is_not_tried_again(complete: Complete, status: int) -> None:
    with pytest.raises(AgentError) as caught:
        await complete(PlainTextResponse("no", status_code=status))
    assert caught.value.status == (status if 400 <= status < 500 else 502)


async def test_what_cannot_be_sent_is_the_callers_mistake(complete: Complete) -> None:
    with pytest.raises(BadRequest):
        await complete(messages=["\ud800"])


@pytest.mark.parametrize("index", [{"index": 0}, {}])
async def test_whole_calls_that_share_an_index_stay_apart(complete: Complete, index: Json) -> None:
    """ollama#15457: two parallel calls became one, with both arguments and the last name."""
    calls = [
        piece(f'{{"n": {n}}}', id=f"c{n}", function={"name": f"f{n}"}, **index) for n in range(2)
    ]
    turn, _ = await complete(
        sse(*(delta(tool_calls=[call]) for call in calls), delta("tool_calls"))
    )
    made = [(c["id"], c["function"]["name"], c["function"]["arguments"]) for c in _calls(turn)]
    assert made == [("c0", "f0", '{"n": 0}'), ("c1", "f1", '{"n": 1}')]


async def test_a_further_piece_with_an_id_of_its_own_is_no_new_call(complete: Complete) -> None:
    """vLLM before 0.9 gave each piece of a call a new id."""
    first = piece('{"n"', index=0, id="a", function={"name": "f"})
    turn, _ = await complete(
        sse(
            delta(tool_calls=[first]),
            delta(tool_calls=[piece(": 1}", index=0, id="b")]),
            delta("tool_calls"),
        )
    )
    (call,) = _calls(turn)
    assert call["function"] == {"name": "f", "arguments": '{"n": 1}'}


async def test_content_in_parts_is_text(complete: Complete) -> None:
    parts = [{"type": "text", "text": "a"}]
    turn, deltas = await complete(sse(delta(content=parts), delta("stop")))
    assert (turn["message"]["content"], deltas) == ("a", [{"content": "a"}])


async def test_a_function_that_is_no_object_is_a_failed_answer(complete: Complete) -> None:
    with pytest.raises(ModelFailed, match="no object"):
        await complete(sse(delta(tool_calls=[{"id": "c", "function": "f"}]), delta("stop")))


def _calls(turn: Turn) -> list[Json]:
    found: list[Json] = turn["message"]["tool_calls"]
    return found
