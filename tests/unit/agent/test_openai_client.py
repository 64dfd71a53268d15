"""The `openai` client against an agent, as a user would use it."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from kaos.agent import model as model_client
from kaos.telemetry import serving
from kaos.testing.model import Failure, ScriptedModel, ToolCall, Turn, tool_call

openai = pytest.importorskip("openai")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_client, "RETRY_DELAYS", ())


@pytest.fixture
async def client(start_agent: Any, tool_server: str) -> AsyncIterator[Any]:
    url = await start_agent(mcp_servers={"tools": tool_server})
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as made:
        yield made


MESSAGES = [{"role": "user", "content": "Hello!"}]


async def test_whole(client: Any, model: ScriptedModel) -> None:
    model.say(tool_call("echo", text="hi"), "It's {last}")
    answer = await client.chat.completions.create(model="assistant", messages=MESSAGES)
    assert answer.choices[0].message.content == "It's echo: hi"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens > 0


async def test_streamed(client: Any, model: ScriptedModel) -> None:
    model.say(tool_call("echo", text="hi"), "It's {last}")
    chunks = await client.chat.completions.create(
        model="assistant", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    text, usage = "", None
    async for chunk in chunks:
        text += "".join(choice.delta.content or "" for choice in chunk.choices)
        usage = chunk.usage or usage
    assert text == "It's echo: hi"
    assert usage is not None
    assert usage.total_tokens > 0


async def test_the_streaming_helper_accumulates_our_chunks(
    client: Any, model: ScriptedModel
) -> None:
    call = ToolCall(name="weather", arguments={"city": "Ulm"})
    model.say(Turn(text="Let me ask.", tool_calls=(call,)))
    function = {"name": "weather", "parameters": {}, "strict": True}  # openai 2 insists on it
    tools = [{"type": "function", "function": function}]
    async with client.chat.completions.stream(
        model="assistant", messages=MESSAGES, tools=tools
    ) as stream:
        final = await stream.get_final_completion()
    choice = final.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "Let me ask."
    assert choice.message.tool_calls[0].function.arguments == '{"city": "Ulm"}'


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (Failure(status=400, message="bad"), "BadRequestError"),
        (Failure(status=429, message="busy", retry_after=9), "RateLimitError"),
        (Failure(status=500, message="oops"), "InternalServerError"),
    ],
)
async def test_errors(client: Any, model: ScriptedModel, failure: Failure, error: str) -> None:
    model.say(Turn(error=failure))
    with pytest.raises(getattr(openai, error), match=failure.message) as caught:
        await client.chat.completions.create(model="assistant", messages=MESSAGES)
    assert caught.value.request_id.startswith("req-")


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"messages": []}, "BadRequestError"),
        ({"extra_headers": {"idempotency-key": "used"}}, "UnprocessableEntityError"),
        ({"extra_headers": {"x-request-timeout": "0.05"}}, "InternalServerError"),
        ({"extra_headers": {"Authorization": "Bearer nobody"}}, "AuthenticationError"),
    ],
)
async def test_refusals_are_of_their_classes(
    start_agent: Any, model: ScriptedModel, fields: dict[str, Any], error: str
) -> None:
    model.say("first", Turn(text="late", delay=1))
    url = await start_agent(auth_tokens="sesame-sesame-sesame")
    async with openai.AsyncOpenAI(
        base_url=f"{url}/v1", api_key="sesame-sesame-sesame", max_retries=0
    ) as client:
        create = client.chat.completions.create
        used = {"idempotency-key": "used"}
        await create(model="a", messages=[*MESSAGES, *MESSAGES], extra_headers=used)
        with pytest.raises(getattr(openai, error)):
            await create(**{"model": "a", "messages": MESSAGES, **fields})


async def test_an_error_in_the_middle_of_a_stream(client: Any, model: ScriptedModel) -> None:
    model.say(Turn(text="a b c", break_after=2))
    stream = await client.chat.completions.create(model="assistant", messages=MESSAGES, stream=True)
    with pytest.raises(openai.APIError, match="broke off"):
        [chunk async for chunk in stream]


async def test_logprobs_come_back_to_who_asked_for_them(
    start_agent: Any, tool_server: str, stack: AsyncExitStack
) -> None:
    """They were asked of the model, and thrown away."""

    def event(choice: Any) -> str:
        return f"data: {json.dumps({'choices': [{'index': 0, **choice}]})}\n\n"

    async def chat(request: Request) -> Response:
        body = await request.json()
        assert body["logprobs"] is True
        tokens: list[dict[str, Any]] = [
            {"token": text, "logprob": -0.5, "bytes": None, "top_logprobs": []}
            for text in ("Hel", "lo")
        ]
        if not body["stream"]:
            choice = {"message": {"content": "Hello"}, "logprobs": {"content": tokens}}
            return JSONResponse({"choices": [{**choice, "finish_reason": "stop"}]})
        pieces = [
            event({"delta": {"content": token["token"]}, "logprobs": {"content": [token]}})
            for token in tokens
        ]
        end = event({"delta": {}, "finish_reason": "stop"})
        return Response("".join([*pieces, end]), media_type="text/event-stream")

    app = Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])])
    url = await start_agent(
        model_api_url=await stack.enter_async_context(serving.running(app)),
        mcp_servers={"tools": tool_server},
    )
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        asked = {"model": "assistant", "messages": MESSAGES, "logprobs": True}
        whole = await client.chat.completions.create(**asked)
        async with client.chat.completions.stream(**asked) as stream:
            streamed = await stream.get_final_completion()
    for answer in (whole, streamed):
        assert [token.token for token in answer.choices[0].logprobs.content] == ["Hel", "lo"]


async def test_the_list_of_models(client: Any) -> None:
    assert [entry.id async for entry in client.models.list()] == ["assistant"]
    assert (await client.models.retrieve("assistant")).id == "assistant"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("other")
