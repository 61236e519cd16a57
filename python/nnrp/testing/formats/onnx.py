"""The suite's models as ONNX files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nnrp.testing.claims import NotApplicable
from nnrp.testing.zoo import Graph, Port

#: Our datatype → ONNX's name of it.
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
    "FP32": "FLOAT",
    "FP64": "DOUBLE",
    "BF16": "BFLOAT16",
    "BYTES": "STRING",
    "FP8_E4M3": "FLOAT8E4M3FN",
    "FP8_E5M2": "FLOAT8E5M2",
    "INT4": "INT4",
    "UINT4": "UINT4",
}
_NARROW = ("FP8_E4M3", "FP8_E5M2", "INT4", "UINT4")


def write(graph: Graph, folder: Path) -> Path:
    """Write a graph as an ONNX file."""
    if any(node.kind == "Each" for node in graph.nodes):
        raise NotApplicable(f"no model plays '{graph.role}': ONNX has no streams")
    import onnx
    from onnx import helper, numpy_helper

    path = folder / f"{graph.role}.onnx"
    if path.exists():
        return path
    narrow = any(port.datatype in _NARROW for port in graph.inputs)
    nodes = [helper.make_node(node.kind, node.inputs, [node.output]) for node in graph.nodes]
    constants = [numpy_helper.from_array(value, name) for name, value in graph.constants.items()]
    inputs, outputs = ([_value(port) for port in ports] for ports in (graph.inputs, graph.outputs))
    drawn = helper.make_graph(nodes, graph.role, inputs, outputs, constants)
    model = helper.make_model(drawn, opset_imports=[helper.make_opsetid("", 21 if narrow else 17)], ir_version=10 if narrow else 8)
    onnx.save(model, path)
    return path


def _value(port: Port) -> Any:
    from onnx import TensorProto, helper

    return helper.make_tensor_value_info(port.name, getattr(TensorProto, TYPES[port.datatype]), port.shape)
