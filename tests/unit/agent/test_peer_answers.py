"""What peers are told of a caller's session, and how much of their answers is read."""

import json
from collections.abc import AsyncIterator

import pytest

from kaos.agent.exchange import _for_peers
from kaos.agent.peer_answer import PeerAnswer
from kaos.agent.runs import Step
from kaos.agent.tools import ToolFailed


def test_two_callers_of_one_name_of_session_do_not_share_it_at_a_peer() -> None:
    """Alice's history was in the prompt of the peer that Bob's question was passed on to."""
    alice, bob = _for_peers("default", "alice"), _for_peers("default", "bob")
    assert len({alice, bob, "default"}) == 3
    assert alice == _for_peers("default", "alice")  # the next turn finds it again
    assert _for_peers("default", "") == "default"
    assert _for_peers("", "alice") == ""


class Streamed:
    """A response whose lines are given."""

    status = 200
    content_type = "text/event-stream"

    def __init__(self, *lines: bytes) -> None:
        self._lines = lines
        self.content = self

    async def iter_any(self) -> AsyncIterator[bytes]:
        for line in self._lines:
            yield line + b"\n\n"


def delta(text: str, finish: str | None = None) -> bytes:
    choice = {"delta": {"content": text}, "finish_reason": finish}
    return b"data: " + json.dumps({"choices": [choice]}).encode()


async def read(*lines: bytes) -> str:
    async def emit(_: object) -> None: ...

    answer = PeerAnswer("peer", Step("1", emit), "r")
    return str((await answer.read(Streamed(*lines)))["content"])  # type: ignore[arg-type]


async def test_steps_that_are_passed_up_do_not_count_as_an_answer() -> None:
    """A short summary of a long answer further down was "larger than 4194304 bytes"."""
    passed = b'data: {"kaos": {"event": "' + b"x" * 100_000 + b'"}}'
    assert await read(*[passed] * 50, delta("short", "stop")) == "short"
    with pytest.raises(ToolFailed, match="larger than"):
        await read(*[delta("x" * 100_000)] * 50, delta("", "stop"))
