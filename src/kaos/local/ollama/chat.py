"""`/v1/chat/completions`: an OpenAI request in, llama.cpp's work, an OpenAI answer out.

Guarantees: the answer, whole or streamed, has OpenAI's form with the requested model's name and
the real token counts; `tools` and `tool_choice` (auto, none, required, one function, allowed
tools) lead to real `tool_calls` whose arguments fit the schema; after tool results the answer
is text. Too long a conversation is a 400 with code `context_length_exceeded`. When the client
goes away, the model stops.

Does not: `n` above 1, log probabilities, images, or more than one tool call an answer.
Parameters that llama.cpp does not need are ignored.

Without a wish of the client the temperature is 0: the same question gets the same answer, and
from a model this small it is also the better one. An answer ends after `MAX_TOKENS` tokens if
the client sets no limit: small models at times never stop.
"""

import contextlib
import json
import secrets
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Protocol

from kaos.local.ollama import choice, toolcall
from kaos.local.ollama.choice import Tool
from kaos.local.ollama.engine import EngineError, RefusedError
from kaos.local.ollama.prompt import Conversation, PromptError
from kaos.modelapi.errors import OpenAIError

MAX_TOKENS = 512
_PASSED = ("temperature", "top_p", "seed", "stop", "presence_penalty", "frequency_penalty")
_REPEAT_PENALTY = 1.05


class Completions(Protocol):
    """What is asked of the engine."""

    async def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        """A whole completion."""
        ...

    def stream(self, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """A completion in chunks."""
        ...


class Chat:
    """One request.

    Args:
        engine: The model.
        request: The body, as the client sent it.

    Raises:
        OpenAIError: The request is malformed.
    """

    def __init__(self, engine: Completions, request: Mapping[str, Any]) -> None:
        self._engine = engine
        self.model = str(request.get("model") or "")
        self.streamed = request.get("stream") is True
        options = request.get("stream_options")
        self._usage_wanted = isinstance(options, dict) and options.get("include_usage") is True
        if request.get("n") not in (None, 1):
            raise OpenAIError("n must be 1", param="n")
        try:
            conversation = Conversation.parse(request.get("messages"))
        except PromptError as error:
            raise OpenAIError(str(error), param=error.param) from error
        self._frame = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": self.model,
        }
        tools = _called(request, conversation)
        self._calls_tool = bool(tools)
        if tools:
            self._body = toolcall.request(conversation.system, tools, conversation.question)
        else:
            self._body = _text_request(request, conversation)

    async def whole(self) -> dict[str, Any]:
        """The answer to a request without `stream`.

        Raises:
            OpenAIError: There is none.
        """
        try:
            answer = await self._engine.complete(self._body)
        except (RefusedError, EngineError) as error:
            raise _openai_error(error) from error
        choice_ = answer["choices"][0]
        message: dict[str, Any] = {
            "role": "assistant",
            "content": choice_["message"].get("content") or "",
            "refusal": None,
        }
        finish = choice_.get("finish_reason") or "stop"
        if self._calls_tool:
            message |= {"content": None, "tool_calls": [_tool_call(message["content"])]}
            finish = "tool_calls"
        return {
            **self._frame,
            "object": "chat.completion",
            "choices": [
                {"index": 0, "message": message, "finish_reason": finish, "logprobs": None}
            ],
            "usage": answer["usage"],
        }

    async def chunks(self) -> AsyncGenerator[dict[str, Any], None]:
        """The answer to a request with `stream`, without the final `[DONE]`.

        Raises:
            OpenAIError: There is none, or it broke off.
        """
        if self._calls_tool:
            answer = await self.whole()
            (call,) = answer["choices"][0]["message"]["tool_calls"]
            arguments, usage = call["function"]["arguments"], answer["usage"]
            head = {**call, "index": 0, "function": {**call["function"], "arguments": ""}}
            yield self._chunk({"role": "assistant", "content": None, "tool_calls": [head]})
            piece = {"index": 0, "function": {"arguments": arguments}}
            yield self._chunk({"tool_calls": [piece]})
            finish = "tool_calls"
        else:
            finish, usage, begun = "stop", {}, False
            try:
                async with contextlib.aclosing(self._engine.stream(self._body)) as stream:
                    async for chunk in stream:
                        # Not before the model has accepted: until then an error is an HTTP error.
                        if not begun:
                            yield self._chunk({"role": "assistant", "content": ""})
                        begun = True
                        usage = chunk.get("usage") or usage
                        for choice_ in chunk["choices"]:
                            if text := choice_["delta"].get("content"):
                                yield self._chunk({"content": text})
                            finish = choice_.get("finish_reason") or finish
            except (RefusedError, EngineError) as error:
                raise _openai_error(error) from error
        yield self._chunk({}, finish)
        if self._usage_wanted:
            frame = {**self._frame, "object": "chat.completion.chunk"}
            yield {**frame, "choices": [], "usage": usage}

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        part = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        return {**self._frame, "object": "chat.completion.chunk", "choices": [part]}


def _text_request(request: Mapping[str, Any], conversation: Conversation) -> dict[str, Any]:
    body: dict[str, Any] = {
        "messages": conversation.messages(),
        "temperature": 0,
        "max_tokens": MAX_TOKENS,
    }
    passed = {key: request[key] for key in _PASSED if request.get(key) is not None}
    limit = request.get("max_completion_tokens") or request.get("max_tokens")
    if limit is not None:
        if not isinstance(limit, int) or limit < 1:
            raise OpenAIError("max_tokens must be a positive integer", param="max_tokens")
        passed["max_tokens"] = limit
    form = request.get("response_format")
    if isinstance(form, dict) and form.get("type") in ("json_object", "json_schema"):
        passed["response_format"] = form
    elif "temperature" not in passed and not conversation.copies:
        body["repeat_penalty"] = _REPEAT_PENALTY
    return body | passed


def _called(request: Mapping[str, Any], conversation: Conversation) -> list[Tool]:
    """The tools of which one is to be called now; none for an answer in text."""
    tools = _tools(request.get("tools"))
    wish = request.get("tool_choice") or "auto"
    if isinstance(wish, dict) and wish.get("type") == "allowed_tools":
        allowed = wish.get("allowed_tools") or wish
        names = {_function(entry).get("name") for entry in allowed.get("tools") or ()}
        tools = [tool for tool in tools if tool.name in names]
        wish = allowed.get("mode") or "auto"
    if isinstance(wish, dict):
        name = _function(wish).get("name")
        found = [tool for tool in tools if tool.name == name]
        if not found:
            raise OpenAIError(
                f"tool_choice names {name!r}, which is not in tools", param="tool_choice"
            )
        return found
    if wish == "required" and not tools:
        raise OpenAIError("tool_choice is required, but there are no tools", param="tool_choice")
    if wish == "none" or not tools or (wish == "auto" and not conversation.awaits_choice):
        return []
    likely = choice.called_for(conversation.system, tools, conversation.question)
    return likely or (tools if wish == "required" else [])


def _tools(given: Any) -> list[Tool]:
    if given is None:
        return []
    if not isinstance(given, list):
        raise OpenAIError("tools must be a list", param="tools")
    found = []
    for index, entry in enumerate(given):
        function = _function(entry)
        if not function.get("name"):
            raise OpenAIError(
                f"tools[{index}] must be a function with a name", param=f"tools[{index}]"
            )
        parameters = function.get("parameters")
        found.append(
            Tool(
                name=str(function["name"]),
                description=str(function.get("description") or ""),
                parameters=parameters if isinstance(parameters, dict) else {},
            )
        )
    return found


def _function(entry: Any) -> dict[str, Any]:
    function = entry.get("function") if isinstance(entry, dict) else None
    return function if isinstance(function, dict) else {}


def _tool_call(text: str) -> dict[str, Any]:
    try:
        call = json.loads(text)
        function = {"name": call["name"], "arguments": json.dumps(call["arguments"])}
    except (ValueError, KeyError, TypeError) as error:
        raise OpenAIError("the model did not finish the tool call", status=500) from error
    return {"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}


def _openai_error(error: RefusedError | EngineError) -> OpenAIError:
    if isinstance(error, EngineError):
        return OpenAIError(str(error), status=503)
    if error.error.get("type") == "exceed_context_size_error":
        used, room = error.error.get("n_prompt_tokens"), error.error.get("n_ctx")
        return OpenAIError(
            f"the messages are {used} tokens long, and this model's context has room for {room}",
            code="context_length_exceeded",
            param="messages",
        )
    return OpenAIError(str(error), status=error.status)
