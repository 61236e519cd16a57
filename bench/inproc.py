"""In one process: our Python call beside ONNX Runtime's own Python call and its C call, OpenVINO's and LiteRT's own, and a Python function's."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import openvino
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from .models import SHAPES, example, identity, tflite, write_repository
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
    return [Table("In process", "ORT Python", "C call", rows), _openvino(options, repository), _litert(options), _function(options)]


def _openvino(options: Options, repository: Path) -> Table:
    """Time OpenVINO beside its own call with shared memory, one thread, both in FP32."""
    contenders = {name: _on_openvino(repository / name / "1" / "model.onnx", example(name)) for name in SHAPES}
    return _beside(options, "OpenVINO", contenders)


def _litert(options: Options) -> Table:
    """Time LiteRT beside its interpreter as its documentation feeds it, tensor by tensor, one thread."""
    contenders = {name: _on_litert(WORK / "inproc" / f"{name}.tflite", name) for name in SHAPES}
    return _beside(options, "LiteRT", contenders)


def _beside(options: Options, runtime: str, contenders: Mapping[str, dict[str, Block]]) -> Table:
    """Compare our call with that of a runtime's own package."""
    progress(f"inproc: {runtime}")
    small = in_turn(contenders["small"], options.rounds, options.calls)
    large = in_turn(contenders["large"], options.rounds, options.calls // 10)
    theirs = f"{runtime} Python"
    rows = []
    for case, times in (("model(x), small", small), ("model(x), 602 kB", large)):
        ours, peer = (figures(times, name, "p50") for name in ("ours", theirs))
        details = {name: [asdict(one) for one in rounds] for name, rounds in times.items()}
        goal = Goal("value", min(peer) + 2, f"≤ {theirs} + 2 µs")
        rows.append(Row(case, "p50 µs", median(ours), median(peer), None, median_ratio(ours, peer), goal, details=details))
    return Table(f"In process, {runtime}", theirs, None, rows)


def _function(options: Options) -> Table:
    """Time a Python function as a model beside the function itself, and the run of one that nnrp.serve has on its worker."""
    progress("inproc: a Python function")
    x = np.ones((1, 16), np.float32)
    found: dict[str, Block] = {"function": block_of(lambda: _same(x))}
    declared = {name: ("FP32", [-1, 16]) for name in "xy"}
    line = {"inputs": {"x": declared["x"]}, "outputs": {"y": declared["y"]}}
    product = nnrp()
    if product is not None:
        model = product.load(_same, **line)
        found["ours"] = block_of(lambda: model(x))
    times = in_turn(found, options.rounds, options.calls)
    ours, peer = (figures(times, name, "p50") for name in ("ours", "function"))
    details: dict[str, Any] = {name: [asdict(one) for one in rounds] for name, rounds in times.items()}
    limit, text = min(peer) + 3, "≤ the function + 3 µs"
    rows = [Row("model(x), small", "p50 µs", median(ours), median(peer), goal=Goal("value", limit, text), details=details)]
    if product is not None:
        rows += _served_rows(product, line, x, options.calls, min(peer), Goal("value", limit, text))
    return Table("In process, a Python function", "the function", None, rows)


def _served_rows(product: Any, line: dict[str, Any], x: NDArray[np.float32], calls: int, peer: float, goal: Goal) -> list[Row]:
    """Time its run in nnrp.serve: for one client, which the worker sleeps before, for several, and beside a thread that spins."""
    unit, rows = "mean µs", []
    with product.serve(_same, **line, http_port=0, grpc_port=None) as server:
        for clients, case in ((1, ""), (4, ", 4 clients"), (8, ", 8 clients")):
            rows.append(Row(f"its run in nnrp.serve{case}", unit, _served(product, server, x, calls, clients), peer, goal=goal))
        with spinning_thread():
            spun = _served(product, server, x, calls // 20)
        rows.append(Row("its run in nnrp.serve, a Python thread spinning", unit, spun, peer, goal=goal))
    with product.serve(_same, **line, isolation="process", http_port=0, grpc_port=None) as server:
        for case, beside in (("", nullcontext()), (", a Python thread spinning", spinning_thread())):
            with beside:
                rows.append(Row(f"its run in a process of its own{case}", unit, _served(product, server, x, calls // 20), peer))
    return rows


def _same(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return x


def _served(product: Any, server: Any, x: NDArray[np.float32], calls: int, clients: int = 1) -> float:
    """The mean run of so many requests, by the server's own count; of each client one after the other."""
    asks = [product.connect(server.http_url) for _ in range(clients)]
    model = server.engine.model("_same")
    spent: list[tuple[int, int]] = []
    for count in (calls // 10, calls):
        threads = [threading.Thread(target=_ask, args=(ask, x, count // clients)) for ask in asks[1:]]
        for thread in threads:
            thread.start()
        _ask(asks[0], x, count // clients)
        for thread in threads:
            thread.join()
        told = model.statistics()
        spent.append((told["run_ns"], told["success_count"]))
    (before_ns, before), (after_ns, after) = spent
    return (after_ns - before_ns) / (after - before) / 1e3


def _ask(ask: Any, x: NDArray[np.float32], calls: int) -> None:
    for _ in range(calls):
        ask(x)


def _on_openvino(file: Path, x: NDArray[np.float32]) -> dict[str, Block]:
    properties = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": "1", "ENABLE_CPU_PINNING": "NO"}
    request = openvino.Core().compile_model(file, "CPU", properties).create_infer_request()
    found: dict[str, Block] = {"OpenVINO Python": block_of(lambda: request.infer({0: x}, share_inputs=True, share_outputs=True)[0])}
    product = nnrp()
    if product is not None:
        model = product.load(str(file), runtime="openvino", options={"INFERENCE_NUM_THREADS": 1})
        if not np.array_equal(model(x)["output"], x):
            raise BenchFailure(f"nnrp.load({file.name}, runtime='openvino')(x): the output differs from the input")
        found = {"ours": block_of(lambda: model(x)), **found}
    return found


def _on_litert(file: Path, name: str) -> dict[str, Block]:
    file.write_bytes(tflite(name))
    x = example(name)
    interpreter = Interpreter(str(file), num_threads=1)
    interpreter.allocate_tensors()
    (into,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()

    def theirs() -> object:
        interpreter.set_tensor(into["index"], x)
        interpreter.invoke()
        return interpreter.get_tensor(result["index"])

    found: dict[str, Block] = {"LiteRT Python": block_of(theirs)}
    product = nnrp()
    if product is not None:
        model = product.load(str(file), runtime="litert", options={"num_threads": 1})
        if not np.array_equal(model(x)["output"], x):
            raise BenchFailure(f"nnrp.load({file.name}, runtime='litert')(x): the output differs from the input")
        found = {"ours": block_of(lambda: model(x)), **found}
    return found


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
