"""Small ONNX models, written where a test wants them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

#: Our datatypes that ONNX Runtime's CPU provider can copy, and ONNX's names for them.
ONNX_TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BF16": TensorProto.BFLOAT16,
    "BYTES": TensorProto.STRING,
}


def _save(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    initializers: list[onnx.TensorProto] | None = None,
) -> Path:
    graph = helper.make_graph(nodes, path.stem, inputs, outputs, initializers or [])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="nnrp-tests")
    model.ir_version = 8
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def _value(name: str, datatype: str, shape: list[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, ONNX_TYPES[datatype], shape)


def identity(path: Path, datatype: str = "FP32", shape: list[int | str] | None = None) -> Path:
    """``y = x``; shape ``[batch, 4]`` unless told."""
    dims = ["batch", 4] if shape is None else shape
    return _save(path, [helper.make_node("Identity", ["x"], ["y"])], [_value("x", datatype, dims)], [_value("y", datatype, dims)])


def scale(path: Path, factor: float) -> Path:
    """``y = factor * x`` over FP32 [batch, 4], so that versions can be told apart."""
    constant = numpy_helper.from_array(np.asarray(factor, np.float32), "factor")
    return _save(path, [helper.make_node("Mul", ["x", "factor"], ["y"])], [_value("x", "FP32", ["batch", 4])], [_value("y", "FP32", ["batch", 4])], [constant])


HEAVY = 64 << 20


def heavy(path: Path) -> Path:
    """``y = x + w`` with so many bytes of weights."""
    weights = numpy_helper.from_array(np.ones(HEAVY // 4, np.float32), "w")
    return _save(path, [helper.make_node("Add", ["x", "w"], ["y"])], [_value("x", "FP32", [1])], [_value("y", "FP32", ["n"])], [weights])


def two_by_two(path: Path) -> Path:
    """``sum = a + b`` and ``product = a * b`` over INT32 [n]."""
    nodes = [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Mul", ["a", "b"], ["product"])]
    return _save(path, nodes, [_value(n, "INT32", ["n"]) for n in "ab"], [_value(n, "INT32", ["n"]) for n in ("sum", "product")])


def product(path: Path) -> Path:
    """``y = a @ b`` over FP32 [m, k] and [k, n]."""
    inputs = [_value("a", "FP32", ["m", "k"]), _value("b", "FP32", ["k", "n"])]
    return _save(path, [helper.make_node("MatMul", ["a", "b"], ["y"])], inputs, [_value("y", "FP32", ["m", "n"])])


def optional_bias(path: Path) -> Path:
    """``y = x + bias`` where ``bias`` is 10 unless a request brings its own."""
    bias = numpy_helper.from_array(np.full((1,), 10, np.float32), "bias")
    inputs = [_value("x", "FP32", [2]), _value("bias", "FP32", [1])]
    return _save(path, [helper.make_node("Add", ["x", "bias"], ["y"])], inputs, [_value("y", "FP32", [2])], [bias])


def slow(path: Path) -> Path:
    """A product of matrices in a loop of ``n`` turns, each about a millisecond: runs as long as a test wants."""
    turn = helper.make_graph(
        [helper.make_node("MatMul", ["m_in", "w"], ["m_out"]), helper.make_node("Identity", ["go_in"], ["go_out"])],
        "turn",
        [_value("i", "INT64", []), _value("go_in", "BOOL", []), _value("m_in", "FP32", [256, 256])],
        [_value("go_out", "BOOL", []), _value("m_out", "FP32", [256, 256])],
    )
    constants = [
        numpy_helper.from_array(np.eye(256, dtype=np.float32), "w"),
        numpy_helper.from_array(np.eye(256, dtype=np.float32), "start"),
        numpy_helper.from_array(np.asarray(True), "go"),
    ]
    nodes = [helper.make_node("Loop", ["n", "go", "start"], ["end"], body=turn), helper.make_node("ReduceSum", ["end"], ["y"], keepdims=0)]
    return _save(path, nodes, [_value("n", "INT64", [])], [_value("y", "FP32", [])], constants)


def failing(path: Path) -> Path:
    """Takes any INT64 [k] and reshapes six numbers to it: runs fail inside the runtime where the product is not six."""
    six = numpy_helper.from_array(np.arange(6, dtype=np.float32), "six")
    return _save(path, [helper.make_node("Reshape", ["six", "shape"], ["y"])], [_value("shape", "INT64", ["k"])], [_value("y", "FP32", None)], [six])


def repository(folder: Path) -> Path:
    """Every model that the forms are tested with, as ``NAME/VERSION/model.onnx``."""
    for datatype in ONNX_TYPES:
        identity(folder / f"identity_{datatype.lower()}" / "1" / "model.onnx", datatype)
    identity(folder / "scalar" / "1" / "model.onnx", "FP32", [])
    identity(folder / "grid" / "1" / "model.onnx", "FP32", ["rows", "columns"])
    for version, factor in (("1", 1.0), ("2", 2.0), ("10", 10.0)):
        scale(folder / "scale" / version / "model.onnx", factor)
    two_by_two(folder / "two_by_two" / "1" / "model.onnx")
    product(folder / "product" / "1" / "model.onnx")
    optional_bias(folder / "optional_bias" / "1" / "model.onnx")
    slow(folder / "slow" / "1" / "model.onnx")
    failing(folder / "failing" / "1" / "model.onnx")
    return folder
