"""What a user sees while things come up: a live table on a terminal, plain lines elsewhere.

Guaranteed: the same facts in both forms; with `--ask` everything goes to standard error, so that
standard output is the answer alone. `NO_COLOR` is honoured (by rich). A live table is always taken
down, also when the work inside fails, so that an error is not drawn over.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import NamedTuple, Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from kaos.cli.loglines import printable
from kaos.cli.resources import Key, Row

_STEADY = 1.5  # seconds after which a state is told
_AT_LEAST = 5.0  # seconds after which one is told that keeps changing, like a download's
_BRIEF = 140
_BAR = 24
_WIDE = 10_000

STYLES = {
    "Ready": "green",
    "Failed": "red",
    "Waiting": "yellow",
    "Pending": "cyan",
    "Suspended": "blue",
}


def console(*, stderr: bool = False) -> Console:
    """A console that guesses no highlights, and folds nothing for a pipe or a file."""
    made = Console(stderr=stderr, highlight=False)
    if made.is_terminal:
        return made
    return Console(stderr=stderr, highlight=False, soft_wrap=True, width=_WIDE)


class Progress:
    """The rows of the objects that are awaited; a context manager."""

    def __init__(self, out: Console, now: Callable[[], float] = time.monotonic) -> None:
        """Draw on ``out``, by the clock ``now``."""
        self._out = out
        self._now = now
        self._rows: dict[Key, Row] = {}
        self._ready: dict[Key, float] = {}
        self._heard: dict[Key, _Heard] = {}
        # Told since it was ready: a container that crashes does so again and again.
        self._failures: dict[Key, set[str]] = {}
        self._since = self._now()
        self._drawing = False
        self._live = (
            Live(console=out, get_renderable=self._table, refresh_per_second=8, transient=True)
            if out.is_terminal
            else None
        )

    def __enter__(self) -> Self:
        """Begin to draw."""
        self._since = self._now()
        if self._live:
            self._drawing = True
            self._live.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _where: TracebackType | None,
    ) -> None:
        """Stop drawing; on a terminal the last table stays, as plain text."""
        self._drawing = False
        if self._live:
            self._live.stop()
            if self._rows:
                self._out.print(self._table())

    def update(self, rows: Sequence[Row]) -> None:
        """The rows as they are now."""
        for row in rows:
            if row.ready:
                self._ready.setdefault(row.key, self._now() - self._since)
            else:
                self._ready.pop(row.key, None)
            self._rows[row.key] = row
            if self._live is None:
                self._say(row)
        if self._live is not None:
            self._live.refresh()

    def _say(self, row: Row) -> None:
        """One plain line for what changed, and for what stays long enough to be worth one."""
        now = self._now()
        heard = self._heard.get(row.key)
        if heard is None or heard.row != row:
            heard = _Heard(row, now, heard.said if heard else None, heard.at if heard else now)
        # A dozen states fly by while things come up; a user wants to know what it hangs on.
        due = now - heard.since >= _STEADY or now - heard.at >= _AT_LEAST
        if row.settled:
            self._failures.pop(row.key, None)
        told = row.failed and row.message in self._failures.get(row.key, ())
        if heard.said != row and (row.settled or row.failed or due) and not told:
            if row.failed:
                self._failures.setdefault(row.key, set()).add(row.message)
            self._out.print(sentence(row, self._ready.get(row.key)))
            heard = _Heard(row, heard.since, row, now)
        self._heard[row.key] = heard

    def _table(self) -> Table:
        live = self._drawing
        # The message takes what the others leave: without a ratio rich would shorten all alike,
        # and a narrow terminal would show neither state nor time.
        table = Table(box=None, pad_edge=False, show_header=False, expand=live)
        names = max((len(str(key)) for key in self._rows), default=0)
        for width in (1, names, len("Waiting"), None):
            table.add_column(no_wrap=True, min_width=width)
        table.add_column(
            no_wrap=live, overflow="ellipsis" if live else "fold", ratio=1 if live else None
        )
        for row in self._rows.values():
            state = Text(row.state, style=STYLES.get(row.state, ""))
            moving = live and not row.settled
            table.add_row(
                Spinner("dots") if moving and not row.failed else "✓" if row.ready else "·",
                str(row.key),
                state,
                f"{self._ready[row.key]:.1f} s" if row.key in self._ready else "",
                _message(row) if live else Text(brief(row)),
            )
        return table


def _message(row: Row) -> RenderableType:
    """The message, with a bar before it while something is downloaded."""
    text = Text(brief(row))
    if row.progress is None:
        return text
    both = Table.grid(padding=(0, 1))
    both.add_column(width=_BAR)
    both.add_column(no_wrap=True, overflow="ellipsis")
    both.add_row(ProgressBar(total=1.0, completed=row.progress, width=_BAR), text)
    return both


class _Heard(NamedTuple):
    """What is known of a row in plain form: since when it is so, and what was said of it when."""

    row: Row
    since: float
    said: Row | None
    at: float


def sentence(row: Row, took: float | None = None) -> Text:
    """``Agent/assistant waits: …`` or ``Agent/assistant is ready (1.2 s)``."""
    text = Text(str(row.key))
    if row.ready:
        text.append(" is ready", style="green")
        return text.append(f" ({took:.1f} s)" if took is not None else "")
    verb = "is suspended" if row.suspended else "failed" if row.failed else "waits"
    text.append(f" {verb}", style=STYLES.get(row.state, ""))
    return text.append(f": {brief(row)}" if row.message else "")


def brief(row: Row) -> str:
    """The message, short enough for a line, unless it is the one to act on."""
    message = printable(row.message)
    return message if row.failed or len(message) <= _BRIEF else f"{message[: _BRIEF - 1]}…"


def table(headers: Iterable[str], rows: Iterable[Sequence[str | Text]]) -> Table:
    """A plain table: a header and columns, no lines."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for header in headers:
        made.add_column(header, overflow="fold")
    for row in rows:
        made.add_row(*row)
    return made
