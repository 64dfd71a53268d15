"""Webhooks' certificates: what happens to them that nobody planned."""

from datetime import timedelta

import pytest

from kaos.runtime.client import Client
from kaos.runtime.webhooks.certificates import OVERLAP, next_state
from tests.unit.runtime.test_webhooks import NOW, SECRETS, bundle, hooks, served


def test_a_certificate_of_a_clock_that_was_ahead_is_made_anew_at_once() -> None:
    """No API server took it until that time had come, years maybe."""
    ahead = next_state(None, ["hooks.default.svc"], NOW + timedelta(days=1000))
    assert next_state(ahead, ["hooks.default.svc"], NOW).current != ahead.current


def test_an_address_may_be_written_in_any_way() -> None:
    """A new certificate was made each minute."""
    first = next_state(None, ["2001:db8:0::1"], NOW)
    assert next_state(first, ["2001:db8:0::1"], NOW) == first


async def test_a_secret_that_is_deleted_is_replaced_without_a_lost_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The other replicas served for a minute what nobody trusted any more."""
    now = NOW
    monkeypatch.setattr("kaos.runtime.webhooks.server.utc_now", lambda: now)
    server, one, two = served(), hooks(), hooks()
    client = Client(server)
    await one.refresh(client)
    await two.refresh(client)
    assert two._served is not None
    first = two._served.current
    server.collections[SECRETS].delete("pots-webhooks", "default")
    await one.refresh(client)
    assert first.certificate in bundle(server)
    now += timedelta(seconds=OVERLAP)
    for replica in (one, two):
        await replica.refresh(client)
        assert replica._served is not None
        assert replica._served.current != first
    assert two._served == one._served
