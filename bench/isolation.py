"""A model in a process of its own: its round trip beside a bare futex ping-pong, and its answers beside those of the same model in this process."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

from .models import SHAPES, example, identity, write_repository
from .product import nnrp
from .setting import ROOT, WORK, BenchFailure, Options, progress
from .table import Goal, Row, Table, median, median_ratio
from .timing import block_of, figures, in_turn


def measure(options: Options) -> list[Table]:
    """Time both."""
    return [_round_trip(options), _beside(options)]


def _round_trip(options: Options) -> Table:
    """Time the crossing alone, in Rust, with 16 floats each way and a session that gives back what it gets."""
    progress("isolation: the round trip")
    rows = []
    for case, words in (("spinning", "both spin on cores of their own"), ("alone", "on one core"), ("asleep", "both asleep before")):
        command = ["cargo", "bench", "--quiet", "--locked", "-p", "nnrp-runtimes", "--bench", "crossing", "--", case, str(options.rounds)]
        both = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=1800).stdout)
        for figure in ("minimum", "p50"):
            ours, bare = ([one[figure] / 1e3 for one in both[whose]] for whose in ("ours", "bare"))
            goal = Goal("ratio", 1.3, "≤ 1.30 × futex ping-pong")
            rows.append(Row(f"round trip, {words}", f"{figure} µs", median(ours), median(bare), None, median_ratio(ours, bare), goal, details=both))
    return Table("A process for a model: the round trip", "futex ping-pong", None, rows)


def _beside(options: Options) -> Table:
    """Time one model here and in a process of its own, ONNX Runtime with one thread."""
    repository = write_repository(WORK / "isolation", {name: identity(name) for name in SHAPES})
    rows = []
    for name, case in (("small", "model(x), small"), ("large", "model(x), 602 kB")):
        progress(f"isolation: {name}")
        x, product = example(name), nnrp()
        if product is None:
            rows.append(Row(case, "p50 µs"))
            continue
        file = str(repository / name / "1" / "model.onnx")
        models: dict[str, Any] = {word: product.load(file, isolation=word, options={"intra_op_num_threads": 1}) for word in ("process", "none")}
        if not all(np.array_equal(model(x)["output"], x) for model in models.values()):
            raise BenchFailure(f"nnrp.load({name}, isolation='process')(x): the output differs from the input")
        blocks = {word: block_of(partial(model, x)) for word, model in models.items()}
        times = in_turn(blocks, options.rounds, options.calls // 10)
        details: dict[str, Any] = {word: [asdict(one) for one in rounds] for word, rounds in times.items()}
        for figure in ("minimum", "p50"):
            ours, here = (figures(times, word, figure) for word in ("process", "none"))
            rows.append(Row(case, f"{figure} µs", median(ours), median(here), None, median_ratio(ours, here), details=details))
    return Table("A process for a model: from Python, an identity", "in this process", None, rows)
