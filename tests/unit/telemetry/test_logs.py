"""Logs: one shape for ours and the libraries', secrets masked."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from kaos.telemetry import logs


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_structlog_and_the_standard_library_look_alike() -> None:
    stream = io.StringIO()
    logs.configure("INFO", "json", stream=stream)
    structlog.get_logger("a").info("ours", port=80)
    logging.getLogger("lib").warning("theirs %s", 1)
    ours, theirs = lines(stream)
    assert list(ours)[:3] == ["timestamp", "level", "event"] == list(theirs)[:3]
    assert (ours["event"], ours["port"], ours["level"]) == ("ours", 80, "info")
    assert (theirs["event"], theirs["logger"], theirs["level"]) == ("theirs 1", "lib", "warning")


def test_secrets_are_masked_at_any_depth_and_counts_are_not() -> None:
    stream = io.StringIO()
    logs.configure("INFO", "json", stream=stream)
    structlog.get_logger().info(
        "x", api_key="s1", env={"DB_PASSWORD": "s2", "a": {"Authorization": "s3"}}, total_tokens=7
    )
    assert not any(secret in stream.getvalue() for secret in ("s1", "s2", "s3"))
    assert lines(stream)[0]["total_tokens"] == 7


def test_a_level_hides_what_is_below_it_also_for_loggers_made_before() -> None:
    log = structlog.get_logger("early")
    stream = io.StringIO()
    logs.configure("warning", "json", stream=stream)
    log.info("hidden")
    log.warning("shown")
    assert [line["event"] for line in lines(stream)] == ["shown"]


def test_an_unknown_level_means_info_and_says_so() -> None:
    stream = io.StringIO()
    logs.configure("chatty", "json", stream=stream)
    structlog.get_logger().info("shown")
    assert [line["event"] for line in lines(stream)] == ["unknown log level, using INFO", "shown"]


def test_what_json_cannot_say_is_written_as_text() -> None:
    stream = io.StringIO()
    logs.configure("INFO", "json", stream=stream)
    structlog.get_logger().info("x", path={1, 2}.__class__, text="é\n")
    assert lines(stream)[0]["path"] == "<class 'set'>"
    assert lines(stream)[0]["text"] == "é\n"


def test_a_trace_is_one_line_in_json() -> None:
    stream = io.StringIO()
    logs.configure("INFO", "json", stream=stream)
    try:
        int("broken")
    except ValueError:
        structlog.get_logger().exception("failed")
    (line,) = lines(stream)
    assert "ValueError: invalid literal" in str(line["exception"])


def test_console_is_for_people() -> None:
    stream = io.StringIO()
    logs.configure("INFO", "console", stream=stream)
    structlog.get_logger().info("hello there", port=80)
    assert "hello there" in stream.getvalue()
    assert "port=80" in stream.getvalue()
