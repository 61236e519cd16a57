"""In one process: our Python call beside ONNX Runtime's own Python call and its C call."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from .models import SHAPES, example, identity, write_repository
from .native import call_floor, onnxruntime_library
from .product import nnrp
from .setting import WORK, BenchFailure, Options, progress
from .table import Goal, Row, Table, least, median, median_ratio, worst
from .timing import Block, Times, block_of, figures, in_turn, spinning_thread

# A call that gives the interpreter lock away waits some 5 ms to get it back, or is lucky for a whole block, when the
# spinning thread wakes too late to take it: hence blocks of their own length, more rounds, and the worst of them.
SPINNING_CALLS = 1_000
SPINNING_ROUNDS = 5

Pick = Callable[[Sequence[float]], float | None]


class CCall:
    """ONNX Runtime's C call, timed by a small library in this process: the loop is C, so Python costs it nothing."""

    def __init__(self, model: Path, x: NDArray[np.float32]):
        self._library = ctypes.CDLL(str(call_floor()))
        self._library.floor_open.restype = ctypes.c_void_p
        self._library.floor_time.restype = ctypes.c_bool
        self._model = ctypes.c_void_p(self._library.floor_open(str(onnxruntime_library()).encode(), str(model).encode()))
        self._x = x
        self._shape = (ctypes.c_int64 * x.ndim)(*x.shape)

    def __call__(self, calls: int) -> list[int]:
        spent_ns = (ctypes.c_uint64 * calls)()
        data = ctypes.c_void_p(self._x.ctypes.data)
        rank = ctypes.c_size_t(self._x.ndim)
        if not self._library.floor_time(self._model, data, self._shape, rank, spent_ns, ctypes.c_size_t(calls)):
            raise BenchFailure("the C call's output differs from its input")
        return list(spent_ns)


def measure(options: Options) -> list[Table]:
    """Time the calls in turn, alone and with another Python thread spinning."""
    repository = write_repository(WORK / "inproc", {name: identity(name) for name in SHAPES})
    contenders = {name: _contenders(repository / name / "1" / "model.onnx", example(name)) for name in SHAPES}
    progress("inproc: small")
    small = in_turn(contenders["small"], options.rounds, options.calls)
    progress("inproc: 602 kB")
    large = in_turn(contenders["large"], options.rounds, options.calls // 10)
    progress("inproc: small, with another Python thread spinning")
    python_calls = {name: block for name, block in contenders["small"].items() if name != "C"}
    with spinning_thread():
        spinning = in_turn(python_calls, max(options.rounds, SPINNING_ROUNDS), SPINNING_CALLS)
    rows = [
        _row("model(x), small", "p50", small, median, Goal("ratio", 0.5, "≤ 0.50 × ORT Python")),
        _row("model(x), small", "minimum", small, least, Goal("excess", 1.2, "≤ C call + 1.2 µs")),
        _row("model(x), 602 kB", "p50", large, median, Goal("ratio", 0.9, "≤ 0.90 × ORT Python")),
        _row(
            "model(x), small, a Python thread spinning, worst round",
            "p90",
            spinning,
            worst,
            Goal("value", 10, "≤ 10 µs"),
        ),
    ]
    return [Table("In process", "ORT Python", "C call", rows)]


def _contenders(file: Path, x: NDArray[np.float32]) -> dict[str, Block]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    found: dict[str, Block] = {
        "ORT Python": block_of(lambda: session.run(None, {"input": x})),
        "C": CCall(file, x),
    }
    product = nnrp()
    if product is not None:
        model = product.load(str(file))
        if not np.array_equal(model(x)["output"], x):
            raise BenchFailure(f"nnrp.load({file.name})(x): the output differs from the input")
        found = {"ours": block_of(lambda: model(x)), **found}
    return found


def _row(case: str, figure: str, times: Mapping[str, list[Times]], pick: Pick, goal: Goal) -> Row:
    ours, peer, floor = (figures(times, name, figure) for name in ("ours", "ORT Python", "C"))
    details = {name: [asdict(one) for one in rounds] for name, rounds in times.items()}
    ratio = median_ratio(ours, peer)
    return Row(case, f"{figure} µs", pick(ours), pick(peer), pick(floor), ratio, goal, details=details)
