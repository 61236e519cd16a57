"""``nnrp compare``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nnrp.errors import InvalidOption, NnrpError

from . import show

if TYPE_CHECKING:
    from nnrp.compare import Report
    from nnrp.compare.run import Plan, Progress


@click.command()
@click.argument("models", metavar="MODEL…", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--runtimes", "-r", multiple=True, metavar="A,B", help="[LABEL=]RUNTIME[@DEVICE][{OPTIONS}], …  [default: every installed one that reads the file]"
)
@click.option("--precision", "-p", multiple=True, metavar="P,Q", help="strict, bf16, fp16, int8, fast.  [default: strict]")
@click.option("--inputs", "-i", type=click.Path(path_type=Path), metavar="FOLDER", help="One .npz, .npy or .json for each case.")
@click.option("--random", "-n", type=click.IntRange(1, 10_000), metavar="N", help="Random cases made from the signature.  [default: 4]")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of the random cases.")
@click.option("--shape", "shapes", multiple=True, metavar="INPUT=1x3x224x224", help="Its shape, where the model leaves it open.")
@click.option("--range", "ranges", multiple=True, metavar="INPUT=0:255", help="Its random values.")
@click.option("--name", "names", multiple=True, metavar="THERE=HERE", help="An input or output of another file is HERE in the reference's.")
@click.option("--tolerance", "-t", multiple=True, metavar="[OUTPUT=]1e-3", help="Largest error, relative to the reference's largest element.")
@click.option("--reference", metavar="NAME", help="A candidate's name, label, runtime or file.  [default: the first]")
@click.option("--seconds", default=2.0, show_default=True, type=click.FloatRange(0, 3600), help="How long each latency is measured.")
@click.option("--timeout", default=600.0, show_default=True, type=click.FloatRange(1, 86400), help="Seconds after which a candidate is ended.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Also write a page with charts; it needs no network.")
@click.option("--pin", is_flag=True, help="Keep the verdict in model.toml beside the model, unless something differs.")
@click.option("--check", is_flag=True, help="Compare with what is pinned there: same reference, cases and tolerances.")
@show.json_option
def compare(models: tuple[Path, ...], html: Path | None, pin: bool, check: bool, as_json: bool, **words: Any) -> None:
    """Run the same inputs on several runtimes, and show whether the numbers are still right and what each costs.

    Several MODEL files are the same net in several formats. Every file × runtime × precision runs in a process of its own and is measured
    against the reference. Ends with 0 when all are the same or within tolerance, with 1 when one differs or is not what was pinned, with 2
    when one failed or the command was wrong.

    \b
    Examples:
      nnrp compare model.onnx --runtimes onnxruntime,openvino --precision strict,bf16
      nnrp compare model.onnx --runtimes 'plain=onnxruntime{"graph_optimization_level":"disable"},onnxruntime'
      nnrp compare model.onnx model.tflite --inputs cases/ --html report.html --pin
      nnrp compare model.onnx --check --runtimes openvino
    """  # noqa: D301 - the backspace is click's mark for lines that stay as they are
    from nnrp.compare import carry_out
    from nnrp.compare import pin as pins

    try:
        plan = plan_of(models, words)
        if html is not None and not html.parent.is_dir():
            raise InvalidOption(f"--html {html}: no folder '{html.parent}'")
        pinned = pins.read(plan.paths) if check else None
        own = words["random"] is not None or bool(words["seed"] or plan.shapes or plan.ranges)
        with progress_bar() as progress:
            report = carry_out(pinned.resume(plan, own) if pinned else plan, progress)
        if pinned:
            report = pinned.judge(report)
        if html is not None:
            _write(html, report)
        kept = pins.write(report) if pin and report.status == 0 else None
    except NnrpError as error:
        show.failure(error)
        sys.exit(2)
    _show(report, as_json)
    if pin and not as_json:
        print(f"pinned in {kept}" if kept else "not pinned: only what is the same or within tolerance is")
    sys.exit(report.status)


def plan_of(models: tuple[Path, ...], words: dict[str, Any]) -> Plan:
    """Make a plan from the words of a command."""
    from nnrp.compare import paths, tolerance
    from nnrp.compare.candidate import choices, precisions
    from nnrp.compare.run import Plan

    plan = Plan(paths(models), tuple(choices(words["runtimes"])), tuple(precisions(words["precision"] or "strict")))
    given = {option: dict(_pair(text, option) for text in words[option + "s"]) for option in ("shape", "range", "name")}
    return replace(
        plan,
        inputs=words["inputs"],
        random=words["random"] or plan.random,
        seed=words["seed"],
        shapes={name: _numbers(text, "x", int, f"shape {name}") for name, text in given["shape"].items()},
        ranges={name: _limits(text, name) for name, text in given["range"].items()},
        names=given["name"],
        tolerances=tolerance.read(words["tolerance"]),
        reference=words["reference"],
        seconds=words["seconds"],
        timeout_s=words["timeout"],
    )


def _pair(text: str, option: str) -> tuple[str, str]:
    name, sign, value = text.rpartition("=")
    if not sign or not name or not value:
        raise InvalidOption(f"--{option} {text}: expected NAME=VALUE")
    return name, value


def _numbers(text: str, between: str, kind: type[Any], option: str) -> tuple[Any, ...]:
    try:
        return tuple(kind(part) for part in text.split(between))
    except ValueError as error:
        raise InvalidOption(f"--{option}: expected numbers with '{between}' between them, got '{text}'") from error


def _limits(text: str, name: str) -> tuple[float, float]:
    both = _numbers(text, ":", float, f"range {name}")
    if len(both) != 2 or not both[0] <= both[1] or not all(abs(limit) < float("inf") for limit in both):
        raise InvalidOption(f"--range {name}: expected LOW:HIGH, got '{text}'")
    return both[0], both[1]


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Show a bar on a terminal, nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (BarColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=1.0)
        yield lambda what, share: bar.update(task, description=what, completed=share)


def _write(file: Path, report: Report) -> None:
    try:
        file.write_text(report.html(), encoding="utf-8")
    except OSError as error:
        raise InvalidOption(f"--html {file}: cannot be written: {error.strerror}") from error


def _show(report: Report, as_json: bool) -> None:
    if as_json:
        show.document(report.to_json())
        return
    terminal = sys.stdout.isatty()
    columns = None
    if terminal:
        from shutil import get_terminal_size

        columns = get_terminal_size().columns
    print(report.table(color=terminal, width=columns))
