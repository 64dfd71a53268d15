"""What was measured beside what was wanted, as Markdown."""

from dataclasses import dataclass

HEAD = "| | measured | target | |\n|---|---:|---:|---|"


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        what: Of what.
        value: What was measured.
        target: What is wanted; None for a figure that only tells.
        unit: Of both.
        at_least: Whether the target is the least and not the most.
    """

    what: str
    value: float
    target: float | None = None
    unit: str = "ms"
    at_least: bool = False

    @property
    def missed(self) -> bool:
        if self.target is None:
            return False
        return self.value < self.target if self.at_least else self.value > self.target

    def __str__(self) -> str:
        sign = "≥" if self.at_least else "≤"
        wanted = "" if self.target is None else f"{sign} {self.target:,g} {self.unit}"
        verdict = "" if self.target is None else "missed" if self.missed else "met"
        digits = 0 if abs(self.value) >= 1000 else 2 if abs(self.value) < 10 else 1
        return f"| {self.what} | {self.value:,.{digits}f} {self.unit} | {wanted} | {verdict} |"


def report(rows: list[Row]) -> int:
    """Print the rows; returns the exit code."""
    print(HEAD)
    for row in rows:
        print(row)
    return 1 if any(row.missed for row in rows) else 0
