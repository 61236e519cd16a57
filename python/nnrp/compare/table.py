"""A comparison for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nnrp.runtimes.package import plain

from .difference import Difference
from .report import VERDICTS, Report, Result

STYLES = {"reference": "bold", "same": "green", "within": "green", "differs": "bold red", "failed": "bold red"}
_COLUMNS = ("candidate", "verdict", "largest", "relative", "mean", "p50 ms", "p99 ms", "load s", "memory MB")
_AS_LONG_AS_IT_MUST_BE = 10_000


def write(report: Report, color: bool, width: int | None) -> str:
    """Write the table and what explains it, with color where the terminal has it."""
    console = Console(width=width or _AS_LONG_AS_IT_MUST_BE, markup=False, highlight=False, force_terminal=color, no_color=None if color else True)
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in _COLUMNS:
        grid.add_column(column, justify="left" if column in _COLUMNS[:2] else "right", overflow="fold", no_wrap=column == "verdict")
    for result in report.results:
        grid.add_row(*_row(result, result is report.fastest))
    with console.capture() as shown:
        console.print(grid)
        for heading, lines in _notes(report):
            console.print(Text(plain(heading), "bold"))
            for line in lines:
                console.print(Text(plain(f"  {line}")))
    return "\n".join(line.rstrip() for line in shown.get().strip("\n").splitlines())


def _row(result: Result, fastest: bool) -> Sequence[Text]:
    style = STYLES[result.verdict]
    errors = [number(result.largest(field)) if result.differences else "" for field in ("max_abs", "max_rel", "mean_abs")]
    p50, p99 = (f"{result.latency.at(50):.3f}", f"{result.latency.at(99):.3f}") if result.latency else ("", "")
    load = "" if result.load_s is None else f"{result.load_s:.2f}"
    memory = "" if result.memory_bytes is None else f"{result.memory_bytes / 1e6:.1f}"
    timed = Text(f"* {p50}", "bold green") if fastest else Text(p50)
    return [Text(plain(result.name)), Text(VERDICTS[result.verdict], style), *map(Text, errors), timed, *map(Text, (p99, load, memory))]


def _notes(report: Report) -> list[tuple[str, list[str]]]:
    found = [(result.name, explained(result)) for result in report.results]
    found.append(("inputs", list(report.about)))
    found += [("notes", list(report.notes))] * bool(report.notes)
    found += [("not as it was pinned", list(report.stale))] * bool(report.stale)
    timed = "errors are absolute, and relative to the largest element of the reference's output"
    return [*found, ("* fastest", [f"one caller after a warm-up; {timed}"])]


def explained(result: Result) -> list[str]:
    """Say what a candidate is and where it differs most, a line each."""
    lines = [told] if (told := described(result)) else []
    if result.failure is not None:
        lines.append(f"failed while {result.failure}")
        lines += [f"its last words: {line}" for line in result.failure.log.splitlines()[-1:]]
    lines += [differing(one) for one in result.differences if one.differing or one.note]
    lines += [] if result.repeatable else ["answers the same input differently from run to run: errors measure that too"]
    return lines + list(result.notes)


def described(result: Result) -> str:
    """Say what loaded the model, and how."""
    if not result.session:
        return ""
    settings = result.session.get("settings") or {}
    threads = f", {settings['threads']} threads" if isinstance(settings.get("threads"), int) else ""
    return f"{result.session['runtime']} {result.session['version']} on {result.session['device']}, {result.precision}{threads}"


def differing(one: Difference) -> str:
    """Say how far an output is off, and where most."""
    if one.note:
        return f"{one.output}: {one.note}"
    text = f"{one.output}: {one.differing:,} of {one.elements:,} differ"
    if one.max_rel is not None:
        text += f", by {number(one.max_rel)} at most, tolerance {number(one.tolerance)}"
    if one.where is not None:
        text += f"; case {one.where.case} {list(one.where.index)}: expected {_shown(one.where.reference)}, got {_shown(one.where.got)}"
    text += f"; {one.nonfinite:,} NaN or infinite on one side" * bool(one.nonfinite)
    return text + (f"; the largest of its row agrees in {one.top1:.1%}" if one.top1 is not None else "")


def number(value: float | None) -> str:
    """Write an error: scientific, or 0."""
    return "" if value is None else "0" if value == 0 else f"{value:.1e}"


def _shown(value: object) -> str:
    return f"{value:.9g}" if isinstance(value, float) else repr(value)
