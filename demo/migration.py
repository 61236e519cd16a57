"""The demo's last part: the same model, the same files, on three runtimes, and the proof that the numbers are still right."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import features
import numpy as np

import nnrp
from nnrp.cli import show
from nnrp.compare import Result, compare
from nnrp.compare.report import VERDICTS

#: Runtime → what it needs to be told; tract wants to know every dimension before it runs.
RUNTIMES = {"onnxruntime": "", "openvino": "", "tract": '{"shapes": {"INPUT": [1, 2048]}}'}


def move(model: Path, files: Sequence[Path], work: Path) -> list[str]:
    """Ask the model about the files on each runtime, and show errors and latencies side by side; returns what is wrong, a line each."""
    name = nnrp.inspect(model)["signature"]["inputs"][0]["name"]
    wanted = ",".join(runtime + options.replace("INPUT", name) for runtime, options in RUNTIMES.items())
    report = compare(model, wanted, inputs=_cases(name, files, work), seconds=0.5)
    show.table(["runtime", "numbers", "largest error", "same answers", "p50 ms", "p99 ms", "load s", "memory MB"], [_row(result) for result in report.results])
    wrong = [f"{result.name}: {result.failure or result.verdict}" for result in report.results if result.verdict in ("failed", "differs")]
    return wrong + [f"{result.name}: other answers" for result in report.results if _agreeing(result) < 1]


def _cases(name: str, files: Sequence[Path], work: Path) -> Path:
    cases = work / "cases"
    shutil.rmtree(cases, ignore_errors=True)
    cases.mkdir(parents=True)
    for path in files:
        np.savez(cases / f"{path.name}.npz", **{name: features.of_file(path)})
    return cases


def _agreeing(result: Result) -> float:
    """For how many files the most probable answer is the reference's, as a share."""
    return min((one.top1 for one in result.differences if one.top1 is not None), default=1.0)


def _row(result: Result) -> list[str]:
    if result.latency is None or result.load_s is None:
        return [result.name, result.verdict, *[""] * 6]
    error, same = ("", "") if result.is_reference else (f"{result.largest('max_abs') or 0:.1e}", f"{_agreeing(result):.0%}")
    cost = [f"{result.latency.at(50):.1f}", f"{result.latency.at(99):.1f}", f"{result.load_s:.2f}", f"{(result.memory_bytes or 0) / 1e6:.0f}"]
    return [result.candidate.choice.runtime or result.name, VERDICTS[result.verdict], error, same, *cost]
