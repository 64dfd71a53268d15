"""What was answered before, for stale reads.

Guarantees: an answer is given again only to the same question, never to a further page of a list,
and, unless told otherwise, only where Kubernetes permits it. The memory is bounded.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from multidict import CIMultiDict

from kaos.testing.faults.rules import Asked, Rule, Stale

_REMEMBERED = 64


class _Metadata(msgspec.Struct, rename="camel"):
    resource_version: str = ""


class _Head(msgspec.Struct):
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of the upstream.

    Attributes:
        time: When it came (loop time).
        status: The HTTP status.
        headers: What may be passed on of its headers.
        body: The body.
    """

    time: float
    status: int
    headers: "CIMultiDict[str]"
    body: bytes

    @property
    def version(self) -> int:
        """The resourceVersion of the object or list; -1 when there is none."""
        try:
            found = msgspec.json.decode(self.body, type=_Head).metadata.resource_version
        except msgspec.MsgspecError:
            return -1
        return int(found) if found.isdecimal() else -1


class Answers:
    """The answers to reads that a `Stale` rule may repeat."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Answer] = OrderedDict()

    def remember(self, asked: Asked, answer: Answer, rules: Sequence[Rule]) -> None:
        """Keep an answer that one of the rules may want, unless one young enough is kept."""
        ages = [rule.fault.age for rule in rules if isinstance(rule.fault, Stale)]
        wanted = any(isinstance(rule.fault, Stale) and rule.fits(asked) for rule in rules)
        if not wanted or answer.status != 200 or asked.continued:
            return
        key = _key(asked)
        old = self._known.get(key)
        if old is None or answer.time - old.time > max(ages):
            self._known[key] = answer
            self._known.move_to_end(key)
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)

    def find(self, asked: Asked, stale: Stale) -> Answer | None:
        """The answer that a stale read gives, if there is one."""
        answer = self._known.get(_key(asked))
        now = asyncio.get_running_loop().time()
        if answer is None or asked.continued or now - answer.time > stale.age:
            return None
        wanted = asked.query.get("resourceVersion", "")
        legal = wanted.isdecimal() and answer.version >= int(wanted)
        return answer if legal or not stale.legal else None


def _key(asked: Asked) -> str:
    chosen = sorted((k, v) for k, v in asked.query.items() if k != "resourceVersion")
    return f"{asked.path} {chosen}"
