"""The reasoning loop: ask the model, do what it calls for, ask again.

Guarantees: tools are called natively (an earlier agent read calls out of prose with a regular
expression), all calls of one answer at once; a tool's failure goes back to the model as one;
a call to a tool of the caller's is handed back to the caller; what the run has cost and which
budget ended it are said.

Decisions:
- A step is one answer of the model together with the tool calls in it. When all steps are
  spent and the model still called tools, it is asked once more with `tool_choice: "none"`, so
  that the user gets an answer made of what was found out; the finish reason is `length`
  all the same and `kaos.limit` says `max_steps`, because the model was stopped.
- An answer that calls both the agent's tools and the caller's is handed back with the caller's
  calls only, and the agent's are not made: the caller cannot answer those, and the model will
  ask for them again.
- Text the model writes beside its calls is part of the answer, streamed or not, each piece a
  paragraph: the two ways give the same text.
- A caller's `tool_choice` that forces a call holds for the first answer only, or the loop
  would never end.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import cast

from pydantic_core import from_json

from kaos.agent.model import ModelClient
from kaos.agent.openai import ChatRequest, Json, Message, Turn, with_instructions
from kaos.agent.runs import RUN_HEADER, Run, Step
from kaos.agent.tools import CallContext, Toolbox, fitting_name

Show = Callable[[Json], Awaitable[None]]
_PARAGRAPH = "\n\n"
_ONLY_WITH_TOOLS = ("parallel_tool_calls",)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    Attributes:
        message: The assistant's message for the caller.
        finish_reason: OpenAI's word for the end.
        limit: The budget that ended it (`max_steps`), or None.
    """

    message: Message
    finish_reason: str
    limit: str | None = None


@dataclass(slots=True)
class Conversation:
    """One request on its way through the loop.

    Args:
        request: What the caller asked.
        instructions: The agent's own system prompt.
        model: The model's client.
        model_name: The model to ask for.
        tools: The tools the model may call.
        run: Where each step is recorded.
        context: What calls carry along.
        max_steps: Answers of the model with tools.
        show: Gets each delta for the caller; None when the answer goes out whole.
    """

    request: ChatRequest
    instructions: str
    model: ModelClient
    model_name: str
    tools: Toolbox
    run: Run
    context: CallContext
    max_steps: int
    show: Show | None = None
    _said: list[str] = field(default_factory=list)
    _break_due: bool = False

    async def hold(self) -> Outcome:
        """Run the loop to its end."""
        messages = with_instructions(self.instructions, self.request.messages)
        choice = self.request.tool_choice
        for _ in range(self.max_steps):
            turn = await self._ask(messages, choice)
            calls: list[Json] = turn["message"].get("tool_calls") or []
            if not calls:
                return self._ended(turn)
            if theirs := [call for call in calls if self.tools.is_callers(call)]:
                return self._handed_back(turn, theirs)
            answers = await self.tools.call_all(calls, self.run, self.context)
            messages = [*messages, _for_history(turn["message"]), *answers]
            choice = choice if choice in (None, "none") else "auto"
        turn = await self._ask(messages, "none")
        return Outcome(self._message(turn), "length", "max_steps")

    async def _ask(self, messages: list[Message], choice: str | Json | None) -> Turn:
        body: Json = {**self.request.parameters, "model": self.model_name, "messages": messages}
        if self.tools.definitions:
            body["tools"] = self.tools.definitions
            if choice is not None:
                body["tool_choice"] = choice
        else:
            for name in _ONLY_WITH_TOOLS:
                body.pop(name, None)

        async def work(step: Step) -> Json:
            async def emit(delta: Json) -> None:
                await step.emit(delta)
                await self._show(delta)

            turn = await self.model.complete(
                body,
                headers={**step.trace, RUN_HEADER: self.run.id},
                emit=emit if self.show else None,
            )
            return cast("Json", turn)

        turn = cast("Turn", await self.run.step("model", self.model_name, work))
        if text := turn["message"].get("content"):
            self._said.append(text)
            self._break_due = True
        return turn

    async def _show(self, delta: Json) -> None:
        if self.show is None:
            return
        if self._break_due and delta.get("content"):
            self._break_due = False
            delta = {**delta, "content": _PARAGRAPH + delta["content"]}
        await self.show(delta)

    def _message(self, turn: Turn) -> Message:
        kept = {name: value for name, value in turn["message"].items() if name != "tool_calls"}
        return {**kept, "content": _PARAGRAPH.join(self._said) or None}

    def _ended(self, turn: Turn) -> Outcome:
        finish = turn["finish_reason"]
        # Without a call in it, `tool_calls` is not how this answer ended.
        reason = "stop" if finish in ("tool_calls", "function_call") else finish
        return Outcome(self._message(turn), reason)

    def _handed_back(self, turn: Turn, calls: list[Json]) -> Outcome:
        return Outcome({**self._message(turn), "tool_calls": calls}, "tool_calls")


def _for_history(message: Message) -> Message:
    """Return the model's message in a form that every model API takes back.

    Fields beyond the standard ones (reasoning, for instance) are refused by some; so are calls
    with a name or arguments that are not well formed, which small models make and which the
    tool message after them already complains about.
    """
    calls = [
        {
            "id": call["id"],
            "type": "function",
            "function": {
                "name": fitting_name(call["function"]["name"]),
                "arguments": _json_object(call["function"]["arguments"]),
            },
        }
        for call in message["tool_calls"]
    ]
    return {"role": "assistant", "content": message.get("content"), "tool_calls": calls}


def _json_object(text: str) -> str:
    try:
        return text if isinstance(from_json(text), dict) else "{}"
    except ValueError:
        return "{}"
