"""What commands print: aligned tables for people, JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead.")]


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> None:
    """Print rows under their columns; numbers are aligned right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    rows = [[cell if isinstance(cell, str) else str(cell) for cell in row] for row in rows]
    grid = Table(*columns, title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for index, column in enumerate(grid.columns):
        cells = [row[index] for row in rows]
        column.justify = "right" if cells and all(cell.replace(".", "", 1).isdigit() for cell in cells) else "left"
        column.overflow = "fold"
    for row in rows:
        grid.add_row(*row)
    # A pipe has no width: then a line is as long as it must be.
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console = Console(markup=False, highlight=False, width=10_000)
    with console.capture() as lines:
        console.print(grid)
    print("\n".join(line.rstrip() for line in lines.get().strip("\n").splitlines()))


def as_json(value: Any) -> None:
    """Print one JSON document."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def signature(tensors: Iterable[Any]) -> str:
    """Write inputs or outputs in one line: ``x FP32 [-1, 16], n INT64 []``."""
    return ", ".join(f"{tensor['name']} {tensor['datatype']} {tensor['shape']}" for tensor in tensors)
