"""The toolbox: names that do not clash, and calls that never raise."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaos.agent.errors import AgentError
from kaos.agent.loop import Budgets, Conversation
from kaos.agent.openai import ChatRequest, Json, Turn
from kaos.agent.runs import Event, MemoryRun, Step
from kaos.agent.tools import (
    MAX_CALLS,
    MAX_RESULT,
    CallContext,
    Tool,
    Toolbox,
    ToolFailed,
    fitting_name,
    result,
)

CONTEXT = CallContext(run="r")


def tool(name: str, source: str = "s", call: Any = None, timeout: float = 5.0) -> Tool:
    async def answer(arguments: Json, context: CallContext, step: Step) -> Json:
        return result(f"{source}/{name} {sorted(arguments.items())}")

    return Tool(name, source, f"About {name}", {"type": "object"}, call or answer, timeout)


def callers(name: str) -> Json:
    return {"type": "function", "function": {"name": name}}


def call(name: str, arguments: Any = "{}", id_: str = "c1") -> Json:
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}


async def answer(box: Toolbox, *calls: Json) -> list[str]:
    messages = await box.call_all(list(calls), MemoryRun("r"), CONTEXT)
    return [message["content"] for message in messages]


def names(box: Toolbox) -> list[str]:
    return [definition["function"]["name"] for definition in box.definitions]


async def test_tools_of_the_same_name_are_both_kept() -> None:
    box = Toolbox([tool("search", "a"), tool("search", "b"), tool("other", "a")], [])
    assert names(box) == ["a_search", "b_search", "other"]
    assert await answer(box, call("b_search")) == ["b/search []"]


async def test_the_callers_tools_keep_their_names() -> None:
    box = Toolbox([tool("search", "a")], [callers("search")])
    assert names(box) == ["search", "a_search"]
    assert box.is_callers(call("search"))
    assert not box.is_callers(call("a_search"))


@given(st.lists(st.tuples(st.text(max_size=80), st.text(max_size=80)), max_size=20), st.data())
def test_names_are_unique_and_fit_whatever_they_are_called(
    tools: list[tuple[str, str]], data: st.DataObject
) -> None:
    theirs = data.draw(st.lists(st.sampled_from([fitting_name(n) for n, _ in tools] or ["x"])))
    box = Toolbox([tool(name, source) for name, source in tools], [callers(n) for n in theirs])
    ours = names(box)[len(theirs) :]
    assert len(ours) == len(tools)
    assert len({*ours, *theirs}) == len(ours) + len(set(theirs))
    assert all(len(name) <= 64 and fitting_name(name) == name for name in ours)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("{bad", "not valid JSON"),
        ("[1]", "must be a JSON object"),
        ('"x"', "must be a JSON object"),
    ],
)
async def test_bad_arguments_are_told_to_the_model(arguments: str, complaint: str) -> None:
    (text,) = await answer(Toolbox([tool("t")], []), call("t", arguments))
    assert text.startswith("Error: ")
    assert complaint in text


@pytest.mark.parametrize("arguments", ["", None, "{}"])
async def test_no_arguments_are_no_error(arguments: Any) -> None:
    assert await answer(Toolbox([tool("t")], []), call("t", arguments)) == ["s/t []"]


async def test_an_unknown_name_is_told_with_the_names_there_are() -> None:
    (text,) = await answer(Toolbox([tool("a"), tool("b")], []), call("c"))
    assert text == "Error: There is no tool named 'c'. The tools are: a, b."


async def test_failures_of_all_kinds_are_answers() -> None:
    async def refuse(*_: Any) -> Json:
        raise ToolFailed("not today")

    async def crash(*_: Any) -> Json:
        raise RuntimeError("secret path /x")

    async def hang(*_: Any) -> Json:
        await asyncio.sleep(60)
        return result("late")

    box = Toolbox([tool("r", call=refuse), tool("c", call=crash), tool("h", "s", hang, 0.05)], [])
    assert await answer(box, call("r"), call("c"), call("h")) == [
        "Error: not today",
        "Error: c failed: RuntimeError",
        "Error: h did not answer in time.",
    ]


async def test_calls_run_at_once_and_are_answered_in_order() -> None:
    together = asyncio.Barrier(3)

    async def meet(arguments: Json, *_: Any) -> Json:
        await together.wait()
        return result(str(arguments["n"]))

    box = Toolbox([tool("m", call=meet)], [])
    calls = [call("m", f'{{"n": {n}}}', f"c{n}") for n in range(3)]
    assert await answer(box, *calls) == ["0", "1", "2"]


async def test_too_many_calls_at_once_are_refused_one_by_one() -> None:
    box = Toolbox([tool("t")], [])
    texts = await answer(box, *[call("t")] * (MAX_CALLS + 2))
    assert sum(text.startswith("Error: At most") for text in texts) == 2


async def test_a_long_result_is_cut_and_says_so() -> None:
    async def chatty(*_: Any) -> Json:
        return result("x" * (MAX_RESULT + 7))

    (content,) = await answer(Toolbox([tool("t", call=chatty)], []), call("t"))
    assert content.endswith("\n[7 more characters were cut off]")


class FakeModel:
    """A model client that gives prepared turns."""

    def __init__(self, *messages: Json, finish: str = "stop") -> None:
        self.messages = list(messages)
        self.finish = finish
        self.bodies: list[Json] = []

    async def complete(self, body: Json, **_: Any) -> Turn:
        self.bodies.append(body)
        message = {"role": "assistant", "content": None, **self.messages.pop(0)}
        return Turn(message=message, finish_reason=self.finish, usage={"total_tokens": 1})


def conversation(model: FakeModel, box: Toolbox, run: MemoryRun, steps: int = 3) -> Conversation:
    request = ChatRequest(messages=[{"role": "user", "content": "x"}])
    client: Any = model
    return Conversation(
        request=request,
        instructions="",
        model=client,
        model_name="m",
        tools=box,
        run=run,
        context=CONTEXT,
        budgets=Budgets(steps=steps),
    )


async def test_spent_steps_end_in_an_answer_that_says_length() -> None:
    turns = [{"tool_calls": [call("t")]}] * 2
    model = FakeModel(*turns, {"content": "what I know", "tool_calls": [call("t")]})
    outcome = await conversation(model, Toolbox([tool("t")], []), MemoryRun("r"), steps=2).hold()
    assert (outcome.finish_reason, outcome.limit) == ("length", "max_steps")
    assert outcome.message == {"role": "assistant", "content": "what I know"}
    assert [body.get("tool_choice") for body in model.bodies] == [None, None, "none"]
    assert [m["role"] for m in model.bodies[-1]["messages"]] == [
        "user",
        *["assistant", "tool"] * 2,
    ]


async def test_what_goes_back_to_the_model_is_well_formed() -> None:
    odd = {
        "content": "hm",
        "reasoning_content": "secret",
        "tool_calls": [call("no such tool!", "{bad")],
    }
    model = FakeModel(odd, {"content": "sorry"})
    await conversation(model, Toolbox([tool("t")], []), MemoryRun("r")).hold()
    _, assistant, complaint = model.bodies[1]["messages"]
    assert set(assistant) == {"role", "content", "tool_calls"}
    assert assistant["tool_calls"][0]["function"] == {"name": "no_such_tool_", "arguments": "{}"}
    assert complaint["content"].startswith("Error: ")


@pytest.mark.parametrize(
    ("finish", "shown"),
    [("stop", "stop"), ("length", "length"), ("content_filter",) * 2, ("tool_calls", "stop")],
)
async def test_the_models_finish_reason_is_passed_on(finish: str, shown: str) -> None:
    model = FakeModel({"content": "x"}, finish=finish)
    outcome = await conversation(model, Toolbox([], []), MemoryRun("r")).hold()
    assert outcome.finish_reason == shown


async def test_every_step_is_an_event_with_its_parent() -> None:
    events: list[Event] = []

    async def listen(event: Event) -> None:
        events.append(event)

    model = FakeModel({"tool_calls": [call("t"), call("t")]}, {"content": "x"})
    run = MemoryRun("r", parent="7", listener=listen)
    await conversation(model, Toolbox([tool("t")], []), run).hold()
    seen = [(event.step, event.kind, event.type) for event in events if event.type == "end"]
    assert seen == [
        ("7.1", "model", "end"),
        ("7.2", "tool", "end"),
        ("7.3", "tool", "end"),
        ("7.4", "model", "end"),
    ]
    assert {event.parent for event in events} == {"7"}
    assert run.usage == {"total_tokens": 2}
    assert run.acted


async def test_a_failed_step_is_an_event_too() -> None:
    events: list[Event] = []

    async def listen(event: Event) -> None:
        events.append(event)

    async def fail(_step: Step) -> Json:
        raise AgentError("broken")

    with pytest.raises(AgentError):
        await MemoryRun("r", listener=listen).step("model", "m", fail)
    assert [event.type for event in events] == ["start", "error"]
    assert events[-1].data["message"] == "broken"
