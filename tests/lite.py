"""Small TFLite models, written where a test wants them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

#: Our datatype → TFLite's name of it.
TYPES = {
    "BOOL": "BOOL",
    "UINT8": "UINT8",
    "UINT16": "UINT16",
    "UINT32": "UINT32",
    "UINT64": "UINT64",
    "INT8": "INT8",
    "INT16": "INT16",
    "INT32": "INT32",
    "INT64": "INT64",
    "FP16": "FLOAT16",
    "FP32": "FLOAT32",
    "FP64": "FLOAT64",
    "BYTES": "STRING",
}
#: The operations that need options of their own.
_OPTIONS = {"MUL": "MulOptions", "ADD": "AddOptions", "SUB": "SubOptions", "GATHER": "GatherOptions", "FULLY_CONNECTED": "FullyConnectedOptions"}
_STEPS, _WIDTH, _ROWS = 60, 512, 16_000


@dataclass
class Value:
    """A tensor: its datatype and shape, None for any; or its constant elements. With a scale, real = scale * stored."""

    name: str
    datatype: str = "FP32"
    shape: Sequence[int] | None = ()
    elements: Any = None
    scale: float | None = None

    def pack(self, buffers: list[Any]) -> Any:
        tensor, shape = schema.TensorT(), self.shape
        if self.elements is not None:
            shape = np.shape(self.elements)
            buffers.append(schema.BufferT())
            buffers[-1].data = np.frombuffer(np.ascontiguousarray(self.elements).tobytes(), np.uint8)
            tensor.buffer = len(buffers) - 1
        tensor.name, tensor.type, tensor.hasRank = self.name, getattr(schema.TensorType, TYPES[self.datatype]), shape is not None
        tensor.shape = [0 if dim == 0 else max(1, dim) for dim in shape or ()]
        tensor.shapeSignature = list(shape) if shape and -1 in shape else None
        if self.scale is not None:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale, tensor.quantization.zeroPoint = [self.scale], [0]
        return tensor


Step = tuple[str, Sequence[int], Sequence[int]]


def save(
    path: Path, graphs: dict[str, tuple[list[Value], list[Step]]], signed: bool = True, takes: Sequence[str] = ("x",), gives: Sequence[str] = ("y",)
) -> Path:
    """Write graphs, each of its tensors and its operations over them, with a signature each, which lists what it takes and gives from the last to the first."""
    model, buffers = schema.ModelT(), [schema.BufferT()]
    kinds = sorted({kind for _, steps in graphs.values() for kind, _, _ in steps})
    model.version, model.buffers, model.operatorCodes = 3, buffers, [_code(kind) for kind in kinds]
    model.subgraphs, model.signatureDefs = [], []
    for index, (key, (values, steps)) in enumerate(graphs.items()):
        graph, names = schema.SubGraphT(), [value.name for value in values]
        graph.tensors, graph.operators = [value.pack(buffers) for value in values], [_operator(kinds, step) for step in steps]
        graph.inputs, graph.outputs = [names.index(name) for name in takes], [names.index(name) for name in gives]
        model.subgraphs.append(graph)
        model.signatureDefs += [_signature(key, index, graph, takes, gives)] if signed else []
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(builder.Output())
    return path


def _code(kind: str) -> Any:
    code = schema.OperatorCodeT()
    code.builtinCode = getattr(schema.BuiltinOperator, kind, schema.BuiltinOperator.CUSTOM)
    code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), 1
    code.customCode = kind if code.builtinCode == schema.BuiltinOperator.CUSTOM else None
    return code


def _operator(kinds: list[str], step: Step) -> Any:
    operator = schema.OperatorT()
    kind, operator.inputs, operator.outputs = step
    operator.opcodeIndex = kinds.index(kind)
    if kind in _OPTIONS:
        operator.builtinOptions, operator.builtinOptionsType = getattr(schema, f"{_OPTIONS[kind]}T")(), getattr(schema.BuiltinOptions, _OPTIONS[kind])
    return operator


def _signature(key: str, index: int, graph: Any, takes: Sequence[str], gives: Sequence[str]) -> Any:
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = key, index
    signature.inputs, signature.outputs = (
        [_named(*one) for one in reversed([*zip(*side, strict=True)])] for side in ((takes, graph.inputs), (gives, graph.outputs))
    )
    return signature


def _named(name: str, place: int) -> Any:
    named = schema.TensorMapT()
    named.name, named.tensorIndex = name, place
    return named


def scale(path: Path, shape: Sequence[int], factors: dict[str, float], signed: bool = True) -> Path:
    """``y = factor * x`` over FP32, one signature for each factor; or none, when not signed."""
    graphs = {}
    for key, factor in factors.items():
        values = [Value("x", shape=shape), Value("f", elements=np.float32(factor)), Value("y", shape=shape)]
        graphs[key] = (values, [("MUL", [0, 1], [2])])
    return save(path, graphs, signed)


def reverse_texts(path: Path) -> Path:
    """``y = x[[2, 1, 0]]`` over BYTES [3]."""
    values = [Value("x", "BYTES", [3]), Value("order", "INT32", elements=np.array([2, 1, 0], np.int32)), Value("y", "BYTES", [3])]
    return save(path, {"main": (values, [("GATHER", [0, 1], [2])])})


def reshape(path: Path) -> Path:
    """Takes any INT32 [-1] and reshapes six numbers to it: fails inside the runtime where the product is not six; the rank of ``y`` is unknown."""
    values = [Value("six", elements=np.arange(6, dtype=np.float32)), Value("x", "INT32", [-1]), Value("y", shape=None)]
    return save(path, {"main": (values, [("RESHAPE", [0, 1], [2])])})


def custom(path: Path) -> Path:
    """An operation that nobody has."""
    values = [Value("x", shape=[-1, 4]), Value("y", shape=[-1, 4])]
    return save(path, {"main": (values, [("Nobody's", [0], [1])])})


def roles(folder: Path) -> dict[str, dict[str, Any]]:
    """The models that the conformance suite asks for."""
    found: dict[str, dict[str, Any]] = {}
    for name, shape in (("affine", [-1]), ("batch", [-1, 4])):
        constants = [Value("two", elements=np.float32(2)), Value("one", elements=np.float32(1))]
        values = [Value("x", shape=shape), *constants, Value("twice", shape=shape), Value("y", shape=shape)]
        found[name] = {"path": save(folder / f"{name}.tflite", {"main": (values, [("MUL", [0, 1], [3]), ("ADD", [3, 2], [4])])})}
    for rank in range(7):
        found[f"rank_{rank}"] = {"path": scale(folder / f"rank_{rank}.tflite", [-1] * rank, {"main": 1.0})}
    all_of_it = Value("all", "INT32", elements=np.array([-1], np.int32))
    for datatype in TYPES:
        values = [Value("x", datatype, [-1]), all_of_it, Value("y", datatype, [-1])]
        found[f"identity_{datatype.lower()}"] = {"path": save(folder / f"{datatype}.tflite", {"main": (values, [("RESHAPE", [0, 1], [2])])})}
    values = [Value("x", shape=[-1]), all_of_it, Value("found", "INT64", [-1, 1]), Value("y", "INT64", [-1])]
    found["positions"] = {"path": save(folder / "positions.tflite", {"main": (values, [("WHERE", [0], [2]), ("RESHAPE", [2, 1], [3])])})}
    values = [Value("x", shape=[-1]), Value("shape", "INT32", elements=np.array([2, 3], np.int32)), Value("y", shape=[2, 3])]
    path = save(folder / "failing.tflite", {"main": (values, [("RESHAPE", [0, 1], [2])])})
    found["failing"] = {"path": path, "ask": {"x": [1.0] * 7}, "then": {"x": [1.0] * 6}}
    middle = [Value(f"m{step}", shape=[-1, _WIDTH]) for step in range(1, _STEPS)]
    values = [Value("x", shape=[-1, _WIDTH]), *middle, Value("y", shape=[-1, _WIDTH]), Value("w", elements=np.eye(_WIDTH, dtype=np.float32))]
    steps: list[Step] = [("FULLY_CONNECTED", [step, _STEPS + 1, -1], [step + 1]) for step in range(_STEPS)]
    found["slow"] = {"path": save(folder / "slow.tflite", {"main": (values, steps)}), "ask": {"x": np.ones((_ROWS, _WIDTH), np.float32)}}
    return found
