"""``nnrp convert``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nnrp.errors import InvalidOption, NnrpError

from . import show
from .compare import plan_of, progress_bar

if TYPE_CHECKING:
    from nnrp.convert import Converted

_WAYS = ["ir", "fp16", "int8-dynamic", "int8", "int4", "ort", "onnx", "tflite"]


@click.command()
@click.argument("model", metavar="IN", type=click.Path(path_type=Path))
@click.option("--to", required=True, type=click.Choice(_WAYS), help="What it is to become.")
@click.option("--output", "-o", type=click.Path(path_type=Path), metavar="FILE", help="Where to write it.  [default: beside IN]")
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@click.option("--calibrate", type=click.Path(path_type=Path), metavar="FOLDER", help="For int8: one .npz, .npy or .json of real inputs for each case.")
@click.option("--options", default="{}", metavar="JSON", help="The converter's own options, one JSON object.")
@click.option("--no-compare", is_flag=True, help="Only convert.")
@click.option(
    "--runtimes", "-r", multiple=True, metavar="A,B", help="Compare on these, as `nnrp compare` takes them.  [default: the first that reads each file]"
)
@click.option("--inputs", "-i", type=click.Path(path_type=Path), metavar="FOLDER", help="Compare with these inputs.")
@click.option("--random", "-n", type=click.IntRange(1, 10_000), metavar="N", help="Compare with random inputs.  [default: 4]")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of the random inputs.")
@click.option("--shape", "shapes", multiple=True, metavar="INPUT=1x3x224x224", help="Its shape, where the model leaves it open.")
@click.option("--range", "ranges", multiple=True, metavar="INPUT=0:255", help="Its random values.")
@click.option("--name", "names", multiple=True, metavar="THERE=HERE", help="An input or output of the result is HERE in IN.")
@click.option("--tolerance", "-t", multiple=True, metavar="[OUTPUT=]1e-3", help="Largest error.  [default: that of what it becomes]")
@click.option("--seconds", default=0.5, show_default=True, type=click.FloatRange(0, 3600), help="How long each latency is measured.")
@click.option("--timeout", default=600.0, show_default=True, type=click.FloatRange(1, 86400), help="Seconds after which a candidate is ended.")
@show.json_option
def convert(
    model: Path, to: str, output: Path | None, force: bool, calibrate: Path | None, options: str, no_compare: bool, as_json: bool, **words: Any
) -> None:
    """Convert a model to another format or precision, and compare the result with it.

    Ends as `nnrp compare` does: with 0 when the numbers are the same or within tolerance, with 1 when they differ, with 2 when the conversion or
    a run failed. The result is written whole or not at all, and stays where it was written also when its numbers differ.

    \b
    Examples:
      nnrp convert model.onnx --to ir
      nnrp convert model.onnx --to int8 --calibrate cases/ --inputs other-cases/ --tolerance 0.05
      nnrp convert saved_model/ --to ir --output net.xml --no-compare
    """  # noqa: D301 - the backspace is click's mark for lines that stay as they are
    from nnrp.convert import compared
    from nnrp.convert import convert as carry_out

    try:
        with progress_bar() as progress:
            made = carry_out(model, to, output, calibrate=calibrate, options=_options(options), force=force, progress=progress)
            if not no_compare:
                defaults = {"precision": (), "reference": None}
                made = compared(
                    made, lambda files, runtimes: plan_of(files, defaults | words | {"runtimes": (runtimes,)}), ",".join(words["runtimes"]), progress
                )
    except NnrpError as error:
        show.failure(error)
        sys.exit(2)
    _show(made, as_json)
    sys.exit(made.report.status if made.report else 0)


def _options(text: str) -> dict[str, Any]:
    try:
        options = json.loads(text)
    except ValueError as error:
        raise InvalidOption(f"--options: expected one JSON object, got {text!r:.96}: {error}") from error
    except RecursionError:
        raise InvalidOption("--options: expected one JSON object, got some that is nested too deeply") from None
    if not isinstance(options, dict):
        raise InvalidOption(f"--options: expected one JSON object, got {text!r:.96}")
    return options


def _show(made: Converted, as_json: bool) -> None:
    from nnrp.repository import parts

    if as_json:
        show.document(made.to_json())
        return
    sources = [made.source, *parts.beside(made.source)] if made.source.is_file() else made.source.rglob("*")
    before = sum(file.stat().st_size for file in sources if file.is_file())
    after = sum(file.stat().st_size for file in made.files)
    print(f"{made.source} → {', '.join(map(str, made.files))}")
    print(f"{made.format} to {made.to} by {made.converter} in {made.seconds:.1f} s, {before / 1e6:.1f} MB to {after / 1e6:.1f} MB\n")
    if made.report:
        print(made.report.table(color=sys.stdout.isatty()))
