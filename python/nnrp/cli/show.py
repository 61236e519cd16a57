"""What commands print: aligned tables for people, JSON for machines."""

from __future__ import annotations

import json
import re
import signal
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from nnrp.errors import NnrpError
from nnrp.runtimes.package import plain

if TYPE_CHECKING:
    from nnrp import Model

#: What JSON leaves as it is, and a terminal takes for more than text.
_CONTROL = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
#: Most tensors of a signature that a table shows; ``nnrp inspect`` and ``--json`` tell them all.
SHOWN = 4

#: Every command has it.
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines instead.")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> None:
    """Print rows under their columns; numbers are aligned right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    # A name in a file may be anything.
    lines = [[plain(str(cell)) for cell in row] for row in rows]
    grid = Table(*columns, title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for index, column in enumerate(grid.columns):
        cells = [line[index] for line in lines]
        column.justify = "right" if cells and all(cell.replace(".", "", 1).isdigit() for cell in cells) else "left"
        column.overflow = "fold"
    for line in lines:
        grid.add_row(*line)
    # A pipe has no width: then a line is as long as it must be.
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console = Console(markup=False, highlight=False, width=10_000)
    with console.capture() as shown:
        console.print(grid)
    print("\n".join(line.rstrip() for line in shown.get().strip("\n").splitlines()))


def failure(error: NnrpError) -> None:
    """Print an error to stderr: one line, or one JSON object with ``--json``."""
    if "--json" in sys.argv:
        print(json.dumps({"error": error.message, "code": error.code, "reason": error.reason, "details": error.details}), file=sys.stderr)
    else:
        # A server's or a plug-in's text may be anything.
        print(plain(f"nnrp: {error.message} ({error.code}, {error.reason})"), file=sys.stderr)


def stop_at_once() -> None:
    """Let Ctrl-C end this process, whatever it waits for; for commands that leave nothing to be tidied up."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def document(value: Any) -> None:
    """Print one JSON document."""
    print(_CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, indent=2, ensure_ascii=False)))


def session(model: Model) -> dict[str, Any]:
    """Tell how a model of this process was loaded: by what, on which device, with which settings, and why not by those that were asked before."""
    loaded = model.session
    if loaded is None:
        return {}
    return {"runtime": loaded.runtime, "version": loaded.version, "device": loaded.device, "settings": loaded.settings, "chosen": loaded.chosen}


def not_taken(model: Model) -> list[str]:
    """Say in a line each why a runtime that was asked before did not load a model of this process."""
    loaded = model.session
    passed_over = loaded.chosen["not_taken"] if loaded else ()
    return [plain(f"Note: '{model.name}' runs on {loaded.runtime}: {one['message']} ({one['reason']})") for one in passed_over if loaded]


def signature(tensors: Sequence[Any]) -> str:
    """Write inputs or outputs in one line: ``x FP32 [-1, 16], n INT64 []``; of many the first, and how many more there are."""
    first = tensors if len(tensors) <= SHOWN + 1 else tensors[:SHOWN]
    words = [f"{tensor['name']} {tensor['datatype']} {tensor['shape']}" for tensor in first]
    return ", ".join(words + [f"… {len(tensors) - SHOWN} more"] * (len(first) < len(tensors)))
