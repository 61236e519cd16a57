"""The table of docs/runtimes/README.md: which runtime gives the right answer for which model, and why the others do not."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs/runtimes/README.md"
HEAD = "| model | format | right answers on | not on |\n|---|---|---|---|\n"
_BEGIN, _END = "<!-- real models: begin -->\n", "<!-- real models: end -->\n"

#: (model, format) → runtime → "right", or the reason why there is no answer.
Outcomes = dict[tuple[str, str], dict[str, str]]


def read() -> Outcomes:
    """What the page says."""
    told: Outcomes = {}
    for line in _region().splitlines()[2:]:
        name, format, right, wrong = (cell.strip() for cell in line.strip("|").split("|"))
        row = told[name, format] = dict.fromkeys(re.findall(r"\w[\w-]*", right), "right")
        row |= dict(re.findall(r"(\w[\w-]*) \((\w+)\)", wrong))
    return told


def write(outcomes: Outcomes, tried: set[str]) -> None:
    """Put what was seen into the page; what other environments saw stays."""
    table = read()
    for row, seen in outcomes.items():
        kept = {runtime: how for runtime, how in table.get(row, {}).items() if runtime not in tried}
        table[row] = kept | seen
    lines = [_line(*row, seen) for row, seen in table.items()]
    text = PAGE.read_text()
    PAGE.write_text(text.replace(_BEGIN + _region() + _END, _BEGIN + HEAD + "".join(lines) + _END))


def _region() -> str:
    return PAGE.read_text().partition(_BEGIN)[2].partition(_END)[0]


def _line(name: str, format: str, seen: dict[str, str]) -> str:
    right = ", ".join(sorted(runtime for runtime, how in seen.items() if how == "right"))
    wrong = ", ".join(f"{runtime} ({how})" for runtime, how in sorted(seen.items()) if how != "right")
    return f"| {name} | {format} | {right} | {wrong} |\n"
