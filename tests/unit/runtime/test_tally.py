"""What a scrape reads, beside prometheus_client's own classes."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from kaos.runtime.tally import Tallies, Timings

BOUNDS = (0.001, 0.5, 1.0, 60.0)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from([0.0, 0.001, 0.7, 1.0, 61.0]))))
def test_a_scrape_reads_what_prometheus_client_would_have_told(
    seen: list[tuple[str, float]],
) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    count = (
        Tallies("n", "Things.", ["who"], ours),
        Counter("n", "Things.", ["who"], registry=theirs),
    )
    timing = (
        Timings("t_seconds", "Times.", ["who"], BOUNDS, ours),
        Histogram("t_seconds", "Times.", ["who"], buckets=BOUNDS, registry=theirs),
    )
    for who, seconds in seen:
        for counter in count:
            counter.labels(who).inc()
        for histogram in timing:
            histogram.labels(who).observe(seconds)
    assert generate_latest(ours) == b"".join(
        line for line in generate_latest(theirs).splitlines(True) if b"_created" not in line
    )
