"""The reasoning loop: ask the model, do what it calls for, ask again.

Guarantees: tools are called natively (an earlier agent read calls out of prose with a regular
expression), all calls of one answer at once; a tool's failure goes back to the model as one;
a call to a tool of the caller's is handed back to the caller; what the run has cost and which
budget ended it are said. Everything the loop goes by comes from the request or from its steps,
so a run's journal replays it.

Decisions:
- A step is one answer of the model together with the tool calls in it. When all steps are
  spent and the model still called tools, it is asked once more with `tool_choice: "none"`, so
  that the user gets an answer made of what was found out; the finish reason is `length`
  all the same and `kaos.limit` says `max_steps`, because the model was stopped. Calls beyond
  the budget of calls end in the same way (`max_tool_calls`); the model is told of them.
- Spent tokens or time leave nothing for another answer: what the model said so far is the
  answer (`max_tokens`, `max_seconds`). An answer under way when the time is over is cut. Tokens
  are counted between answers, so the last one may go over.
- An answer that calls both the agent's tools and the caller's is handed back with the caller's
  calls only, and the agent's are not made: the caller cannot answer those, and the model will
  ask for them again.
- Text the model writes beside its calls is part of the answer, streamed or not, each piece a
  paragraph: the two ways give the same text. With a `response_format` it is not, since it would
  be no JSON: then an answer is shown when it is known to call no tool.
- A caller's `tool_choice` that forces a call holds for the first answer only, or the loop
  would never end.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, cast

from pydantic_core import from_json

from kaos.agent.openai import (
    LOGPROBS,
    ChatRequest,
    Json,
    Logprobs,
    Message,
    Turn,
    add_logprobs,
    with_instructions,
)
from kaos.agent.runs import RUN_HEADER, Emit, Run, Step
from kaos.agent.tools import CallContext, Toolbox, fitting_name

Show = Callable[[Json], Awaitable[None]]
_PARAGRAPH = "\n\n"
_ONLY_WITH_TOOLS = ("parallel_tool_calls",)
_BROKEN_OFF = ("length", "content_filter")
_NOT_DECIDED = "This call was not allowed."


class Model(Protocol):
    """What the loop needs of a model (see `kaos.agent.text_tools` and `kaos.agent.model`)."""

    async def complete(
        self, body: Json, *, headers: Mapping[str, str] | None = None, emit: Emit | None = None
    ) -> Turn:
        """Ask for one answer."""


@dataclass(frozen=True, slots=True)
class Budgets:
    """What a run may spend; None is no bound of its own.

    Attributes:
        steps: Answers of the model with tools.
        tokens: Of all answers, prompts included.
        seconds: Of the whole run.
        tool_calls: Calls of tools and peers.
    """

    steps: int = 5
    tokens: int | None = None
    seconds: float | None = None
    tool_calls: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    Attributes:
        message: The assistant's message for the caller.
        finish_reason: OpenAI's word for the end.
        limit: The budget that ended it (`max_steps`, …), or None.
        logprobs: Of the tokens of its text, if the caller asked for them.
    """

    message: Message
    finish_reason: str
    limit: str | None = None
    logprobs: Logprobs | None = None


@dataclass(slots=True)
class Conversation:
    """One request on its way through the loop.

    Args:
        request: What the caller asked.
        instructions: The agent's own system prompt.
        model: The model.
        model_name: The model to ask for.
        tools: The tools the model may call.
        run: Where each step is recorded.
        context: What calls carry along.
        budgets: What the run may spend.
        show: Gets each delta for the caller; None when the answer goes out whole.
    """

    request: ChatRequest
    instructions: str
    model: Model
    model_name: str
    tools: Toolbox
    run: Run
    context: CallContext
    budgets: Budgets = field(default_factory=Budgets)
    show: Show | None = None
    _said: list[str] = field(default_factory=list)
    _break_due: bool = False
    _called: int = 0
    _held: list[Json] = field(default_factory=list)
    _logprobs: Logprobs = field(default_factory=dict)

    async def hold(self) -> Outcome:
        """Run the loop to its end."""
        outcome = await self._hold()
        if self.show is not None:
            for delta in self._held:
                await self.show(delta)
        return replace(outcome, logprobs=self._logprobs or None)

    async def _hold(self) -> Outcome:
        messages = with_instructions(self.instructions, self.request.messages)
        choice = self.request.tool_choice
        for _ in range(self.budgets.steps):
            turn = await self._ask(messages, choice)
            calls: list[Json] = turn["message"].get("tool_calls") or []
            if cut := turn.get("limit"):
                return await self._stopped(cut)
            if not calls or choice == "none":
                return self._ended(turn)  # some models call what they must not
            if theirs := [call for call in calls if self.tools.is_callers(call)]:
                return self._handed_back(turn, theirs)
            if turn["finish_reason"] in _BROKEN_OFF:
                return self._ended(turn)  # the last call is not all there
            if spent := self._spent():
                return await self._stopped(spent)
            answers, limit = await self._call(calls)
            messages = [*messages, _for_history(turn["message"]), *answers]
            choice = choice if choice in (None, "none") else "auto"
            if spent := self._spent():
                return await self._stopped(spent)
            if limit:
                break
        else:
            limit = "max_steps"
        turn = await self._ask(messages, "none")
        if not self._said:
            return await self._stopped(turn.get("limit", "") or limit)
        return Outcome(self._message(turn), "length", turn.get("limit", "") or limit)

    async def _ask(self, messages: list[Message], choice: str | Json | None) -> Turn:
        body: Json = {**self.request.parameters, "model": self.model_name, "messages": messages}
        if self.tools.definitions:
            body["tools"] = self.tools.definitions
            if choice is not None:
                body["tool_choice"] = choice
        else:
            for name in _ONLY_WITH_TOOLS:
                body.pop(name, None)
        left = self._seconds_left()
        if self._structured:
            self._said.clear()
            self._held.clear()
            self._logprobs.clear()

        async def work(step: Step) -> Json:
            pieces: list[str] = []

            async def emit(delta: Json) -> None:
                step.begun()
                if left is not None and isinstance(text := delta.get("content"), str):
                    pieces.append(text)
                if step.detailed:
                    await step.emit(delta)
                await self._show(delta)

            headers = {**step.trace, RUN_HEADER: self.run.id}
            # What was said before the time was over is known only of a stream.
            streamed = self.show is not None or left is not None
            try:
                async with asyncio.timeout(left) as clock:
                    turn = await self.model.complete(
                        body, headers=headers, emit=emit if streamed else None
                    )
            except TimeoutError:
                if not clock.expired():
                    raise
                turn = _cut("".join(pieces))
            return cast("Json", turn)

        details = {"messages": messages}
        turn = cast("Turn", await self.run.step("model", self.model_name, work, details))
        if text := turn["message"].get("content"):
            self._said.append(text)
            self._break_due = True
            add_logprobs(self._logprobs, turn.get(LOGPROBS))
        return turn

    async def _call(self, calls: list[Json]) -> tuple[list[Message], str]:
        """Make the calls that may be; returns all answers, and the budget that forbade some."""
        decided = (await self.run.wait("tool_calls", {"calls": calls})).get("refused")
        refused: dict[int, str] = {}
        limit = ""
        for number, call in enumerate(calls):
            if isinstance(decided, dict) and call.get("id") in decided:
                refused[number] = str(decided[call["id"]] or _NOT_DECIDED)
            elif self.budgets.tool_calls is not None and self._called >= self.budgets.tool_calls:
                refused[number] = "No more tools can be called in this conversation. Answer now."
                limit = "max_tool_calls"
            else:
                self._called += 1
        context = self.context
        if (left := self._seconds_left()) is not None:
            until = asyncio.get_running_loop().time() + left
            context = replace(context, deadline=min(context.deadline, until))
        return await self.tools.call_all(calls, self.run, context, refused), limit

    def _spent(self) -> str:
        """Return the budget that leaves nothing for another answer."""
        usage = self.run.usage
        tokens = usage.get("total_tokens") or sum(usage.values())
        if self.budgets.tokens is not None and tokens >= self.budgets.tokens:
            return "max_tokens"
        if self.budgets.seconds is not None and self.run.seconds >= self.budgets.seconds:
            return "max_seconds"
        return ""

    def _seconds_left(self) -> float | None:
        if self.budgets.seconds is None:
            return None
        return max(0.0, self.budgets.seconds - self.run.seconds)

    async def _show(self, delta: Json) -> None:
        if self.show is None:
            return
        if self._structured and self.tools.definitions:
            self._held.append(delta)
            return
        if self._break_due and delta.get("content"):
            self._break_due = False
            delta = {**delta, "content": _PARAGRAPH + delta["content"]}
        await self.show(delta)

    @property
    def _structured(self) -> bool:
        """Whether the caller parses the answer, so that nothing may stand before it."""
        wanted = self.request.parameters.get("response_format")
        return isinstance(wanted, dict) and wanted.get("type") not in (None, "text")

    def _message(self, turn: Turn) -> Message:
        kept = {name: value for name, value in turn["message"].items() if name != "tool_calls"}
        return {**kept, "content": _PARAGRAPH.join(self._said) or None}

    def _ended(self, turn: Turn) -> Outcome:
        finish = turn["finish_reason"]
        # Without a call in it, `tool_calls` is not how this answer ended.
        reason = "stop" if finish in ("tool_calls", "function_call") else finish
        return Outcome(self._message(turn), reason)

    def _handed_back(self, turn: Turn, calls: list[Json]) -> Outcome:
        finish = turn["finish_reason"]
        reason = finish if finish in _BROKEN_OFF else "tool_calls"
        return Outcome({**self._message(turn), "tool_calls": calls}, reason)

    async def _stopped(self, limit: str) -> Outcome:
        """End without another answer; who has got nothing yet is told why."""
        if not self._said:
            note = f"[Stopped before there was an answer: {limit} is used up.]"
            self._said.append(note)
            await self._show({"content": note})
        message = {"role": "assistant", "content": _PARAGRAPH.join(self._said)}
        return Outcome(message, "length", limit)


def _cut(text: str) -> Turn:
    """Make the answer of a model that was stopped in the middle of it."""
    message = {"role": "assistant", "content": text or None}
    return {"message": message, "finish_reason": "length", "usage": {}, "limit": "max_seconds"}


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
