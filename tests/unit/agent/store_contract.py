"""What every session store is held to, whatever stands behind it."""

import asyncio
import itertools
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kaos.agent.memory import store as stores
from kaos.agent.memory.store import Key, Limits, Store, Turn

KEY = Key("alice", "s1")
AWKWARD = ["", "a", "a/b", "a:meta", "system:serviceaccount:ns:a", "ü'\";--", "a\\", "{x}"]


@dataclass
class Clock:
    now: float = 1_000_000.0

    def __call__(self) -> float:
        self.now += 1.5  # so that every use has a time of its own
        return self.now


def turn(*texts: str, id: str = "") -> Turn:  # noqa: A002
    messages = [{"role": "user", "content": text} for text in texts]
    return Turn.of(id or uuid.uuid4().hex, messages)


async def texts(store: Store, key: Key) -> list[str]:
    stored = await store.load(key)
    return [message["content"] for message in stored.messages()] if stored else []


class StoreContract(ABC):
    """Tests for a store; a subclass says how it is opened."""

    ttl = 600.0
    examples = 25

    @abstractmethod
    def make(self, agent: str, limits: Limits, clock: Clock) -> Store:
        """Open the store of an agent; all of one test are on the same data."""

    async def pass_ttl(self, clock: Clock) -> None:
        clock.now += self.ttl

    @asynccontextmanager
    async def opened(
        self, agent: str = "", clock: Clock | None = None, **limits: Any
    ) -> AsyncIterator[Store]:
        store = self.make(
            agent or f"agent-{uuid.uuid4().hex}",
            Limits(**limits),
            clock or Clock(),
        )
        try:
            yield store
        finally:
            await store.close()

    async def test_turns_come_back_in_their_order(self) -> None:
        async with self.opened() as store:
            assert await store.load(KEY) is None
            await store.append(KEY, turn("one", "two"))
            await store.append(KEY, turn("three \0 ü 🎈"))
            stored = await store.load(KEY)
            assert stored is not None
            assert stored.updated > stored.created
            assert await texts(store, KEY) == ["one", "two", "three \0 ü 🎈"]

    async def test_a_turn_appended_again_is_there_once(self) -> None:
        async with self.opened() as store:
            for _ in range(2):
                await store.append(KEY, turn("one", id="same"))
            await store.append(Key("alice", "s2"), turn("other", id="same"))
            assert await texts(store, KEY) == ["one"]
            assert await texts(store, Key("alice", "s2")) == ["other"]

    async def test_a_deleted_session_is_gone(self) -> None:
        async with self.opened() as store:
            await store.append(KEY, turn("one"))
            assert await store.delete(KEY) is True
            assert await store.delete(KEY) is False
            assert await store.load(KEY) is None
            assert await store.sessions("alice", 10) == []
            await store.append(KEY, turn("new"))
            assert await texts(store, KEY) == ["new"]

    async def test_beyond_the_messages_of_a_session_the_oldest_turns_go(self) -> None:
        async with self.opened(messages=4) as store:
            for number in range(4):
                await store.append(KEY, turn(f"q{number}", f"a{number}"))
            assert await texts(store, KEY) == ["q2", "a2", "q3", "a3"]
            await store.append(KEY, turn(*"abcdefg"))
            assert await texts(store, KEY) == list("abcdefg"), "the last turn is kept whole"
            assert (await store.sessions("alice", 1))[0].messages == 7

    async def test_beyond_the_bytes_of_a_session_the_oldest_turns_go(self) -> None:
        large = "x" * (stores.MAX_SESSION_BYTES // 2)
        async with self.opened() as store:
            for name in ("a", "b", "c"):
                await store.append(KEY, turn(name + large))
            assert [text[0] for text in await texts(store, KEY)] == ["c"]

    async def test_beyond_the_sessions_the_ones_longest_unused_go(self) -> None:
        async with self.opened(sessions=3) as store:
            for name in ("a", "b", "c", "a", "d"):
                await store.append(Key("alice", name), turn(name))
            assert [info.id for info in await store.sessions("alice", 10)] == ["d", "a", "c"]
            assert await store.load(Key("alice", "b")) is None

    async def test_an_unused_session_is_forgotten(self) -> None:
        clock = Clock()
        async with self.opened(clock=clock, ttl=self.ttl) as store:
            await store.append(KEY, turn("old"))
            await self.pass_ttl(clock)
            assert await store.load(KEY) is None
            assert await store.sessions("alice", 10) == []
            await store.append(KEY, turn("new"))
            assert await texts(store, KEY) == ["new"]

    async def test_a_list_has_an_owners_sessions_only_the_last_used_first(self) -> None:
        async with self.opened() as store:
            for number in range(5):
                await store.append(Key("alice", f"s{number}"), turn("x", "y"))
            await store.append(Key("bob", "s9"), turn("x"))
            found = await store.sessions("alice", 3)
            assert [info.id for info in found] == ["s4", "s3", "s2"]
            assert found[0].messages == 2
            rest = await store.sessions("alice", 3, found[-1].updated)
            assert [info.id for info in rest] == ["s1", "s0"]

    async def test_two_agents_on_one_store_do_not_meet(self) -> None:
        first, second = f"a-{uuid.uuid4().hex}", f"b-{uuid.uuid4().hex}"
        async with self.opened(first, sessions=1) as one, self.opened(second, sessions=1) as two:
            await one.append(KEY, turn("one"))
            await two.append(KEY, turn("two"))
            assert await texts(one, KEY) == ["one"]
            assert await two.delete(KEY)
            assert await texts(one, KEY) == ["one"]

    async def test_turns_at_once_are_all_there_and_whole(self) -> None:
        agent = f"agent-{uuid.uuid4().hex}"
        async with self.opened(agent) as one, self.replica(agent, one) as two:
            await asyncio.gather(
                *(
                    store.append(KEY, turn(f"{number}", f"{number}"))
                    for number, store in zip(range(40), itertools.cycle((one, two)), strict=False)
                )
            )
            found = await texts(one, KEY)
            assert found == await texts(two, KEY)
            assert sorted(found) == sorted(f"{n}" for n in range(40) for _ in range(2))
            assert found[::2] == found[1::2], "no turn has another within it"

    @asynccontextmanager
    async def replica(self, agent: str, store: Store) -> AsyncIterator[Store]:
        """Another process's store of the same agent."""
        async with self.opened(agent) as second:
            yield second

    def test_nothing_of_one_session_is_seen_in_another(self) -> None:
        names = st.sampled_from(AWKWARD)
        ids = st.sampled_from(["a", "b", "a:meta", "user-1", "a.b@c"])
        steps = st.lists(
            st.tuples(st.sampled_from(["append", "append", "delete", "read"]), names, ids),
            max_size=25,
        )

        @settings(
            max_examples=self.examples, deadline=None, suppress_health_check=list(HealthCheck)
        )
        @given(steps)
        def compared(steps: list[tuple[str, str, str]]) -> None:
            asyncio.run(self.compare(steps))

        compared()

    async def compare(self, steps: list[tuple[str, str, str]]) -> None:
        """Do the steps to the store and to a dictionary."""
        expected: dict[Key, list[str]] = {}
        async with self.opened() as store:
            for number, (what, owner, session) in enumerate(steps):
                key = Key(owner, session)
                if what == "append":
                    await store.append(key, turn(f"{number}"))
                    expected.setdefault(key, []).append(f"{number}")
                elif what == "delete":
                    assert await store.delete(key) == (expected.pop(key, None) is not None)
                assert await texts(store, key) == expected.get(key, [])
            for owner in AWKWARD:
                found = {info.id: info.messages for info in await store.sessions(owner, 100)}
                assert found == {
                    key.session: len(said) for key, said in expected.items() if key.owner == owner
                }
