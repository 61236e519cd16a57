"""Results as tables: what was measured, beside whom, against which goal."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

NOT_BUILT = "not built"


@dataclass(frozen=True)
class Goal:
    """What a row must show: its ratio, its value, or its excess over the floor is at most `limit`."""

    of: Literal["ratio", "value", "excess"]
    limit: float
    text: str


@dataclass(frozen=True)
class Row:
    """One case. `ours`, `peer` and `floor` are in `unit`; None means not measured (ours: not built)."""

    case: str
    unit: str
    ours: float | None
    peer: float | None = None
    floor: float | None = None
    ratio: float | None = None
    goal: Goal | None = None
    errors: int = 0
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None when it has none or cannot be judged."""
        judged = self._judged()
        if self.goal is None or judged is None:
            return None
        return judged <= self.goal.limit and self.errors == 0

    def _judged(self) -> float | None:
        if self.goal is None or self.ours is None:
            return None
        if self.goal.of == "ratio":
            return self.ratio
        if self.goal.of == "value":
            return self.ours
        return None if self.floor is None else self.ours - self.floor


@dataclass(frozen=True)
class Table:
    """Rows that share a peer and a floor, or have no floor."""

    name: str
    peer: str
    floor: str | None
    rows: list[Row]

    def to_json(self) -> dict[str, Any]:
        """Give the table with every round's figures."""
        rows = [{**asdict(row), "met": row.met} for row in self.rows]
        return {"name": self.name, "peer": self.peer, "floor": self.floor, "rows": rows}

    def to_text(self) -> str:
        """Give the table in aligned columns, for a terminal."""
        lines = self._lines()
        widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
        text = [self.name]
        for line in lines:
            cells = [cell.rjust(width) if title in self._numbers() else cell.ljust(width) for title, cell, width in zip(lines[0], line, widths, strict=True)]
            text.append("  ".join(cells).rstrip())
        return "\n".join(text)

    def to_markdown(self) -> str:
        """Give the table for RESULTS.md."""
        lines = self._lines()
        rule = ["---:" if title in self._numbers() else "---" for title in lines[0]]
        lines.insert(1, rule)
        return "\n".join([f"## {self.name}", "", *("| " + " | ".join(line) + " |" for line in lines), ""])

    def _numbers(self) -> list[str]:
        return ["ours", self.peer, *([self.floor] if self.floor else []), "ratio"]

    def _lines(self) -> list[list[str]]:
        titles = ["case", "unit", *self._numbers(), "goal", "met"]
        return [titles, *(_cells(row, self.floor is not None) for row in self.rows)]


def median_ratio(over: Sequence[float], under: Sequence[float]) -> float | None:
    """Give the median of the rounds' own ratios, so that noise that lasts longer than a round cancels out."""
    if not over or not under:
        return None
    # A peer that ended in the middle of a round has no figure there.
    ratios = [o / u for o, u in zip(over, under, strict=True) if u]
    return statistics.median(ratios) if ratios else None


def median(values: Sequence[float]) -> float | None:
    """Give the median, or None of nothing."""
    return statistics.median(values) if values else None


def least(values: Sequence[float]) -> float | None:
    """Give the least, or None of nothing."""
    return min(values, default=None)


def worst(values: Sequence[float]) -> float | None:
    """Give the most, or None of nothing."""
    return max(values, default=None)


def _cells(row: Row, with_floor: bool) -> list[str]:
    met = {True: "yes", False: "no", None: "–"}[row.met]
    return [
        row.case,
        row.unit,
        NOT_BUILT if row.ours is None else _number(row.ours),
        _number(row.peer),
        *([_number(row.floor)] if with_floor else []),
        _number(row.ratio),
        row.goal.text if row.goal else "",
        f"{met}, {row.errors} errors" if row.errors else met,
    ]


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    places = 0 if value >= 100 or value == 0 else 1 if value >= 10 else 2
    return f"{value:,.{places}f}"
