"""Logs: one event a line, JSON for machines or coloured text for people.

Guarantees: `configure` sends what structlog and the standard library log through the same
processors to standard error; values under names that look like secrets are masked at any
depth of a dict; a record that cannot be written as JSON is written as text, never lost.

Does not: write files, rotate, or ship anything. Calling `configure` again replaces the
previous set-up.

Use: `log = structlog.get_logger(__name__)`, then `log.info("event name", key=value)`.
Context for everything below a call: `with structlog.contextvars.bound_contextvars(...)`.
"""

import functools
import json
import logging
import re
import sys
from collections.abc import Mapping
from typing import Any, Literal, TextIO, get_args

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

Format = Literal["json", "console"]
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
MASK = "***"
_FIRST = ("timestamp", "level", "event")

_SECRET = re.compile(
    r"authorization|cookie|password|passwd|secret|api[-_]?key|(^|[-_])token$|bearer", re.IGNORECASE
)
_NOISY = ("hypercorn", "httpx", "httpx2", "httpcore", "httpcore2", "mcp", "asyncio")


def configure(
    level: str = "INFO",
    format: str | None = None,  # noqa: A002 - the word its callers and KAOS_LOG_FORMAT use
    *,
    stream: TextIO | None = None,
) -> None:
    """Set up logging for this process.

    Args:
        level: A level's name in any case (`LOG_LEVEL`); an unknown one means INFO, and says so.
        format: `json` or `console` (`KAOS_LOG_FORMAT`); by default `console` on a terminal.
        stream: Where to write; standard error by default.
    """
    out = stream or sys.stderr
    chosen = format if format in get_args(Format) else "console" if out.isatty() else "json"
    name = level.strip().upper()
    number = logging.getLevelNamesMapping()[name] if name in LEVELS else logging.INFO

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
        _mask_secrets,
    ]
    render: list[Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(_to_json)]
        if chosen == "json"
        else [
            structlog.dev.ConsoleRenderer(
                colors=out.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
    )
    structlog.configure(
        processors=[*shared, *render],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=out),
        cache_logger_on_first_use=False,  # a logger made before configure() must obey it too
    )
    _adopt_standard_library(number, shared, render, out)
    log = structlog.get_logger(__name__)
    if name not in LEVELS:
        log.warning("unknown log level, using INFO", given=level, known=LEVELS)
    if format and format not in get_args(Format):
        log.warning("unknown log format", given=format, using=chosen, known=get_args(Format))


def _adopt_standard_library(
    level: int, shared: list[Processor], render: list[Processor], out: TextIO
) -> None:
    """Send the standard library's records the same way; libraries speak from WARNING on."""
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _NOISY:
        # Their INFO is a line per request; ours says the same with the run's id.
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


def _mask_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    # The columns people read come first; a missing one is left out.
    ordered = {key: event[key] for key in _FIRST if key in event} | dict(event)
    return {key: _masked(key, value) for key, value in ordered.items()}


def _masked(key: str, value: Any) -> Any:
    # Only text can be a secret: `max_token=5` is a number somebody wants to read.
    if isinstance(value, str | bytes):
        return MASK if _names_a_secret(key) else value
    if isinstance(value, Mapping):
        return {name: _masked(str(name), inner) for name, inner in value.items()}
    return value


@functools.lru_cache(maxsize=1024)  # the search was a third of what a line costs
def _names_a_secret(key: str) -> bool:
    return _SECRET.search(key) is not None


def _to_json(value: Any, **options: Any) -> str:
    return json.dumps(value, default=options.get("default", str), ensure_ascii=False)
