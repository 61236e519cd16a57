"""The runtime ``reference``: ONNX models by the evaluator of the onnx package, slow and by the letter."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from nnrp.errors import InvalidModel, NotOffered, RuntimeNotInstalled
from nnrp.runtimes.contract import Control, ModelSpec, on_cpu

#: ONNX's name of an element type → ours.
DATATYPES = {
    "BOOL": "BOOL",
    "UINT8": "UINT8",
    "UINT16": "UINT16",
    "UINT32": "UINT32",
    "UINT64": "UINT64",
    "INT8": "INT8",
    "INT16": "INT16",
    "INT32": "INT32",
    "INT64": "INT64",
    "FLOAT16": "FP16",
    "FLOAT": "FP32",
    "DOUBLE": "FP64",
    "BFLOAT16": "BF16",
    "STRING": "BYTES",
    "FLOAT8E4M3FN": "FP8_E4M3",
    "FLOAT8E5M2": "FP8_E5M2",
    "INT4": "INT4",
    "UINT4": "UINT4",
}


class Reference:
    """Says what an ONNX model means: what other runtimes are compared with."""

    name = "reference"
    formats = ("onnx",)

    def info(self) -> dict[str, Any]:
        return {"version": _onnx().__version__, "formats": self.formats, "devices": ["cpu"]}

    def load(self, spec: ModelSpec) -> Evaluator:
        on_cpu(self.name, spec)
        onnx = _onnx()
        from google.protobuf.message import DecodeError
        from onnx.reference import ReferenceEvaluator

        try:
            model = onnx.load(spec.path)
            if not model.graph.output:
                raise InvalidModel("model file: expected an ONNX graph with outputs, got none", runtime=self.name)
            evaluator = ReferenceEvaluator(model)
        except (DecodeError, onnx.checker.ValidationError, ValueError, NotImplementedError) as error:
            raise InvalidModel(f"model file: {type(error).__name__}: the onnx package cannot read it", runtime=self.name) from error
        return Evaluator(onnx, model, evaluator)


def _threads() -> int:
    """The most that NumPy multiplies matrices with: those that the environment says as it is imported, or one for each core that the process may use."""
    said = next((os.environ[name] for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS") if os.environ.get(name, "").isdigit()), "")
    may = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(int(said), may) if said and int(said) else may


def _onnx() -> Any:
    try:
        import onnx
        import onnx.reference
    except ImportError as error:
        raise RuntimeNotInstalled("runtime 'reference' is not installed: pip install nnrp[reference]", runtime="reference") from error
    return onnx


class Evaluator:
    """A model in the evaluator, which keeps the state of a run: one call at a time."""

    def __init__(self, onnx: Any, model: Any, evaluator: Any) -> None:
        graph = model.graph
        known = {tensor.name for tensor in graph.initializer}
        names = onnx.TensorProto.DataType
        self.inputs = [(*_spec(names, value), value.name in known) for value in graph.input]
        self.outputs = [_spec(names, value) for value in graph.output]
        self.settings = {"precision": "strict", "threads": _threads(), "opset": {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}}
        self._texts = {name for name, datatype, *_ in self.inputs if datatype == "BYTES"}
        self._evaluator = evaluator

    def run(self, inputs: dict[str, Any], outputs: Sequence[str], control: Control) -> list[Any]:
        feeds = {name: _decoded(value) if name in self._texts else value for name, value in inputs.items()}
        return [_encoded(answer) for answer in self._evaluator.run(list(outputs), feeds)]


def _spec(names: Any, value: Any) -> tuple[str, str, list[int] | None]:
    kind = value.type.tensor_type
    name = names.Name(kind.elem_type)
    if not value.type.HasField("tensor_type") or name not in DATATYPES:
        told = value.type.WhichOneof("value") if name == "UNDEFINED" else name
        raise NotOffered(f"model file: '{value.name[:96]}' is of type {told}, which reference does not offer", runtime="reference")
    shape = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in kind.shape.dim] if kind.HasField("shape") else None
    return value.name, DATATYPES[name], shape


def _decoded(value: Any) -> Any:
    """Texts as the evaluator takes them."""
    texts = np.empty(value.shape, object)
    texts.reshape(-1)[:] = [element.decode("utf-8", "surrogateescape") for element in value.reshape(-1)]
    return texts


def _encoded(value: Any) -> Any:
    """Texts as bytes again; anything else as it is."""
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "OU":
        return value
    elements = np.empty(value.shape, object)
    elements.reshape(-1)[:] = [element.encode("utf-8", "surrogateescape") if isinstance(element, str) else element for element in value.reshape(-1)]
    return elements
