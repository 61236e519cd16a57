"""The suite's models as TensorFlow's SavedModels."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from nnrp.testing.claims import NotApplicable
from nnrp.testing.zoo import Graph

#: Our datatype → TensorFlow's name of it, where the two differ in more than case.
TYPES = {"BYTES": "string", "FP16": "float16", "FP32": "float32", "FP64": "float64", "BF16": "bfloat16", "FP8_E4M3": "float8_e4m3fn", "FP8_E5M2": "float8_e5m2"}


def write(graph: Graph, folder: Path) -> Path:
    """Trace a graph and save it with one signature."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow

    path = folder / graph.role
    if path.exists():
        return path
    if any(port.datatype in ("INT4", "UINT4") for port in graph.inputs):
        raise NotApplicable(f"no model plays '{graph.role}': a SavedModel has no such type")
    operations = _operations(tensorflow)
    constants = {name: tensorflow.constant(value) for name, value in graph.constants.items()}

    class Module(tensorflow.Module):  # type: ignore[misc] # the package tells no types
        def __call__(self, *inputs: Any) -> dict[str, Any]:
            answers = graph.run(operations, inputs, constants)
            return {port.name: answer for port, answer in zip(graph.outputs, answers, strict=True)}

    given = [
        tensorflow.TensorSpec([None if size < 0 else size for size in port.sizes], TYPES.get(port.datatype, port.datatype.lower()), port.name)
        for port in graph.inputs
    ]
    module = Module()
    tensorflow.saved_model.save(module, str(path), signatures=tensorflow.function(module.__call__).get_concrete_function(*given))
    return path


def _operations(tensorflow: Any) -> dict[str, Any]:
    def normalize(x: Any, scale: Any) -> Any:
        mean, variance = tensorflow.nn.moments(x, axes=[-1], keepdims=True)
        return scale * (x - mean) / tensorflow.sqrt(variance + 1e-5)

    return {
        "Add": tensorflow.add,
        "Gemm": lambda x, weight, bias: x @ weight + bias,
        "Identity": tensorflow.identity,
        "LayerNormalization": normalize,
        "MatMul": tensorflow.matmul,
        "Mul": tensorflow.multiply,
        "NonZero": lambda x: tensorflow.transpose(tensorflow.where(x != 0)),
        "Reshape": tensorflow.reshape,
        "Softmax": tensorflow.nn.softmax,
        "Squeeze": lambda x, axes: tensorflow.squeeze(x, [0]),
        "Tanh": tensorflow.tanh,
    }
