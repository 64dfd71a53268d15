"""Tools, as the model sees them: one list of functions, whoever stands behind each.

Guarantees: every name is unique and fits the API's pattern: two servers with a tool of the same
name both keep it, prefixed by the server (the first one used to win silently), and the
caller's tools keep their names whatever ours are called; a call never raises: an unknown
name, arguments that are no JSON object (small models write both), a timeout, an exception and
a tool's own error all become an answer that says so, for the model to act on.

Does not: know MCP or HTTP. `kaos.agent.mcp_pool` and `kaos.agent.peers` make `Tool`s.
"""

import asyncio
import hashlib
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Literal

import structlog
from pydantic_core import from_json

from kaos.agent.openai import Json, Message
from kaos.agent.runs import Run, Step

log = structlog.get_logger(__name__)

MAX_RESULT = 64 * 1024
MAX_CALLS = 32
_NAME = 64
_SHOWN_NAMES = 50


class ToolFailed(Exception):  # noqa: N818 - reads as what happened
    """A tool could not be called or failed; the message is for the model."""


@dataclass(frozen=True, slots=True)
class CallContext:
    """What a call carries along from the request it is part of.

    Attributes:
        run: The run's id.
        path: The agents this request has been through, this one last.
        deadline: When the caller stops waiting, on the event loop's clock.
        session: The conversation it is part of, for peers; nothing if there is none.
    """

    run: str
    path: tuple[str, ...] = ()
    deadline: float = float("inf")
    session: str = ""


Call = Callable[[Json, CallContext, Step], Awaitable[Json]]


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool of this agent.

    Attributes:
        name: Its own name, unique within `source`.
        source: The MCP server or the peer that has it.
        call: Does the work and returns `result(...)`; raises `ToolFailed` when it cannot.
        timeout: Seconds for one call.
    """

    name: str
    source: str
    description: str
    parameters: Json
    call: Call
    timeout: float
    kind: Literal["tool", "delegation"] = "tool"


def result(content: str, *, is_error: bool = False) -> Json:
    """Make what a call returns: a JSON value, so that a journal can keep it."""
    return {"content": content, "is_error": is_error}


def _bounded(outcome: Json, size: int) -> Json:
    """Cut a result that would fill the model's context, and say so."""
    content = outcome["content"]
    if len(content) <= size:
        return outcome
    left = len(content) - size
    return {**outcome, "content": f"{content[:size]}\n[{left} more characters were cut off]"}


class Toolbox:
    """The tools of one request: the caller's, and the agent's under names that do not clash.

    Args:
        tools: The agent's own tools.
        caller: The caller's tool definitions, in OpenAI's form.
        allowed: The only ones that may be called, by the names the model uses; None is all.
        max_result: Characters of a result that the model gets to see.
    """

    def __init__(
        self,
        tools: Iterable[Tool],
        caller: list[Json],
        *,
        allowed: AbstractSet[str] | None = None,
        max_result: int = MAX_RESULT,
    ) -> None:
        self._max_result = max_result
        self._theirs = {str(tool["function"]["name"]) for tool in caller}
        self._ours = _named(list(tools), self._theirs)
        if allowed is not None:
            caller = [tool for tool in caller if tool["function"]["name"] in allowed]
            self._theirs &= allowed
            self._ours = {name: tool for name, tool in self._ours.items() if name in allowed}
        self.definitions: list[Json] = [
            *caller,
            *(_definition(name, tool) for name, tool in self._ours.items()),
        ]

    def is_callers(self, call: Json) -> bool:
        """Tell whether a call is for the caller to make."""
        return _name_of(call) in self._theirs

    async def call_all(
        self,
        calls: list[Json],
        run: Run,
        context: CallContext,
        refused: Mapping[int, str] | None = None,
    ) -> list[Message]:
        """Make the calls at once and return the messages that answer them, in order.

        Args:
            calls: The model's.
            run: Where each is recorded.
            context: What they carry along.
            refused: Those that are not to be made, by their place, and why.
        """
        refusals = refused or {}
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(
                    self._answer(call, number, run, context, refusals.get(number, ""))
                )
                for number, call in enumerate(calls)
            ]
        return [task.result() for task in tasks]

    async def _answer(
        self, call: Json, number: int, run: Run, context: CallContext, refused: str
    ) -> Message:
        name = _name_of(call)
        tool = self._ours.get(name)

        async def work(step: Step) -> Json:
            try:
                if refused:
                    raise ToolFailed(refused)  # noqa: TRY301
                if number >= MAX_CALLS:
                    raise ToolFailed(f"At most {MAX_CALLS} tools can be called at once.")  # noqa: TRY301
                if tool is None:
                    raise ToolFailed(self._unknown(name))  # noqa: TRY301
                arguments = _arguments(call)
                until = asyncio.get_running_loop().time() + tool.timeout
                async with asyncio.timeout_at(min(until, context.deadline)):
                    outcome = await tool.call(arguments, context, step)
                return _bounded(outcome, self._max_result)
            except ToolFailed as error:
                return result(f"Error: {error}", is_error=True)
            except TimeoutError:
                return result(f"Error: {name} did not answer in time.", is_error=True)
            except Exception as error:
                # The model is told and goes on; a bug in one tool must not end the run.
                log.exception("tool call failed", tool=name)
                return result(f"Error: {name} failed: {type(error).__name__}", is_error=True)

        details = {"call": call.get("id"), "arguments": call["function"].get("arguments")}
        outcome = await run.step(tool.kind if tool else "tool", name, work, details)
        return {"role": "tool", "tool_call_id": call.get("id"), "content": outcome["content"]}

    def _unknown(self, name: str) -> str:
        names = ", ".join(sorted({*self._ours, *self._theirs})[:_SHOWN_NAMES]) or "none"
        return f"There is no tool named {name!r}. The tools are: {names}."


def _named(tools: list[Tool], taken: set[str]) -> dict[str, Tool]:
    """Give each tool the name the model will use."""
    plain = [fitting_name(tool.name) for tool in tools]
    shared = {name for name, count in Counter(plain).items() if count > 1} | taken
    named: dict[str, Tool] = {}
    for tool, name in zip(tools, plain, strict=True):
        unique = fitting_name(f"{tool.source}_{name}") if name in shared else name
        while unique in named or unique in taken:
            unique = fitting_name(f"{unique}_{_digest(tool.source + tool.name + unique)}")
        named[unique] = tool
    return named


def fitting_name(name: str) -> str:
    """Make a name fit OpenAI's pattern; MCP allows more characters and more of them."""
    plain = re.sub(r"[^a-zA-Z0-9_-]", "_", name) or "tool"
    return plain if len(plain) <= _NAME else f"{plain[: _NAME - 9]}_{_digest(name)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _definition(name: str, tool: Tool) -> Json:
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": tool.description,
            "parameters": tool.parameters,
        },
    }


def _name_of(call: Json) -> str:
    function: Any = call.get("function")
    return str(function.get("name", "")) if isinstance(function, dict) else ""


def _arguments(call: Json) -> Json:
    text = call["function"].get("arguments") or "{}"
    try:
        arguments = from_json(text) if isinstance(text, str) else text
    except ValueError as error:
        raise ToolFailed(f"The arguments are not valid JSON: {error}") from error
    if not isinstance(arguments, dict):
        raise ToolFailed("The arguments must be a JSON object.")
    return arguments
