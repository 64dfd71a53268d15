"""What users have asked for, and what may therefore be deleted: what the outcome is judged by.

Guarantees: it is kept by the users alone (never by what the controllers did), so a lost change or a
wrong deletion cannot hide in it.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from kaos.runtime import Object, controller_of
from tests.chaos.widgets import (
    BYSTANDER,
    COPY,
    OUTSIDE,
    copy_name,
    outside_name,
    source_name,
    wanted_data,
)

MOST_COPIES = 3


@dataclass
class Wanted:
    """The spec of a widget."""

    value: int
    copies: int
    source: int


@dataclass
class Ledger:
    """See the module."""

    widgets: dict[str, Wanted] = field(default_factory=dict)
    sources: dict[int, str] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    """How often each ConfigMap may have been deleted, by name."""
    _alive: dict[str, str] = field(default_factory=dict)
    _vanished: Counter[str] = field(default_factory=Counter)

    def may_shrink(self, name: str, copies: int) -> None:
        """A widget gets another number of copies."""
        for number in range(copies, MOST_COPIES):
            self.reasons[copy_name(name, number)] += 1

    def may_go(self, name: str) -> None:
        """A widget is deleted."""
        self.may_shrink(name, 0)
        self.reasons[outside_name(name)] += 1

    def audit(self, configs: Iterable[Object]) -> list[str]:
        """Compare with the last audit: deletions that nobody gave a reason for."""
        now = {config.name: config.uid for config in configs}
        for name, uid in self._alive.items():
            if now.get(name) != uid:
                self._vanished[name] += 1
        self._alive = now
        return [
            f"{name} was deleted {times} times, with a reason {self.reasons[name]} times"
            for name, times in self._vanished.items()
            if times > self.reasons[name]
        ]

    def differences(self, widgets: Sequence[Object], configs: Sequence[Object]) -> list[str]:
        """Where the cluster is not what users want.

        What nobody wants and whose owner is gone is not told: it is the garbage collector's, and
        a real one may take minutes after an outage.
        """
        found: list[str] = []
        live = {widget.name: widget for widget in widgets}
        owners = {widget.uid for widget in widgets}
        data = {config.name: config.get("data") for config in configs}
        garbage = {c.name for c in configs if (who := controller_of(c)) and who.uid not in owners}
        expected: dict[str, dict[str, str]] = {}
        for name, wanted in self.widgets.items():
            body = wanted_data(wanted.value, self.sources[wanted.source])
            expected |= {copy_name(name, number): body for number in range(wanted.copies)}
            widget = live.pop(name, None)
            if widget is None:
                found.append(f"{name} is not there")
                continue
            expected[outside_name(name)] = {"uid": widget.uid}
            if widget.status != {**body, "generation": widget.metadata.generation}:
                found.append(f"{name}: status {widget.status}, expected {body}")
        found += [f"{name} is still there" for name in live]
        ours = {n: d for n, d in data.items() if n.startswith((f"{COPY}-", f"{OUTSIDE}-"))}
        for name in expected.keys() | (ours.keys() - garbage):
            if expected.get(name) != ours.get(name):
                found.append(f"{name}: {ours.get(name)}, expected {expected.get(name)}")
        found += [
            f"{source_name(number)} is lost"
            for number in self.sources
            if source_name(number) not in data
        ]
        return found

    def bystanders(self, configs: Iterable[Object], count: int) -> list[str]:
        """Things of others that are gone."""
        there = {config.name for config in configs}
        names = {f"{BYSTANDER}-{number}" for number in range(count)}
        return sorted(names - there)
