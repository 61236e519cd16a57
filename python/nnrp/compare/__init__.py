"""Whether a model may move: the same inputs on several runtimes, precisions or formats, with errors and latencies side by side.

    report = compare("model.onnx", "onnxruntime,openvino", precision="strict,bf16")
    print(report.table())
    assert report.status == 0

Each candidate runs in a process of its own, so that a runtime that crashes costs its own row. `nnrp compare` is this on the command line;
`nnrp.compare.pin` keeps a verdict beside the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from nnrp.errors import FileNotFound, InvalidOption

from .report import Report, Result

if TYPE_CHECKING:
    from .run import Plan, Progress

__all__ = ["Options", "Report", "Result", "compare"]

StrPath = str | PathLike[str]


class Options(TypedDict, total=False):
    """How to compare.

    Attributes:
        precision: `strict`, `bf16`, `fp16`, `int8`, `fast`, several with commas.
        inputs: a folder with one .npz, .npy or .json for each case; default: random cases.
        random: how many random cases; default 4.
        seed: of the random cases.
        shapes: input → its shape, where the model leaves it open.
        ranges: input → the least and the largest of its random values.
        names: name of an input or output in another file → its name in the reference's; default: by name, else as shapes and datatypes tell,
            else by order.
        tolerance: largest error relative to the reference's largest element; for all outputs with fractions, or by name ("" for all).
        reference: a candidate's name, label, runtime or file; default: the first.
        seconds: how long each candidate's latency is measured; default 2.
        timeout: seconds after which a candidate is ended; default 600.
    """

    precision: str | Sequence[str]
    inputs: StrPath | None
    random: int
    seed: int
    shapes: Mapping[str, Sequence[int]]
    ranges: Mapping[str, tuple[float, float]]
    names: Mapping[str, str]
    tolerance: float | Mapping[str, float]
    reference: str | None
    seconds: float
    timeout: float


def compare(models: StrPath | Sequence[StrPath], runtimes: str | Sequence[str] = (), *, progress: Progress | None = None, **options: Unpack[Options]) -> Report:
    """Run the same inputs through every candidate, each file × runtime × precision, and measure them against one.

    Args:
        models: a model file, or several files of the same net.
        runtimes: `[LABEL=]RUNTIME[@DEVICE][{OPTIONS}]`, several with commas; default: every installed one that reads the file.
        progress: is told what happens and the share that is done.
        options: as `Options` says.

    Raises:
        NnrpError: what was asked makes no sense. What goes wrong with a candidate is its result, and not raised.
    """
    from .candidate import choices, precisions
    from .run import Plan

    asked: dict[str, Any] = dict(options)
    exact, timeout_s = precisions(asked.pop("precision", "strict")), asked.pop("timeout", Plan.timeout_s)
    if "tolerance" in asked:
        given = asked.pop("tolerance")
        asked["tolerances"] = dict(given) if isinstance(given, Mapping) else {"": float(given)}
    if asked.get("inputs") is not None:
        asked["inputs"] = Path(asked["inputs"])
    return carry_out(Plan(paths(models), tuple(choices(runtimes)), tuple(exact), timeout_s=timeout_s, **asked), progress)


def carry_out(plan: Plan, progress: Progress | None = None) -> Report:
    """Compare as planned."""
    from .run import run

    bounds = (("random", plan.random, 1, 10_000), ("seconds", plan.seconds, 0, 3_600), ("timeout", plan.timeout_s, 1, 86_400))
    for option, value, least, most in bounds:
        if not least <= value <= most:
            raise InvalidOption(f"{option}: expected {least} to {most}, got {value}")
    if any(not 0 <= one < float("inf") for one in plan.tolerances.values()):
        raise InvalidOption(f"tolerance: expected numbers from 0, got {dict(plan.tolerances)}")
    return run(plan, progress or (lambda what, share: None))


def paths(models: StrPath | Sequence[StrPath]) -> tuple[Path, ...]:
    """List the model files; each must be there."""
    found = tuple(Path(one) for one in ([models] if isinstance(models, str | PathLike) else models))
    missing = [path for path in found if not path.exists()]
    if missing or not found:
        raise FileNotFound(f"no file or folder '{missing[0]}'" if missing else "models: expected a model file, got none")
    return found
