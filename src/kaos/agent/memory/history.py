"""What of a session goes into a prompt, and what of a request is new to it.

Callers come in two kinds, and both may name a session. One sends what the user just said and
leaves the rest to us. The other sends its whole conversation each time, as OpenAI's clients do.
No flag tells them apart; the messages do:

- If the request's beginning continues the session's end (the two agree, backwards from there, as
  far as both go), what comes after is new. What the session knows from before the request's
  first message is put in front of it. This covers new messages only, a whole conversation,
  the last part of one, and a tool's result after a call that was handed back.
- If it does not, and the request has an answer of an assistant in it, the caller has a
  conversation of its own (it edited a message, or a request beside it was faster): the prompt
  is what it sent, nothing else, and what comes after its last message that the session knows
  is new. Nothing is ever taken out of a session but by age.

Leading system messages belong to the request, as OpenAI's `instructions` do: they are never
remembered.

The limit is in tokens, estimated, as there is no tokenizer for every model: three bytes are
one, which is too careful for English and about right for code and other scripts. It cuts before a
user's message, so that no tool's result is without its call.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic_core import to_json

from kaos.agent.openai import SYSTEM_ROLES, Message, text_of

MESSAGES_AT_MOST = 100
"""A limit up to this is a number of messages, which is what it was in earlier versions."""

_KEPT = ("tool_calls", "tool_call_id", "name")
_BYTES_A_TOKEN = 3
_TOKENS_A_MESSAGE = 4


@dataclass(frozen=True, slots=True)
class Continuation:
    """How a request continues a session.

    Attributes:
        prompt: All messages for the model.
        new: Those of them to remember, with the answer.
        own: The caller keeps its conversation itself.
    """

    prompt: list[Message]
    new: list[Message]
    own: bool


def continue_(known: Sequence[Message], asked: list[Message], limit: int) -> Continuation:
    """Join a request to a session.

    Args:
        known: The session's messages, oldest first.
        asked: The request's.
        limit: How much of what is known goes into the prompt.
    """
    leading = 0
    while leading < len(asked) and asked[leading]["role"] in SYSTEM_ROLES:
        leading += 1
    said = asked[leading:]
    own = any(message["role"] == "assistant" for message in said)
    joined = _joined(known, said)
    if joined or not own:
        older = known[: max(0, len(known) - joined)]
        before = fit(older, limit)
        if said and said[0]["role"] == "tool":
            # What the result answers goes with it, whatever it costs.
            before = list(older[min(len(older) - len(before), _last_call(older)) :])
        before = _settled(before, said)
    else:
        joined, before = _last_known(known, said), []
    new = [kept(message) for message in said[joined:] if message["role"] not in SYSTEM_ROLES]
    return Continuation([*asked[:leading], *before, *said], new, own)


def fit(messages: Sequence[Message], limit: int) -> list[Message]:
    """Return as many of the last messages as the limit allows, from a user's message on."""
    counts_messages = limit <= MESSAGES_AT_MOST
    start = len(messages)
    spent = 0
    for index in range(len(messages) - 1, -1, -1):
        spent += 1 if counts_messages else tokens(messages[index])
        if spent > limit:
            break
        if messages[index]["role"] == "user":
            start = index
    return list(messages[start:])


def _last_call(messages: Sequence[Message]) -> int:
    """Return where the turn begins in which tools were called last."""
    place = len(messages)
    while place > 0 and not messages[place - 1].get("tool_calls"):
        place -= 1
    while place > 0 and messages[place - 1]["role"] != "user":
        place -= 1
    return place - 1 if place else len(messages)


def _settled(before: Sequence[Message], said: Sequence[Message]) -> list[Message]:
    """Leave out calls that were handed to a caller who never answered: model APIs refuse them."""
    answered = {m.get("tool_call_id") for m in (*before, *said) if m["role"] == "tool"}
    settled = []
    for message in before:
        if calls := message.get("tool_calls"):
            made = [call for call in calls if call.get("id") in answered]
            if not made and not message.get("content"):
                continue
            message = {name: value for name, value in message.items() if name != "tool_calls"}  # noqa: PLW2901
            if made:
                message["tool_calls"] = made
        settled.append(message)
    return settled


def tokens(message: Message) -> int:
    """Estimate what a message costs."""
    content = message.get("content")
    size = len(content.encode("utf-8", "replace")) if isinstance(content, str) else 0
    if not isinstance(content, str) or message.get("tool_calls"):
        size += len(to_json([content, message.get("tool_calls")]))
    return _TOKENS_A_MESSAGE + -(-size // _BYTES_A_TOKEN)


def kept(message: Message) -> Message:
    """Return what is remembered of a message: the standard fields."""
    more = {name: message[name] for name in _KEPT if message.get(name) is not None}
    content = message.get("content")
    if content is None and not message.get("tool_calls"):
        content = ""  # null is for calls alone, model APIs say
    return {"role": message["role"], "content": content, **more}


def _joined(known: Sequence[Message], said: Sequence[Message]) -> int:
    """Return how many of the request's first messages the session's end already has."""
    if not known:
        return 0
    ours = [_signature(message) for message in known]
    theirs = [_signature(message) for message in said]
    for end in range(len(theirs), 0, -1):
        length = min(end, len(ours))
        if theirs[end - length : end] == ours[-length:]:
            return end
    return 0


def _last_known(known: Sequence[Message], said: Sequence[Message]) -> int:
    """Return the place after the request's last answer that the session has."""
    ours = {_signature(message) for message in known if message["role"] == "assistant"}
    for end in range(len(said), 0, -1):
        if said[end - 1]["role"] == "assistant" and _signature(said[end - 1]) in ours:
            return end
    return 0


def _signature(message: Message) -> tuple[object, ...]:
    """What makes two messages the same, whatever a client dropped or added on the way."""
    calls = message.get("tool_calls") or ()
    content = message.get("content")
    parts = isinstance(content, list) and to_json(content)
    return (
        message["role"],
        parts or text_of(message).strip(),
        message.get("tool_call_id"),
        to_json([_called(call) for call in calls]),
    )


def _called(call: object) -> list[object]:
    """What a call asks for; clients order its fields in their own way."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        return [call]
    return [function.get("name"), function.get("arguments")]
