"""The models: identities, so that the protocol is all there is to see, and a slow one; and their repositories."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from pathlib import Path

import flatbuffers
import numpy as np
import onnx
import onnxruntime
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

SHAPES = {"small": (1, 16), "large": (1, 3, 224, 224)}
SLOW_RUN_MS = 300

_OPSET = helper.make_opsetid("", 17)
_IR_VERSION = 8


def example(name: str) -> NDArray[np.float32]:
    """Give a model's input: reproducible values from 0 to 1, as a picture has."""
    pixels = np.random.default_rng(1).integers(0, 256, size=SHAPES[name])
    return (pixels / np.float32(255)).astype(np.float32)


def identity(name: str) -> bytes:
    """Make an ONNX model that copies `input` to `output`; the first dimension is a batch of any length."""
    tail = SHAPES[name][1:]
    graph = helper.make_graph([helper.make_node("Identity", ["input"], ["output"])], name, [_floats("input", tail)], [_floats("output", tail)])
    return _serialized(graph)


def tflite(name: str) -> bytes:
    """Make the same for LiteRT, of a fixed shape: its interpreter is resized for any other before it runs."""
    model, graph, signature = schema.ModelT(), schema.SubGraphT(), schema.SignatureDefT()
    operator, code, shape = schema.OperatorT(), schema.OperatorCodeT(), np.array(SHAPES[name], np.int32)
    model.version, model.buffers, model.subgraphs = 3, [schema.BufferT(), schema.BufferT()], [graph]
    model.buffers[1].data = np.frombuffer(shape.tobytes(), np.uint8)
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.RESHAPE
    operator.inputs, operator.outputs = [0, 1], [2]
    model.operatorCodes, graph.operators, graph.inputs, graph.outputs = [code], [operator], [0], [2]
    graph.tensors = [schema.TensorT() for _ in range(3)]
    for tensor, called, buffer in zip(graph.tensors, ("input", "shape", "output"), (0, 1, 0), strict=True):
        tensor.name, tensor.buffer, tensor.hasRank = called, buffer, True
        tensor.type = schema.TensorType.INT32 if buffer else schema.TensorType.FLOAT32
        tensor.shape = [len(shape)] if buffer else shape.tolist()
    signature.signatureKey, signature.inputs, signature.outputs = "serve", [schema.TensorMapT()], [schema.TensorMapT()]
    for named, called, place in ((signature.inputs, "input", 0), (signature.outputs, "output", 2)):
        named[0].name, named[0].tensorIndex = called, place
    model.signatureDefs = [signature]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def slow(run_ms: float = SLOW_RUN_MS) -> bytes:
    """Make an ONNX model of [-1, 16] that computes for `run_ms` on one core of this machine."""
    trial_steps = 1_000
    session = onnxruntime.InferenceSession(_chain(trial_steps), providers=["CPUExecutionProvider"])
    x = example("small")
    trials_ms = []
    for _ in range(10):
        started = time.perf_counter()
        session.run(None, {"input": x})
        trials_ms.append((time.perf_counter() - started) * 1e3)
    return _chain(int(run_ms * trial_steps / min(trials_ms)))


def write_repository(root: Path, models: dict[str, bytes]) -> Path:
    """Write NAME/1/model.onnx for each model, in place of what was there."""
    shutil.rmtree(root, ignore_errors=True)
    for name, model in models.items():
        version = root / name / "1"
        version.mkdir(parents=True)
        (version / "model.onnx").write_bytes(model)
    return root


def write_triton_repository(root: Path, models: dict[str, str]) -> Path:
    """Write Triton's configuration of identity models; `models` maps a name to `small` or `large`."""
    shutil.rmtree(root, ignore_errors=True)
    for name, like in models.items():
        dimensions = list(SHAPES[like][1:])
        (root / name / "1").mkdir(parents=True)
        (root / name / "config.pbtxt").write_text(
            f'name: "{name}"\nbackend: "identity_c"\nmax_batch_size: 64\n'
            f'input [{{ name: "input" data_type: TYPE_FP32 dims: {dimensions} }}]\n'
            f'output [{{ name: "output" data_type: TYPE_FP32 dims: {dimensions} }}]\n'
            "instance_group [{ count: 1 kind: KIND_CPU }]\n"
        )
    return root


def _chain(steps: int) -> bytes:
    """Make a loop of `steps` products too small to be worth a second thread, so that one core is busy, not all."""
    width = 128
    rng = np.random.default_rng(2)
    weights = {
        "widen": rng.standard_normal((16, width), dtype=np.float32),
        "mix": rng.standard_normal((width, width), dtype=np.float32) / np.float32(width**0.5),
        "narrow": rng.standard_normal((width, 16), dtype=np.float32),
        "steps": np.array(steps, dtype=np.int64),
    }
    step = helper.make_graph(
        [
            helper.make_node("MatMul", ["state", "mix"], ["mixed"]),
            helper.make_node("Tanh", ["mixed"], ["next"]),
            helper.make_node("Identity", ["go"], ["go_on"]),
        ],
        "step",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            _floats("state", (width,)),
        ],
        [helper.make_tensor_value_info("go_on", TensorProto.BOOL, []), _floats("next", (width,))],
    )
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["input", "widen"], ["first"]),
            helper.make_node("Loop", ["steps", "", "first"], ["last"], body=step),
            helper.make_node("MatMul", ["last", "narrow"], ["output"]),
        ],
        "slow",
        [_floats("input", (16,))],
        [_floats("output", (16,))],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return _serialized(graph)


def _floats(name: str, tail: Iterable[int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *tail])


def _serialized(graph: onnx.GraphProto) -> bytes:
    model = helper.make_model(graph, opset_imports=[_OPSET])
    model.ir_version = _IR_VERSION
    onnx.checker.check_model(model)
    serialized: bytes = model.SerializeToString()
    return serialized
