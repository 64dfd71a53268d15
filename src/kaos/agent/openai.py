"""The chat-completions wire: decoding requests, building answers and chunks.

Guarantees: a body that is not a valid request is a `BadRequest` that names the field, whatever
bytes it consists of; what the model cannot be told (NaN, absurd nesting) is refused here and
not when it is sent on; unknown fields are ignored, known sampling parameters are kept as the
caller wrote them; JSON is always made by a JSON library (an earlier agent streamed
`str(dict)` and lost every chunk with an apostrophe in it).

Does not: judge sampling parameters. The model does, and its 400 becomes ours.
"""

import math
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal, NotRequired, TypedDict

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json, to_json

from kaos.agent.errors import BadRequest

Json = dict[str, Any]
Message = dict[str, Any]
FinishReason = str
Logprobs = dict[str, list[Any]]
LOGPROBS: Final = "logprobs"
"""With the delta inside the agent, since they are of its text; beside it on the wire."""

PASSED_THROUGH = (
    "frequency_penalty",
    "logit_bias",
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "modalities",
    "moderation",
    "audio",
    "parallel_tool_calls",
    "prediction",
    "presence_penalty",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "reasoning_effort",
    "response_format",
    "safety_identifier",
    "seed",
    "service_tier",
    "stop",
    "temperature",
    "top_logprobs",
    "top_p",
    "user",
    "verbosity",
    "web_search_options",
)
"""Request fields the model gets as they came. `store` and `metadata` stay here."""

SYSTEM_ROLES = ("system", "developer")
_REST_OF_CHUNK = b',"finish_reason":null}]}\n\n'
_LINE_BREAKS = tuple((chr(n).encode(), f"\\u{n:04x}".encode()) for n in (0x85, 0x2028, 0x2029))


class Turn(TypedDict):
    """One answer of a model: a JSON value, so that a journal can keep and replay it."""

    message: Message
    finish_reason: FinishReason
    usage: dict[str, int]
    limit: NotRequired[str]
    """The budget that cut the answer off."""
    logprobs: NotRequired[Logprobs]


class _Lenient(BaseModel):
    model_config = ConfigDict(extra="ignore")


class _Call(_Lenient):
    function: Json | None = None
    custom: Json | None = None


class _Message(_Lenient):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Json] | None = None
    tool_calls: list[_Call] | None = None
    tool_call_id: str | None = None


class _Function(_Lenient):
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.:-]{1,128}$")]
    description: str | None = None
    parameters: Json | None = None


class _Tool(_Lenient):
    type: Literal["function"]
    function: _Function


class _Named(_Lenient):
    function: _Function


class _Allowed(_Lenient):
    mode: Literal["auto", "required"]
    tools: list[_Named]


class _Choice(_Lenient):
    allowed_tools: _Allowed


class _StreamOptions(_Lenient):
    include_usage: bool | None = None
    include_steps: bool | None = None


class _Request(_Lenient):
    messages: Annotated[list[_Message], Field(min_length=1, max_length=10_000)]
    model: Annotated[str, Field(max_length=1000)] | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    tools: Annotated[list[_Tool], Field(max_length=512)] | None = None
    tool_choice: str | Json | None = None
    n: Literal[1] | None = None


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A request for a chat completion, decoded.

    Attributes:
        allowed: The only tools that may be called; None is all. What a model's API makes of the
            choice `allowed_tools` differs, so it is for us to see to it.
    """

    messages: list[Message]
    stream: bool = False
    include_usage: bool = False
    include_steps: bool = False
    tools: list[Json] = field(default_factory=list)
    tool_choice: str | Json | None = None
    allowed: frozenset[str] | None = None
    parameters: Json = field(default_factory=dict)
    session: str = ""


def decode_request(body: bytes) -> ChatRequest:
    """Decode the body of POST /v1/chat/completions.

    Raises:
        BadRequest: With the field that is wrong.
    """
    try:
        raw = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise BadRequest(f"the body is not valid JSON: {error}", code="invalid_json") from error
    if not isinstance(raw, dict):
        raise BadRequest("the body must be a JSON object", code="invalid_json")
    allowed: frozenset[str] | None = None
    try:
        checked = _Request.model_validate(raw)
        choice = checked.tool_choice
        if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
            only = _Choice.model_validate(choice).allowed_tools
            choice, allowed = only.mode, frozenset(tool.function.name for tool in only.tools)
    except ValidationError as error:
        issue = error.errors(include_url=False, include_input=False)[0]
        param = ".".join(str(part) for part in issue["loc"])
        raise BadRequest(f"{param}: {issue['msg']}", param=param) from error
    for name in PASSED_THROUGH:
        if isinstance(raw.get(name), float) and math.isinf(raw[name]):  # 1e999, say
            raise BadRequest(f"{name}: the number is too large", param=name)
    options = checked.stream_options
    metadata = raw.get("metadata")
    session = metadata.get("session_id") if isinstance(metadata, dict) else None
    return ChatRequest(
        messages=raw["messages"],
        stream=bool(checked.stream),
        include_usage=bool(options and options.include_usage),
        include_steps=bool(options and options.include_steps),
        tools=raw.get("tools") or [],
        tool_choice=choice,
        allowed=allowed,
        parameters={name: raw[name] for name in PASSED_THROUGH if raw.get(name) is not None},
        session=str(session or ""),
    )


def with_instructions(instructions: str, messages: list[Message]) -> list[Message]:
    """Put the agent's instructions first, and the caller's leading system messages after them.

    They become one message, because many chat templates take one system message only, and at
    the start only; `developer` becomes `system`, which every model knows.
    """
    leading = 0
    while leading < len(messages) and messages[leading]["role"] in SYSTEM_ROLES:
        leading += 1
    texts = [instructions, *(text_of(message) for message in messages[:leading])]
    system = "\n\n".join(text for text in texts if text)
    rest = [
        {**message, "role": "system"} if message["role"] == "developer" else message
        for message in messages[leading:]
    ]
    return [{"role": "system", "content": system}, *rest] if system else rest


def text_of(message: Mapping[str, Any]) -> str:
    """Return the text of a message whose content is a text or a list of parts."""
    content = message.get("content")
    if isinstance(content, list):
        parts = (part.get("text") for part in content if isinstance(part, dict))
        return "\n".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def add_usage(total: dict[str, int], more: Mapping[str, int]) -> None:
    """Add one call's tokens to a run's."""
    for name, tokens in more.items():
        total[name] = total.get(name, 0) + tokens


def add_logprobs(total: Logprobs, more: Any) -> None:
    """Add those of one piece of an answer to the answer's."""
    for name, tokens in more.items() if isinstance(more, dict) else ():
        if isinstance(tokens, list):
            total.setdefault(name, []).extend(tokens)


def usage_of(raw: Any) -> dict[str, int]:
    """Read a usage object; what is no count is left out."""
    if not isinstance(raw, dict):
        return {}
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    return {name: raw[name] for name in names if isinstance(raw.get(name), int)}


def _usage(usage: Mapping[str, int]) -> Json:
    prompt = usage.get("prompt_tokens", 0)
    completion = usage.get("completion_tokens", 0)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": usage.get("total_tokens", prompt + completion),
    }


@dataclass(frozen=True, slots=True)
class Envelope:
    """What all parts of one answer have in common."""

    model: str
    run: str
    session: Json = field(default_factory=dict)
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(16)}")
    created: int = field(default_factory=lambda: int(time.time()))

    opening: bytes = field(init=False)
    """All of a chunk before its delta: there are thousands, and the delta is all that differs."""

    def __post_init__(self) -> None:
        head = to_json(self._head("chat.completion.chunk"))[:-1]
        opening = b"data: " + head + b',"choices":[{"index":0,"delta":'
        object.__setattr__(self, "opening", opening)

    def completion(
        self,
        message: Message,
        finish_reason: str,
        usage: Mapping[str, int],
        limit: str | None,
        *,
        logprobs: Logprobs | None = None,
        done: list[Json] | None = None,
        steps: list[Json] | None = None,
    ) -> bytes:
        """Make the whole answer."""
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": None, "refusal": None, **message},
            "finish_reason": finish_reason,
            LOGPROBS: logprobs,
        }
        return to_json(
            {
                **self._head("chat.completion"),
                "choices": [choice],
                "usage": _usage(usage),
                "kaos": self._extension(limit, done) | ({} if steps is None else {"steps": steps}),
            }
        )

    def chunk(
        self,
        delta: Json,
        finish_reason: str | None = None,
        limit: str | None = None,
        done: list[Json] | None = None,
    ) -> bytes:
        """Make one event of a stream."""
        if finish_reason is None:
            if LOGPROBS not in delta:
                return self.opening + encoded(delta) + _REST_OF_CHUNK
            rest = {name: value for name, value in delta.items() if name != LOGPROBS}
            logprobs = b',"logprobs":' + encoded(delta[LOGPROBS])
            return self.opening + encoded(rest) + logprobs + _REST_OF_CHUNK
        body = {
            **self._head("chat.completion.chunk"),
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}],
            "kaos": self._extension(limit, done),
        }
        return sse(body)

    def step_chunk(self, event: Json) -> bytes:
        """Make an event that tells of a step; to a client that does not know, an empty delta."""
        return sse(
            {
                **self._head("chat.completion.chunk"),
                "choices": [{"index": 0, "delta": {}, "finish_reason": None}],
                "kaos": {"run": self.run, "event": event},
            }
        )

    def usage_chunk(self, usage: Mapping[str, int]) -> bytes:
        """Make the event that `stream_options.include_usage` asks for."""
        return sse({**self._head("chat.completion.chunk"), "choices": [], "usage": _usage(usage)})

    def _head(self, kind: str) -> Json:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _extension(self, limit: str | None, done: list[Json] | None) -> Json:
        # Clients ignore fields they do not know; ours says which budget ended the run, and
        # what had been done until then.
        found: Json = {"run": self.run, **self.session}
        if limit:
            found |= {"limit": limit, "done": done or []}
        return found


def sse(body: Json) -> bytes:
    """Make one server-sent event.

    The line breaks of Unicode are escaped: they are none in this format, but clients that split
    a stream with their language's idea of a line break off in the middle of an event.
    """
    return b"data: " + encoded(body) + b"\n\n"


def encoded(value: Json) -> bytes:
    """Make JSON without any line break, Unicode's included."""
    data = to_json(value)
    if not data.isascii():
        for character, escaped in _LINE_BREAKS:
            data = data.replace(character, escaped)
    return data


def indexed(calls: Iterable[Json]) -> list[Json]:
    """Number tool calls as a stream does."""
    return [{"index": index, **call} for index, call in enumerate(calls)]
