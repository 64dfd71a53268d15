"""What a scripted model says: the script's format, and which turn comes next."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Seconds = Annotated[float, Field(ge=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ToolCall(_Strict):
    """One call the model makes; arguments given as text are sent as they are, valid or not."""

    name: str
    arguments: dict[str, Any] | str = Field(default_factory=dict)
    id: str = ""


class Failure(_Strict):
    """An HTTP error instead of an answer."""

    status: int = 500
    message: str = "scripted failure"
    code: str | None = None
    retry_after: float | None = None


class Turn(_Strict):
    """One answer of the model."""

    text: Annotated[str, Field(description="`{last}` becomes the last message's text.")] = ""
    tool_calls: tuple[ToolCall, ...] = ()
    delay: Annotated[Seconds, Field(description="Before the answer begins.")] = 0.0
    piece: Annotated[int, Field(ge=0, description="Characters in a streamed piece; 0: words.")] = 0
    piece_delay: Seconds = 0.0
    error: Failure | None = None
    error_after: Annotated[int | None, Field(description="Pieces before an error event.")] = None
    break_after: Annotated[int | None, Field(description="Pieces before the line is cut.")] = None
    finish_reason: str = ""
    usage: dict[str, int] | None = None


class Conversation(_Strict):
    """Turns for the requests that contain a text."""

    turns: tuple[Turn, ...]
    when: str = ""
    by: Literal["order", "step"] = "order"
    repeat: Annotated[bool, Field(description="Begin again at the end.")] = False


class Script(_Strict):
    """All that the model will say."""

    conversations: tuple[Conversation, ...] = ()


@dataclass(slots=True)
class Recorded:
    """One request the model received."""

    headers: dict[str, str]
    body: dict[str, Any]
    conversation: str = ""
    outcome: str = "running"

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The messages of the request."""
        found = self.body.get("messages")
        return found if isinstance(found, list) else []


def tool_call(name: str, **arguments: Any) -> Turn:
    """Make a turn that calls one tool."""
    return Turn(tool_calls=(ToolCall(name=name, arguments=arguments),))


@dataclass(slots=True)
class Play:
    """A conversation and how far it has come."""

    conversation: Conversation
    taken: int = 0

    def next(self, messages: Sequence[Mapping[str, Any]]) -> Turn | None:
        """Return the turn for a request with these messages; None beyond the script."""
        if self.conversation.by == "step":
            index = answers_since_user(messages)
        else:
            index = self.taken
            self.taken += 1
        turns = self.conversation.turns
        if self.conversation.repeat and turns:
            index %= len(turns)
        return turns[index] if index < len(turns) else None


def text_of(message: Any) -> str:
    """Return the text of one message, or nothing."""
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def texts_of(record: Recorded) -> str:
    """Return the text of all messages of a request."""
    return "\n".join(text_of(message) for message in record.messages)


def answers_since_user(messages: Sequence[Mapping[str, Any]]) -> int:
    """Return how many answers follow the last message of the user."""
    answers = 0
    for message in reversed(messages):
        if message.get("role") == "user":
            break
        answers += message.get("role") == "assistant"
    return answers
