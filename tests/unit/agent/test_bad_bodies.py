"""Bad requests to all endpoints: the short form of `nox -s load`, which sends 10,000."""

from hypothesis import HealthCheck, given, settings

from tests.load.fuzz import REQUESTS, Sent, target


def test_no_request_is_an_internal_error_or_leaves_anything_behind() -> None:
    with target() as agent:

        @settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
        @given(REQUESTS)
        def send(sent: Sent) -> None:
            agent.refuses(sent)

        send()
        leaks = agent.leaks()
        assert not any(leaks.values()), leaks


def test_a2a_says_parse_error_of_what_is_no_text() -> None:
    """The SDK took it for an internal error, with a traceback in the log."""
    with target() as agent:
        status, text = agent.send(Sent("POST", "/a2a", b"\xff"))
        assert (status, '"code":-32700' in text) == (200, True)
