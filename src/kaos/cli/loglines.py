"""Log lines of pods and of the cluster, as people read them.

Guaranteed: a JSON event (what our own processes write) becomes ``time LEVEL event key=value``; any
other line is shown as it is, without the control characters that would take over a terminal.
Pure functions; colours are rich styles that the console may drop.
"""

import json
from typing import Any

from rich.text import Text

COLOURS = ("cyan", "green", "magenta", "blue", "bright_cyan", "bright_green", "bright_magenta")
LEVELS = {
    "debug": "dim",
    "info": "",
    "warning": "yellow",
    "error": "red",
    "critical": "bold red",
    "exception": "red",
}
_PLACED = ("event", "level", "timestamp", "logger", "exception")
_MAX = 4000


def colour_of(name: str) -> str:
    """The colour of a resource: the same in every run."""
    return COLOURS[sum(name.encode()) % len(COLOURS)]


def render(prefix: str, line: str, *, width: int = 0) -> Text:
    """One line for the terminal, after ``prefix`` (padded to ``width``)."""
    text = Text(no_wrap=False)
    if prefix:
        text.append(f"{prefix:<{width}} | ", style=colour_of(prefix))
    event = parse(line)
    if event is None:
        return text.append(printable(line))
    level = str(event.get("level", "info")).lower()
    style = LEVELS.get(level, "")
    if moment := clock(event.get("timestamp")):
        text.append(f"{moment} ", style="dim")
    if level not in ("info", "debug"):
        text.append(f"{level} ", style=style)
    text.append(printable(str(event["event"])), style=style)
    for key, value in event.items():
        if key not in _PLACED:
            text.append(f" {key}=", style="dim").append(printable(_brief(value)))
    if exception := event.get("exception"):
        text.append("\n" + printable(str(exception), lines=True), style="dim")
    return text


def parse(line: str) -> dict[str, Any] | None:
    """The structured event in ``line``, if it is one."""
    if not line.startswith("{"):
        return None
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None


def clock(timestamp: object) -> str:
    """``14:03:59`` of an ISO timestamp; empty when it is none."""
    text = str(timestamp or "")
    return text[11:19] if len(text) >= 19 and text[10:11] in ("T", " ") else ""


def printable(text: str, *, lines: bool = False) -> str:
    """``text`` without control characters, cut at a length that no reader passes."""
    allowed = "\t\n" if lines else "\t"
    kept = "".join(char for char in text[:_MAX] if char.isprintable() or char in allowed)
    return kept + "…" if len(text) > _MAX else kept


def _brief(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
