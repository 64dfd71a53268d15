"""A scripted model: an OpenAI-compatible server that says what a test wrote down.

Guarantees: turns are given in their order within a conversation, whole or streamed in pieces,
and a request beyond the script is a 400 that says so: a mock that falls through to something
else once hid failures. Every request is recorded with its headers, its body and what became
of it (`answered`, `failed`, `cancelled` by the client), at `requests` and GET /requests.

Does not: understand anything, or limit anybody. It is for tests and demos.

In a test: `async with ScriptedModel(tool_call("echo", text="hi"), "Done").serve() as url`.
In a pod: `python -m kaos.testing.model --script FILE`, with a file of JSON:

    {"conversations": [
        {"when": "You are a coordinator",
         "turns": [{"tool_calls": [{"name": "delegate_to_analyst", "arguments": {"task": "2+2"}}]},
                   {"text": "It is four."}]},
        {"turns": [{"text": "You said: {last}", "delay": 0.2}], "repeat": true}]}

The first conversation whose `when` occurs in a message's text takes the request. With
`"by": "step"` the turn is chosen by how many answers follow the last user message, so that
concurrent callers do not disturb each other; otherwise each request takes the next turn.
"""

from kaos.testing.model.script import (
    Conversation,
    Failure,
    Recorded,
    Script,
    ToolCall,
    Turn,
    tool_call,
)
from kaos.testing.model.server import ScriptedModel

__all__ = [
    "Conversation",
    "Failure",
    "Recorded",
    "Script",
    "ScriptedModel",
    "ToolCall",
    "Turn",
    "tool_call",
]
