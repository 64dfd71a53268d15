"""The weather of the chaos test: random faults between each replica and the API server."""

import asyncio
import random
from collections.abc import Sequence

from kaos.testing.faults import (
    GONE,
    INTERNAL_ERROR,
    NO_STREAMING_LISTS,
    TOO_LARGE_VERSION,
    TOO_MANY_REQUESTS,
    UNAVAILABLE,
    Asked,
    Blackhole,
    Close,
    Delay,
    EndWatch,
    ErrorEvent,
    FaultProxy,
    Rule,
    Stale,
    Verb,
)

_WRITES: tuple[Verb, ...] = ("create", "update", "patch", "delete")
_READS: tuple[Verb, ...] = ("get", "list", "watch")


def _continued(asked: Asked) -> bool:
    return asked.continued


def _streaming(asked: Asked) -> bool:
    return asked.streaming


def _first_watch(asked: Asked) -> bool:
    return asked.verb == "watch" and not asked.streaming


def always() -> list[Rule]:
    """What happens now and then, all the time."""
    return [
        Rule(Close(processed=True), verbs=_WRITES, probability=0.005),
        Rule(Close(), verbs=_WRITES, probability=0.005),
        Rule(INTERNAL_ERROR, probability=0.005),
        Rule(TOO_MANY_REQUESTS, probability=0.003),
        Rule(Delay(0.3), verbs=(*_WRITES, "get", "list"), probability=0.02),
        Rule(Stale(), probability=0.3),
        Rule(NO_STREAMING_LISTS, when=_streaming, probability=0.3),
        Rule(GONE, when=_continued, probability=0.2),
    ]


def _spells() -> list[tuple[str, list[Rule]]]:
    return [
        ("watches lag", [Rule(Delay(1.5), when=_first_watch)]),
        ("watches end at once", [Rule(EndWatch(), when=_first_watch, count=6)]),
        ("watches end with 410", [Rule(ErrorEvent(GONE, after=0.3), verbs=("watch",), count=3)]),
        ("watches are refused with 410", [Rule(GONE, verbs=("watch",), count=3)]),
        ("watches are refused with 429", [Rule(TOO_MANY_REQUESTS, verbs=("watch",), count=5)]),
        ("replicas lag behind", [Rule(TOO_LARGE_VERSION, verbs=("list", "watch"), count=3)]),
        ("reads fail", [Rule(INTERNAL_ERROR, verbs=_READS, probability=0.5)]),
        ("writes fail", [Rule(UNAVAILABLE, verbs=_WRITES, probability=0.5)]),
        ("answers are lost", [Rule(Close(processed=True), verbs=_WRITES, probability=0.3)]),
        ("writes hang", [Rule(Blackhole(processed=True), verbs=("patch",), count=1)]),
    ]


class Weather:
    """Changes all the time, the same way for the same seed.

    Args:
        proxies: Where it blows.
        seed: Of its dice.
        blackholes: Whether watches go silent, too: that is noticed only after 90 s.
    """

    def __init__(self, proxies: Sequence[FaultProxy], seed: int, *, blackholes: bool) -> None:
        self._proxies = proxies
        self._dice = random.Random(seed)
        self.blackholes = blackholes
        self.events: list[str] = []

    async def blow(self) -> None:
        """Until cancelled; then the sky is clear."""
        for proxy in self._proxies:
            proxy.rules[:] = always()
        try:
            while True:
                await asyncio.sleep(self._dice.uniform(0.5, 2))
                await self._dice.choices((self._strike, self._spell, self._outage), (5, 5, 1))[0](
                    self._dice.choice(self._proxies)
                )
        finally:
            for proxy in self._proxies:
                proxy.rules.clear()

    async def _strike(self, proxy: FaultProxy) -> None:
        faults: list[Close | Blackhole | EndWatch | ErrorEvent] = [
            Close(),
            EndWatch(),
            ErrorEvent(GONE),
            ErrorEvent(INTERNAL_ERROR),
        ]
        if self.blackholes:
            faults.append(Blackhole())
        fault = self._dice.choice(faults)
        self.events.append(f"strike: {fault}")
        proxy.strike(fault)

    async def _spell(self, proxy: FaultProxy) -> None:
        name, rules = self._dice.choice(_spells())
        self.events.append(name)
        # New watches meet the rules: end the old ones.
        proxy.strike(EndWatch())
        with proxy.having(*rules):
            await asyncio.sleep(self._dice.uniform(1, 4))

    async def _outage(self, proxy: FaultProxy) -> None:
        self.events.append("outage")
        with proxy.outage():
            await asyncio.sleep(self._dice.uniform(0.3, 2))
