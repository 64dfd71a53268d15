"""Runs: replayed from their journals, seen from outside, one for a whole tree of agents."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kaos.agent.loop import Budgets, Conversation, Outcome
from kaos.agent.openai import ChatRequest, Json, Turn
from kaos.agent.run_store import MAX_ALL_EVENTS, MAX_EVENTS, MAX_RUNS, RunStore
from kaos.agent.runs import Entry, Event, MemoryJournal, MemoryRun, Step
from kaos.agent.tools import CallContext, Tool, Toolbox, result
from kaos.testing.model import ScriptedModel, tool_call
from kaos.testing.model import Turn as Scripted
from kaos.testing.waiting import eventually

openai = pytest.importorskip("openai")


class ScriptedTurns:
    """A model and a tool that count how often they are asked."""

    def __init__(self, *messages: Json) -> None:
        self.messages = list(messages)
        self.asked = 0
        self.called: list[Json] = []

    async def complete(self, body: Json, **_: Any) -> Turn:
        answers = sum(message["role"] == "assistant" for message in body["messages"])
        self.asked += 1
        message = {"role": "assistant", "content": None, **self.messages[answers]}
        return {"message": message, "finish_reason": "stop", "usage": {"total_tokens": 10}}

    def toolbox(self) -> Toolbox:
        async def call(arguments: Json, context: CallContext, step: Step) -> Json:
            self.called.append(arguments)
            return result(f"did {arguments}")

        return Toolbox([Tool("t", "s", "", {"type": "object"}, call, 5.0)], [])


def call(number: int) -> Json:
    function = {"name": "t", "arguments": json.dumps({"n": number})}
    return {"id": f"c{number}", "type": "function", "function": function}


MESSAGES: list[Json] = [
    {"content": "Let me see.", "tool_calls": [call(1), call(2)]},
    {"tool_calls": [call(3)]},
    {"content": "Done."},
    {"content": "Stopped."},
]


async def hold(world: ScriptedTurns, run: MemoryRun, budgets: Budgets) -> Outcome:
    return await Conversation(
        request=ChatRequest(messages=[{"role": "user", "content": "x"}]),
        instructions="",
        model=world,
        model_name="m",
        tools=world.toolbox(),
        run=run,
        context=CallContext(run="r"),
        budgets=budgets,
    ).hold()


def stored(journal: MemoryJournal, upto: int) -> MemoryJournal:
    """Return the first entries of a journal, as they come back from a file."""
    kept = list(journal.entries.values())[:upto]
    texts = [json.dumps([e.step, e.kind, e.name, e.result, e.at]) for e in kept]
    return MemoryJournal({(e := Entry(*json.loads(text))).step: e for text in texts})


BUDGETS = [
    Budgets(),
    Budgets(steps=1),
    Budgets(tokens=15),
    Budgets(tool_calls=1),
    Budgets(seconds=1e-9),
]


@pytest.mark.parametrize("budgets", BUDGETS)
async def test_a_journal_replays_the_run_without_model_or_tools(budgets: Budgets) -> None:
    first = MemoryRun("r")
    outcome = await hold(ScriptedTurns(*MESSAGES), first, budgets)
    assert isinstance(first.journal, MemoryJournal)
    nobody = ScriptedTurns()
    again = MemoryRun("r", journal=stored(first.journal, 99))
    assert await hold(nobody, again, budgets) == outcome
    assert (nobody.asked, nobody.called) == (0, [])
    assert (again.usage, again.acted, again.seconds) == (first.usage, first.acted, first.seconds)


async def test_a_run_that_was_lost_goes_on_where_its_journal_ends() -> None:
    first, world = MemoryRun("r"), ScriptedTurns(*MESSAGES)
    outcome = await hold(world, first, Budgets())
    assert isinstance(first.journal, MemoryJournal)
    for upto in range(len(first.journal.entries) + 1):
        rest = ScriptedTurns(*MESSAGES)
        run = MemoryRun("r", journal=stored(first.journal, upto))
        assert await hold(rest, run, Budgets()) == outcome
        assert rest.asked + len(rest.called) == len(first.journal.entries) - upto


async def test_a_run_waits_for_a_decision_and_keeps_it() -> None:
    asked: list[Json] = []

    async def gate(name: str, data: Json) -> Json:
        asked.append({name: [c["id"] for c in data["calls"]]})
        return {"refused": {"c2": "A person said no."}} if len(asked) == 1 else {}

    world, run = ScriptedTurns(*MESSAGES), MemoryRun("r", gate=gate)
    outcome = await hold(world, run, Budgets())
    assert asked == [{"tool_calls": ["c1", "c2"]}, {"tool_calls": ["c3"]}]
    assert world.called == [{"n": 1}, {"n": 3}]
    assert isinstance(run.journal, MemoryJournal)
    assert run.journal.entries["3"].result["content"] == "Error: A person said no."
    again = MemoryRun("r", gate=gate, journal=stored(run.journal, 99))
    assert await hold(ScriptedTurns(), again, Budgets()) == outcome
    assert len(asked) == 2


def event(number: int, type_: Any = "end") -> Event:
    return Event("r", str(number), "", "tool", "t", type_, {"content": "secret", "seconds": 1})


@settings(max_examples=30, deadline=None)
@given(st.integers(0, MAX_EVENTS * 2), st.integers(0, MAX_EVENTS * 2 + 5))
async def test_a_reader_goes_on_where_it_was(published: int, after: int) -> None:
    record = RunStore("a").open("r", "")
    for number in range(published):
        await record.publish(event(number))
    record.end("completed", {})
    seen = [numbered async for numbered in record.follow(after)]
    lost = sum(numbered.lost for numbered in seen)
    numbers = [numbered.number for numbered in seen if numbered.event]
    assert numbers == list(range(after + lost + 1, published + 1))
    assert lost == max(0, published - MAX_EVENTS - after)


async def test_contents_are_not_kept_unless_they_are_to_be() -> None:
    for record in (False, True):
        run = RunStore("a", record=record).open("r", "")
        await run.publish(event(1, "delta"))
        await run.publish(event(1))
        assert ("secret" in str(run.events)) is record


async def test_the_store_is_bounded() -> None:
    store = RunStore("a")
    for number in range(MAX_RUNS * 2):
        run = store.open(f"r{number}", "")
        for _ in range(MAX_EVENTS if number < 60 else 1):
            await run.publish(event(1))
        run.end("completed", {})
    assert len(store.latest(10_000)) <= MAX_RUNS
    assert sum(len(run.events) for run in store.latest(10_000)) <= MAX_ALL_EVENTS
    assert store.get("r0") is None


async def events_of(http: aiohttp.ClientSession, url: str, run: str, **headers: str) -> list[Any]:
    async with http.get(f"{url}/v1/runs/{run}/events", headers=headers) as answer:
        assert answer.status == 200
        text = await answer.text()
    blocks = [block.split("\n") for block in text.split("\n\n") if block and block[0] != ":"]
    return [(int(lines[0][4:]), json.loads(lines[-1][6:])) for lines in blocks]


@pytest.fixture
async def tree(start_agent: Any, http: aiohttp.ClientSession, tool_server: str) -> str:
    """A coordinator with an analyst who has tools."""
    analyst = await start_agent(
        name="analyst", instructions="You are an analyst.", mcp_servers={"t": tool_server}
    )
    return str(await start_agent(name="boss", peers={"analyst": analyst}))


async def test_a_tree_of_agents_is_one_run(
    tree: str, ask: Any, http: aiohttp.ClientSession, model: ScriptedModel
) -> None:
    model.say(tool_call("delegate_to_analyst", task="?"), "done")
    model.say(tool_call("echo", text="secret"), "four", when="You are an analyst")
    _, body = await ask(tree, headers={"x-kaos-steps": "1"})
    run = body["kaos"]["run"]
    async with http.get(f"{tree}/v1/runs/{run}") as answer:
        whole = await answer.json()
    assert (whole["status"], whole["agent"]) == ("completed", "boss")
    steps = {step["id"]: step for step in whole["steps"]}
    assert {number: (s["agent"], s["kind"], s["parent"]) for number, s in steps.items()} == {
        "1": ("boss", "model", ""),
        "2": ("boss", "delegation", ""),
        "2.1": ("analyst", "model", "2"),
        "2.2": ("analyst", "tool", "2"),
        "2.3": ("analyst", "model", "2"),
        "3": ("boss", "model", ""),
    }
    assert all(step["status"] == "completed" and step["seconds"] >= 0 for step in whole["steps"])
    assert steps["2.3"]["total_tokens"] > 0
    assert "secret" not in json.dumps(whole)
    events = await events_of(http, tree, run)
    assert events[0][1]["type"] == "start"
    assert (events[-1][1]["kind"], events[-1][1]["type"]) == ("run", "end")
    assert [number for number, _ in events] == list(range(1, len(events) + 1))
    later = await events_of(http, tree, run, **{"Last-Event-ID": "4"})
    assert later == events[4:]
    async with http.get(f"{tree}/v1/runs") as answer:
        assert [entry["id"] for entry in (await answer.json())["data"]] == [run]


async def test_a_run_under_way_can_be_followed(
    start_agent: Any, ask: Any, http: aiohttp.ClientSession, model: ScriptedModel
) -> None:
    url = await start_agent()
    model.say(Scripted(text="late", delay=0.3))
    asking = asyncio.create_task(ask(url, headers={"x-kaos-run": "mine"}))
    await eventually(lambda: bool(model.requests))
    events = await events_of(http, url, "mine")
    assert [(e["kind"], e["type"]) for _, e in events][-2:] == [("model", "end"), ("run", "end")]
    await asking


async def test_what_is_not_there_is_404(start_agent: Any, http: aiohttp.ClientSession) -> None:
    url = await start_agent()
    for path, status in (("/none", 404), ("/none/events", 404), ("?limit=x", 400)):
        async with http.get(f"{url}/v1/runs{path}") as answer:
            assert answer.status == status
            assert (await answer.json())["error"]["message"]


async def test_steps_in_a_stream_are_there_for_who_asks_and_nothing_to_others(
    tree: str, model: ScriptedModel
) -> None:
    for asks in ({"extra_body": {"stream_options": {"include_steps": True}}}, {}):
        model.say(tool_call("delegate_to_analyst", task="?"), "It is four.")
        model.say(tool_call("echo", text="x"), "fo ur", when="You are an analyst")
        async with openai.AsyncOpenAI(base_url=f"{tree}/v1", api_key="x", max_retries=0) as client:
            text, told = "", []
            chunks = await client.chat.completions.create(
                model="boss",
                messages=[{"role": "user", "content": "?"}],
                stream=True,
                **asks,
            )
            async for chunk in chunks:
                text += chunk.choices[0].delta.content or ""
                extension = (chunk.model_extra or {}).get("kaos", {})
                told += [extension["event"]] if "event" in extension else []
        assert text == "It is four."
        if not asks:
            assert told == []
            continue
        seen = [(e["step"], e["type"]) for e in told if e["kind"] in ("tool", "delegation")]
        assert seen == [
            ("2", "start"),
            ("2.2", "start"),
            ("2.2", "end"),
            ("2", "delta"),
            ("2", "delta"),
            ("2", "end"),
        ]
        deltas = [e["data"]["content"] for e in told if e["type"] == "delta"]
        assert "".join(deltas) == "fo ur"
