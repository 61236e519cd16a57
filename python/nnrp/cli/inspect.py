"""``nnrp inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from nnrp.errors import InvalidOption

from . import show


@click.command()
@click.argument("model", metavar="FILE-or-SOURCE")
@show.json_option
def inspect(model: str, as_json: bool) -> None:
    """Show what a model is: its format, what it takes and gives, its operator sets, its size, what it needs to run, and which runtimes read it.

    FILE-or-SOURCE is a model file or folder, a model.toml, or a source as nnrp serve takes it, which is fetched.
    """
    import nnrp

    file = _place(model)
    about = nnrp.inspect(file)
    about |= _readers(about["format"])
    if as_json:
        show.document(about)
        return
    print(f"{file.name}: {about['format']}, {about['byte_size']:,} bytes")
    rows = [
        [kind, t["name"], t.get("datatype") or t.get("type", "unknown"), _shape(t)]
        for kind in ("input", "output")
        for t in (about["signature"] or {}).get(f"{kind}s", ())
    ]
    if rows:
        show.table(["", "name", "datatype", "shape"], rows)
        print()
    facts = {**{key: value for key, value in about.items() if key not in ("signature", "format", "byte_size", "needs")}, **about.get("needs", {})}
    for key, value in facts.items():
        if value not in ("", None, [], {}):
            print(f"{key.replace('_', ' '):15} {_text(value)}")


def _place(model: str) -> Path:
    """The file or folder that is meant; what is none here is looked for no further."""
    from nnrp import repository
    from nnrp.repository import sources

    if not (sources.is_one(model) or model.endswith(".toml")):
        return Path(model)
    found = repository.find(model)
    if len(found) != 1:
        raise InvalidOption(f"inspect: expected one model, got {len(found)}: {', '.join(f'{one.name} {one.version}' for one in found[:8])}")
    return Path(found[0].path)


def _readers(format: str) -> dict[str, list[str]]:
    """Name the runtimes that read a format, in the order in which they are asked: those that are here, and those that could be."""
    from nnrp import runtimes

    found = [(one["name"], one["version"] and "error" not in one) for one in runtimes.readers(format)]
    return {"runtimes": [name for name, there in found if there], "not_installed": [name for name, there in found if not there]}


def _shape(tensor: dict[str, Any]) -> str:
    if tensor.get("shape") is None:
        return "any rank"
    dims = ["?" if dim == -1 else str(dim) for dim in tensor["shape"]]
    return f"[{', '.join(dims)}]" + (" optional" if tensor.get("optional") else "")


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(_text(item) for item in value)
    return str(value)
