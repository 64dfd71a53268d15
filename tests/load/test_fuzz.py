"""10,000 bad requests to all endpoints of an agent: none is a 500, and nothing stays behind."""

from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.load.fuzz import REQUESTS, Sent, target


@pytest.mark.timeout(1800)
def test_10_000_bad_requests_are_no_500_and_leave_nothing_behind(
    request: pytest.FixtureRequest,
) -> None:
    seen: Counter[int] = Counter()
    with target() as agent:

        @settings(
            max_examples=request.config.getoption("--requests"),
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.generate, Phase.shrink),
            database=None,
        )
        @given(REQUESTS)
        def send(sent: Sent) -> None:
            seen[agent.refuses(sent)] += 1

        send()
        print(dict(sorted(seen.items())))  # noqa: T201 - for who reads the log
        leaks = agent.leaks()
        assert not any(leaks.values()), leaks
