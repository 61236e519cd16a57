"""``nnrp inspect``."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click

from nnrp.errors import NnrpError
from nnrp.runtimes.package import plain

from . import show


@click.command()
@click.argument("model", metavar="FILE-or-SOURCE")
@click.option("--try", "tries", is_flag=True, help="Load it with each runtime that reads it, each in a process of its own, and show which can.")
@click.option("--timeout", default=60.0, show_default=True, type=click.FloatRange(1, 86400), help="Seconds after which such a load is ended.")
@show.json_option
def inspect(model: str, tries: bool, timeout: float, as_json: bool) -> None:
    """Show what a model is: its format, what it takes and gives, its operator sets, its size, what it needs to run, and which runtimes read it.

    FILE-or-SOURCE is a model file or folder, a folder with VERSION/model.onnx, a model.toml, an archive, or a source as nnrp serve takes it, which is
    fetched. Nothing of it is loaded or run, unless --try says so: a runtime that reads the format may still lack an operator of this very model.
    """
    import nnrp
    from nnrp import repository

    file = Path(repository.only(model, None, None, ()).path)
    about = nnrp.inspect(file)
    about |= _readers(about["format"])
    if tries:
        about["tried"] = _tried(file, about["runtimes"], timeout)
    if as_json:
        show.document(about)
        return
    print(f"{plain(file.name)}: {about['format']}, {about['byte_size']:,} bytes")
    rows = [
        [kind, t["name"], t.get("datatype") or t.get("type", "unknown"), _shape(t)]
        for kind in ("input", "output")
        for t in (about["signature"] or {}).get(f"{kind}s", ())
    ]
    if rows:
        show.table(["", "name", "datatype", "shape"], rows)
        print()
    facts = {**{key: value for key, value in about.items() if key not in ("signature", "format", "byte_size", "needs", "tried")}, **about.get("needs", {})}
    for key, value in facts.items():
        if value is not None and (text := _text(value)):
            print(plain(f"{key.replace('_', ' '):15} {text}"))
    if tries:
        print()
        show.table(["runtime", "loads", "seconds", ""], [[one["runtime"], *_outcome(one)] for one in about["tried"]])


def _tried(file: Path, runtimes: list[str], timeout: float) -> list[dict[str, Any]]:
    """Load the model with each runtime, and tell whether and in how many seconds it did, or why not."""
    from nnrp.engine import Engine

    from .compare import progress_bar

    # A process of its own needs Linux.
    own: dict[str, Any] = {"isolation": "process"} if sys.platform == "linux" else {}
    tried = list[dict[str, Any]]()
    with progress_bar() as progress:
        for index, runtime in enumerate(runtimes):
            progress(f"loading with {runtime}", index / len(runtimes))
            began = time.monotonic()
            try:
                Engine(load_timeout=timeout).load(file, "model", runtime=runtime, **own)
            except NnrpError as error:
                tried.append({"runtime": runtime, "loaded": False, "error": {"message": error.message, "code": error.code, "reason": error.reason}})
            else:
                tried.append({"runtime": runtime, "loaded": True, "seconds": round(time.monotonic() - began, 3)})
    return tried


def _readers(format: str) -> dict[str, list[str]]:
    """Name the runtimes that read a format, in the order in which they are asked: those that are here, and those that could be."""
    from nnrp import runtimes

    found = [(one["name"], one["version"] and "error" not in one) for one in runtimes.readers(format)]
    return {"runtimes": [name for name, there in found if there], "not_installed": [name for name, there in found if not there]}


def _outcome(tried: dict[str, Any]) -> tuple[str, str, str]:
    if tried["loaded"]:
        return "yes", f"{tried['seconds']:.2f}", ""
    return "no", "", plain(f"{tried['error']['message']} ({tried['error']['reason']})")


def _shape(tensor: dict[str, Any]) -> str:
    if tensor.get("shape") is None:
        return "any rank"
    dims = ["?" if dim == -1 else str(dim) for dim in tensor["shape"]]
    return f"[{', '.join(dims)}]" + (" optional" if tensor.get("optional") else "")


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {text}" for key, item in value.items() if (text := _text(item)))
    if isinstance(value, list):
        return ", ".join(_text(item) for item in value)
    return str(value)
