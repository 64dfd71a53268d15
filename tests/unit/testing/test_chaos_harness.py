"""The chaos test's own parts: it ends though no server comes back, and knows what is lost."""

import asyncio

import pytest

from kaos.runtime import CONFIG_MAP, ApiError, Object, Unreachable
from tests.chaos.ledger import Ledger, Wanted
from tests.chaos.users import PATIENCE, insist
from tests.chaos.widgets import WIDGET, copy_name, outside_name, source_name

pytestmark = pytest.mark.looptime


async def test_users_do_not_wait_for_ever_for_a_server_that_is_gone() -> None:
    async def attempt() -> None:
        raise Unreachable("GET /", "connection refused")

    started = asyncio.get_running_loop().time()
    with pytest.raises(TimeoutError, match=r"did not come back .* connection refused"):
        await insist(attempt)
    assert asyncio.get_running_loop().time() - started == pytest.approx(PATIENCE, abs=1)


async def test_users_take_no_for_an_answer_and_later_for_none() -> None:
    answers = [ApiError(503), ApiError(429), ApiError(403)]

    async def attempt() -> None:
        raise answers.pop(0)

    with pytest.raises(ApiError, match="403"):
        await insist(attempt)


def config(name: str, uid: str, data: dict[str, str], owner: str = "") -> Object:
    controller = {"apiVersion": "x/v1", "kind": "X", "name": "w", "uid": owner, "controller": True}
    metadata = {"uid": uid, "ownerReferences": [controller] if owner else []}
    body = CONFIG_MAP.body(name, "ns", metadata=metadata, data=data)
    return Object.from_dict(body)


def test_a_deletion_without_a_reason_is_told() -> None:
    ledger = Ledger()
    copy = copy_name("w", 0)
    assert ledger.audit([config(copy, "1", {})]) == []
    ledger.may_shrink("w", 0)
    assert ledger.audit([config(copy, "2", {})]) == []
    assert ledger.audit([config(copy, "3", {})]) == [
        f"{copy} was deleted 2 times, with a reason 1 times"
    ]


def test_whatever_is_not_as_its_user_wants_it_is_told() -> None:
    ledger = Ledger({"w": Wanted(7, 1, 0)}, {0: "first"})
    data = {"value": "7", "source": "first"}
    status = {**data, "generation": 3}
    widget = WIDGET.body("w", "ns", metadata={"uid": "u", "generation": 3}, status=status)
    live = [Object.from_dict(widget)]
    source = config(source_name(0), "s", {"value": "first"})
    copy = config(copy_name("w", 0), "c", data)
    outside = config(outside_name("w"), "o", {"uid": "u"})
    assert ledger.differences(live, [source, copy, outside]) == []
    assert len(ledger.differences(live, [source, outside])) == 1
    assert len(ledger.differences(live, [source, copy])) == 1
    assert len(ledger.differences(live, [copy, outside])) == 1
    assert len(ledger.differences([], [source, copy, outside])) == 2  # and the outside's uid
    for owner, told in (("u", 1), ("an owner that is gone", 0)):
        unwanted = config(copy_name("w", 1), "x", data, owner)
        assert len(ledger.differences(live, [source, copy, outside, unwanted])) == told
