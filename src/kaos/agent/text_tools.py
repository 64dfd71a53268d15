"""Tools for models without native calls: described in the prompt, read out of the answer.

Guarantees: the loop above sees native calls only, whichever way they were made, so it needs no
second way of thinking; what is shown has no trace of the calls in it (`kaos.agent.call_parser`).

`AGENT_TOOL_CALL_MODE`:
- `native`: tools go to the API, and text is text.
- `text`: tools are described in the system prompt.
- `auto`: native; a model whose API says that it has no tools gets them as text from then on
  (remembered by the process, unless what that one caller wished may be the reason). A call that
  arrives as text between a model's own marks, because its API has no parser for them, is
  understood; JSON in an answer stays prose.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal

import structlog
from pydantic_core import to_json

from kaos.agent.call_parser import CallParser
from kaos.agent.errors import AgentError, BadRequest, ModelFailed
from kaos.agent.model import ModelClient
from kaos.agent.openai import LOGPROBS, Json, Message, Turn, text_of
from kaos.agent.runs import Emit

log = structlog.get_logger(__name__)

ToolCallMode = Literal["auto", "native", "text"]
_NO_TOOLS = re.compile(
    r"\b(not|n't) support(ed)?\b.*\b(tool|function)"
    r"|\b(tool|function)\w*\b.*\b(not support|unsupported|requires? -)",
    re.IGNORECASE | re.DOTALL,
)
_TOOL_FIELDS = ("tools", "tool_choice", "parallel_tool_calls")
_CALLERS_WISHES = frozenset(
    {"tool_choice", "parallel_tool_calls", "reasoning_effort", "response_format"}
)
"""With these some models that have tools refuse them, and say it in the same words."""

_INTRODUCTION = """\
You can call functions. These are the functions, one JSON object a line:
{tools}

To call a function, write nothing but a block like this one:
<tool_call>
{{"name": "<the function's name>", "arguments": {{<its arguments>}}}}
</tool_call>
Write a block for each call. The results are given to you in <tool_response> blocks.
When you need no function, answer in plain words."""


class ToolCalling:
    """A model that calls tools, whether it was made for it or not.

    Args:
        model: The model's client.
        mode: How tools are offered.
    """

    def __init__(self, model: ModelClient, mode: ToolCallMode) -> None:
        self._model = model
        self._mode = mode
        self._as_text = mode == "text"

    async def complete(
        self, body: Json, *, headers: Mapping[str, str] | None = None, emit: Emit | None = None
    ) -> Turn:
        """Ask the model for one answer; see `ModelClient.complete`."""
        if self._mode == "native":
            return await self._model.complete(body, headers=headers, emit=emit)
        if not self._as_text:
            try:
                return await self._read(body, body, headers, emit)
            except (BadRequest, ModelFailed) as error:
                if not body.get("tools") or not _without_tools(error):
                    raise
                log.warning("the model takes no tools, they go into its prompt", said=error.message)
                self._as_text |= body.keys().isdisjoint(_CALLERS_WISHES)
        return await self._read(body, as_text(body), headers, emit)

    async def _read(
        self, asked: Json, body: Json, headers: Mapping[str, str] | None, emit: Emit | None
    ) -> Turn:
        names = {str(tool["function"]["name"]) for tool in asked.get("tools") or ()}
        if not names:
            return await self._model.complete(body, headers=headers, emit=emit)
        parser = CallParser(names, marks_only=asked is body)
        shown: list[str] = []

        async def filtered(delta: Json) -> None:
            rest = {name: value for name, value in delta.items() if name != "content"}
            if isinstance(content := delta.get("content"), str) and (text := parser.feed(content)):
                shown.append(text)
                rest["content"] = text
            if content and rest.get("content") != content:
                rest.pop(LOGPROBS, None)  # they are of what is not shown
            if rest and emit is not None:
                await emit(rest)

        turn = await self._model.complete(body, headers=headers, emit=filtered if emit else None)
        message = dict(turn["message"])
        content = message.get("content")
        if not isinstance(content, str):
            return turn
        if emit is None:
            shown.append(parser.feed(content))
        if text := parser.end(turn["finish_reason"]):
            shown.append(text)
            if emit is not None:
                await emit({"content": text})
        message["content"] = "".join(shown) or None
        if parser.calls and not message.get("tool_calls"):
            message["tool_calls"] = parser.calls
        read: Turn = {**turn, "message": message}
        if message["content"] != content:
            read.pop(LOGPROBS, None)
        return read


def as_text(body: Json) -> Json:
    """Turn a request with tools into one without."""
    tools = body.get("tools") or []
    choice = body.get("tool_choice")
    messages = [_plain(message) for message in body["messages"]]
    if tools and choice != "none":
        told = _INTRODUCTION.format(
            tools="\n".join(to_json(tool["function"]).decode() for tool in tools)
        )
        if isinstance(choice, dict) and isinstance(choice.get("function"), dict):
            told += f"\nNow call the function {choice['function'].get('name')}."
        elif choice == "required":
            told += "\nNow call a function."
        messages = _with_system(told, messages)
    kept = {name: value for name, value in body.items() if name not in _TOOL_FIELDS}
    return {**kept, "messages": _merged(messages)}


def _plain(message: Message) -> Message:
    """Write the calls and results of earlier rounds as the model would see them in text."""
    if message["role"] == "tool":
        return {
            "role": "user",
            "content": f"<tool_response>\n{text_of(message)}\n</tool_response>",
        }
    calls: list[Any] = message.get("tool_calls") or []
    if message["role"] != "assistant" or not calls:
        return message
    blocks = [text_of(message)] if message.get("content") else []
    for call in calls:
        name, arguments = _called(call)
        blocks.append(f'<tool_call>\n{{"name": {name}, "arguments": {arguments}}}\n</tool_call>')
    return {"role": "assistant", "content": "\n".join(blocks)}


def _called(call: Json) -> tuple[str, str]:
    """Return a call's name and arguments, as JSON; a custom tool's input is its one argument."""
    function: Json = call.get("function") or call.get("custom") or {}
    arguments = function.get("arguments") or {k: v for k, v in function.items() if k == "input"}
    text = arguments if isinstance(arguments, str) else to_json(arguments).decode()
    return to_json(function.get("name") or "").decode(), text


def _with_system(text: str, messages: list[Message]) -> list[Message]:
    if messages and messages[0]["role"] == "system":
        first = {**messages[0], "content": f"{text_of(messages[0])}\n\n{text}"}
        return [first, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]


def _merged(messages: list[Message]) -> list[Message]:
    """Put results that follow each other into one message: templates want turns to alternate."""
    merged: list[Message] = []
    for message in messages:
        last = merged[-1] if merged else None
        if last is not None and _is_response(message) and _is_response(last):
            merged[-1] = {**last, "content": f"{last['content']}\n{message['content']}"}
        else:
            merged.append(message)
    return merged


def _is_response(message: Message) -> bool:
    content = message.get("content")
    return (
        message["role"] == "user"
        and isinstance(content, str)
        and content.startswith("<tool_response>")
    )


def _without_tools(error: AgentError) -> bool:
    return _NO_TOOLS.search(error.message) is not None
