"""The users of the chaos test: they change, break and delete things, and note what they did.

Guarantees: each step is tried until it is certain that it happened, so that the ledger is right
also when the API server is killed under it; a server that does not come back ends the test with a
word, and not with silence. Users talk to it directly, not through the fault proxy.
"""

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from kaos.runtime import (
    CONFIG_MAP,
    AlreadyExists,
    ApiError,
    Client,
    NotFound,
    Unreachable,
)
from tests.chaos.ledger import MOST_COPIES, Ledger, Wanted
from tests.chaos.widgets import BYSTANDER, WIDGET, copy_name, source_name

T = TypeVar("T")
SOURCES = 40
BYSTANDERS = 20
PATIENCE = 120.0
TRIES = 120


async def insist(attempt: Callable[[], Awaitable[T]], patience: float = PATIENCE) -> T:
    """Try until there is an answer that is neither "later" nor nothing, but not for ever."""
    last: Exception | None = None
    try:
        async with asyncio.timeout(patience):
            while True:
                try:
                    return await attempt()
                except Unreachable as error:
                    last = error
                except ApiError as error:
                    if error.status < 500 and error.status != 429:
                        raise
                    last = error
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise TimeoutError(f"the API server did not come back in {patience:g} s: {last}") from last


class Users:
    """See the module."""

    def __init__(
        self, client: Client, namespace: str, ledger: Ledger, objects: int, seed: int
    ) -> None:
        self.steps = 0
        self._client = client
        self._namespace = namespace
        self._ledger = ledger
        self._names = [f"w{number:05}" for number in range(objects)]
        self._dice = random.Random(seed)
        self._busy: set[str] = set()
        self._values = itertools.count(1)

    async def begin(self) -> None:
        """Create the sources and what nobody may touch."""
        for number in range(SOURCES):
            await self._create(source_name(number), {"value": "first"})
            self._ledger.sources[number] = "first"
        for number in range(BYSTANDERS):
            await self._create(f"{BYSTANDER}-{number}", {"mine": "yes"})

    async def create_all(self, tasks: int = 8) -> None:
        """Create all widgets."""
        names = iter(self._names)

        async def work() -> None:
            for name in names:
                await self._one(name, self._create_widget)

        async with asyncio.TaskGroup() as group:
            for _ in range(tasks):
                group.create_task(work())

    async def act(self, rate: float) -> None:
        """Do something at random, so often a second, until cancelled.

        A step that has begun is always ended: the ledger would not know what became of it.
        """
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            begun = loop.time()
            for count in itertools.count(1):
                await asyncio.sleep(max(0.0, begun + count / rate - loop.time()))
                if len(self._busy) < 64:
                    group.create_task(_finish(self._step()))

    async def _step(self) -> None:
        self.steps += 1
        if self._dice.random() < 0.02:
            await self._change_source(self._dice.randrange(SOURCES))
            return
        name = self._dice.choice(self._names)
        if name not in self._ledger.widgets:
            await self._one(name, self._create_widget)
            return
        step = self._dice.choices(
            (self._change, self._delete, self._spoil_copy, self._delete_copy),
            weights=(70, 10, 10, 10),
        )[0]
        await self._one(name, step)

    async def _one(self, name: str, step: Callable[[str], Awaitable[None]]) -> None:
        """One step at a time for each widget."""
        if name in self._busy:
            return
        self._busy.add(name)
        try:
            await step(name)
        finally:
            self._busy.discard(name)

    async def _create_widget(self, name: str) -> None:
        if name in self._ledger.widgets:
            return
        wanted = Wanted(
            next(self._values),
            self._dice.randint(0, MOST_COPIES),
            self._dice.randrange(SOURCES),
        )
        for _ in range(TRIES):
            if await self._created(name, wanted):
                self._ledger.widgets[name] = wanted
                return
            await asyncio.sleep(0.5)
        # Its predecessor is not gone yet: while leaders fall and lists fail, that may take minutes.
        # Whether it goes at all is judged at the end.

    async def _created(self, name: str, wanted: Wanted) -> bool:
        body = WIDGET.body(name, self._namespace, spec=vars(wanted))
        try:
            await insist(lambda: self._client.create(body))
        except AlreadyExists:
            # Of ours, its answer was lost; or one that was deleted and is not gone yet.
            return await self._is_there(name, wanted)
        except NotFound:
            return False  # the definition is not served yet
        return True

    async def _is_there(self, name: str, wanted: Wanted) -> bool:
        try:
            found = await insist(lambda: self._client.get(WIDGET, name, self._namespace))
        except NotFound:
            return False
        return not found.deleting and found.spec == vars(wanted)

    async def _change(self, name: str) -> None:
        wanted = self._ledger.widgets[name]
        wanted.value = next(self._values)
        if self._dice.random() < 0.3:
            wanted.copies = self._dice.randint(0, MOST_COPIES)
            self._ledger.may_shrink(name, wanted.copies)
        if self._dice.random() < 0.2:
            wanted.source = self._dice.randrange(SOURCES)
        patch = {"spec": vars(wanted)}
        await insist(lambda: self._client.patch(WIDGET, name, self._namespace, patch))

    async def _delete(self, name: str) -> None:
        self._ledger.may_go(name)
        del self._ledger.widgets[name]
        try:
            await insist(lambda: self._client.delete(WIDGET, name, self._namespace))
        except NotFound:
            return

    async def _spoil_copy(self, name: str) -> None:
        """Change a copy by hand, which is to be put right."""
        copy = copy_name(name, self._dice.randrange(MOST_COPIES))
        patch = {"data": {"value": "spoiled", "extra": "x"}}
        try:
            await insist(lambda: self._client.patch(CONFIG_MAP, copy, self._namespace, patch))
            # A key that the controller never set is not its own to remove.
            patch = {"data": {"extra": None}}  # type: ignore[dict-item]
            await insist(lambda: self._client.patch(CONFIG_MAP, copy, self._namespace, patch))
        except NotFound:
            return

    async def _delete_copy(self, name: str) -> None:
        copy = copy_name(name, self._dice.randrange(MOST_COPIES))
        self._ledger.reasons[copy] += 1
        try:
            await insist(lambda: self._client.delete(CONFIG_MAP, copy, self._namespace))
        except NotFound:
            return

    async def _change_source(self, number: int) -> None:
        value = f"value-{next(self._values)}"
        patch = {"data": {"value": value}}
        name = source_name(number)
        await insist(lambda: self._client.patch(CONFIG_MAP, name, self._namespace, patch))
        self._ledger.sources[number] = value

    async def _create(self, name: str, data: dict[str, str]) -> None:
        body = CONFIG_MAP.body(name, self._namespace, data=data)
        await insist(lambda: self._client.create(body))


async def _finish(step: Awaitable[None]) -> None:
    """Run a step to its end, also when the task is cancelled."""
    task = asyncio.ensure_future(step)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
