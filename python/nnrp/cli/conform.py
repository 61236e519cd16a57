"""``nnrp conform``."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nnrp.errors import FileNotFound, InvalidOption, NnrpError

from . import show

if TYPE_CHECKING:
    from nnrp.testing.run import Progress


@click.group()
def conform() -> None:
    """Check that something keeps the specification."""


@conform.command()
@click.argument("name")
@click.option("--plugin", "plugins", multiple=True, type=click.Path(path_type=Path), metavar="FILE", help="A shared library that brings it.")
@click.option("--models", type=click.Path(path_type=Path), metavar="FILE.toml", help="A table for each role: path, options, ask, then, expected.")
@click.option("--writer", metavar="MODULE:FUNCTION", help="What makes the models.  [default: what the runtime's package brings, else ONNX]")
@click.option("--model", type=click.Path(path_type=Path), metavar="FILE", help="The model whose numbers are compared.  [default: one that is made]")
@click.option("--reference", metavar="NAME|FILE.npz", help="The runtime that is right, or inputs and expected outputs.  [default: onnxruntime]")
@click.option("--tolerance", type=click.FloatRange(0), metavar="1e-3", help="Largest error, relative to the reference's largest element.")
@click.option("--quirk", "quirks", multiple=True, metavar="CHECK=WHY", help="A check that it is known not to pass.")
@click.option("--only", multiple=True, metavar="GROUP|CHECK", help="Only these.")
@click.option("--thorough", is_flag=True, help="1,000 loads must leave nothing behind, in place of 100.")
@click.option("--isolation", default="none", show_default=True, type=click.Choice(["none", "process"]), help="A process for each of its models?")
@click.option("--isolate/--no-isolate", default=True, show_default=True, help="In a process of its own, so that a crash is told as a failure.")
@click.option("--timeout", default=300.0, show_default=True, type=click.FloatRange(1, 86400), help="Seconds after which a check is ended there.")
@show.json_option
def runtime(name: str, as_json: bool, thorough: bool, **words: Any) -> None:
    """Check that the runtime NAME keeps the contract, and show the clause of the specification behind each check.

    For a runtime that reads ONNX the models are made (pip install onnx). Ends with 0 when nothing failed but declared quirks, with 1 when
    something did, with 2 when the command was wrong.

    \b
    Examples:
      nnrp conform runtime openvino
      nnrp conform runtime sample --plugin libsample.so --models roles.toml
      nnrp conform runtime mine --only datatypes --quirk 'datatypes.fp64=computes in FP32'
    """  # noqa: D301 - the backspace is click's mark for lines that stay as they are
    from nnrp.testing import check_runtime
    from nnrp.testing.run import LOADS, THOROUGH

    try:
        words["models"] = _roles(words["models"])
        words["reference"] = _numbers(words["models"], words.pop("model"), words["reference"])
        words["quirks"] = dict(_quirk(text) for text in words["quirks"])
        with _progress() as progress:
            report = check_runtime(name, loads=THOROUGH if thorough else LOADS, progress=progress, **words)
    except NnrpError as error:
        show.failure(error)
        sys.exit(2)
    if as_json:
        show.document(report.to_json())
    else:
        print(report.table(color=sys.stdout.isatty(), width=_width()))
    sys.exit(report.status)


def _roles(file: Path | None) -> dict[str, dict[str, Any]]:
    """Read what plays which role; paths are beside the file."""
    if file is None:
        return {}
    try:
        roles = tomllib.loads(_there(file).read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise InvalidOption(f"--models {file}: {error}") from error
    except RecursionError:
        raise InvalidOption(f"--models {file}: it is nested too deeply") from None
    for role, spec in roles.items():
        if not isinstance(spec, dict) or not isinstance(spec.get("path"), str):
            raise InvalidOption(f"--models {file}: expected a table [{role}] with a path")
        for key in ("path", "ask", "then", "expected"):
            if isinstance(spec.get(key), str) and (file.parent / spec[key]).exists():
                spec[key] = file.parent / spec[key]
    return roles


def _numbers(models: dict[str, dict[str, Any]], model: Path | None, reference: str | None) -> str | None:
    """Say in the role `numerics` which model's numbers are compared, and give the runtime that they are compared with."""
    if model is not None:
        models["numerics"] = {"path": _there(model)}
    if reference is None or not reference.endswith(".npz"):
        return reference
    if "numerics" not in models:
        raise InvalidOption(f"--reference {reference}: expected --model too, whose outputs these are")
    models["numerics"]["expected"] = _there(Path(reference))
    return None


def _there(file: Path) -> Path:
    if not file.is_file():
        raise FileNotFound(f"no file '{file}'")
    return file


def _quirk(text: str) -> tuple[str, str]:
    check, sign, why = text.partition("=")
    if not sign or not why:
        raise InvalidOption(f"--quirk {text}: expected CHECK=WHY")
    return check, why


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar on a terminal, nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (BarColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=1.0)
        yield lambda what, share: bar.update(task, description=what, completed=share)


def _width() -> int | None:
    if not sys.stdout.isatty():
        return None
    from shutil import get_terminal_size

    return get_terminal_size().columns
