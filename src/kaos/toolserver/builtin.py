"""The servers that KAOS brings along, by the name `config.mcp` uses.

Guarantees: a name in `BUILTIN` is served from here and is never looked up on a package index:
on a public index anybody could take such a name and have their code run in our pods.

`test-mcp-echo-server` is for trying things out and for tests: it has one tool, `echo`, which
returns its message unchanged, so the words of a request that come back prove that agent, model
and tool server are connected. It keeps no state and reaches out to nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Builtin:
    """A server made of functions of ours.

    Attributes:
        instructions: What a client may tell its model about the server.
        tools: The functions; their signatures and docstrings are the schema.
    """

    instructions: str
    tools: tuple[Callable[..., Any], ...]


def echo(message: str) -> str:
    """Repeat a message: returns exactly the text it is given."""
    return message


BUILTIN: Mapping[str, Builtin] = {
    "test-mcp-echo-server": Builtin(
        instructions="Use the echo tool to repeat a message word for word.", tools=(echo,)
    ),
}
