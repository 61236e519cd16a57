"""``nnrp inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from . import show


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@show.json_option
def inspect(file: Path, as_json: bool) -> None:
    """Show what a model file takes and gives, its operator sets, its size and what it needs to run."""
    import nnrp

    about = nnrp.inspect(file)
    if as_json:
        show.document(about)
        return
    print(f"{file.name}: {about['format']}, {about['byte_size']:,} bytes")
    rows = [[kind, t["name"], t["datatype"], _shape(t)] for kind in ("input", "output") for t in about["signature"][f"{kind}s"]]
    show.table(["", "name", "datatype", "shape"], rows)
    print()
    facts = {**{key: value for key, value in about.items() if key not in ("signature", "format", "byte_size", "needs")}, **about["needs"]}
    for key, value in facts.items():
        if value not in ("", None, [], {}):
            print(f"{key.replace('_', ' '):15} {_text(value)}")


def _shape(tensor: dict[str, Any]) -> str:
    if tensor["shape"] is None:
        return "any rank"
    dims = ["?" if dim == -1 else str(dim) for dim in tensor["shape"]]
    return f"[{', '.join(dims)}]" + (" optional" if tensor.get("optional") else "")


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(_text(item) for item in value)
    return str(value)
