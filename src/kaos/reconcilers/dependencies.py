"""What a resource needs of others, and whether they are there: pure, over the cache's view.

A dependency that is missing is waited for, never an error: files are applied in any order.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kaos.reconcilers.conditions import Finding, Reason, Type
from kaos.runtime import Object


@dataclass(frozen=True, slots=True)
class Dependency:
    """One resource that another names.

    Attributes:
        kind: its kind.
        name: its name.
        found: the object, if it exists.
        condition: the condition of it that must be True. Peers are asked for Available alone:
            two agents that may ask each other would else wait for each other for ever.
        closed: why it cannot be called even when it is ready; empty when it can.
    """

    kind: str
    name: str
    found: Object | None
    condition: Type = Type.READY
    closed: str = ""

    def lack(self) -> tuple[Reason, str] | None:
        """Why it does not count as ready, or None if it does."""
        if self.found is None or self.found.metadata.deletion_timestamp:
            return Reason.DEPENDENCY_MISSING, f'{self.kind} "{self.name}" does not exist'
        if self.closed:
            return Reason.DEPENDENCY_NOT_READY, f'{self.kind} "{self.name}" {self.closed}'
        generation = self.found.metadata.generation
        for entry in self.found.status.get("conditions", ()):
            if entry.get("type") != self.condition:
                continue
            if entry.get("status") == "True":
                if entry.get("observedGeneration", 0) >= generation:
                    return None
                break  # what it says is of an earlier spec
            words = entry.get("message") or entry.get("reason", "")
            if entry.get("reason") == Reason.MODEL_PULLING:
                # Without the share: it would be written into all agents' statuses each second.
                words = words.rpartition(": ")[0]
            return Reason.DEPENDENCY_NOT_READY, f'{self.kind} "{self.name}" is not ready: {words}'
        return Reason.DEPENDENCY_NOT_READY, f'{self.kind} "{self.name}" has not been looked at yet'


def finding(
    dependencies: Iterable[Dependency], others: Sequence[tuple[Reason, str]] = ()
) -> Finding:
    """The DependenciesReady condition: all that is missing, the first reason first.

    Args:
        dependencies: the resources that are needed.
        others: what else is known to be missing.
    """
    lacks = [lack for dependency in dependencies if (lack := dependency.lack())] + [*others]
    if not lacks:
        return Finding(
            Type.DEPENDENCIES, True, Reason.DEPENDENCIES_READY, "all that it needs is ready"
        )
    return Finding(Type.DEPENDENCIES, False, lacks[0][0], "; ".join(words for _, words in lacks))
