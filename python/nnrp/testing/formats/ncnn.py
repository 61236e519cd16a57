"""The suite's models as ncnn's `.param` and `.bin`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nnrp.testing.claims import NotApplicable
from nnrp.testing.zoo import Graph, Node

_PLAIN = bytes(4)
_SIMPLE = {"Identity": "Noop", "Softmax": "Softmax", "Tanh": "TanH"}


def write(graph: Graph, folder: Path) -> dict[str, Any]:
    """Write a graph layer by layer; only what has FP32 and 1 to 4 dimensions, because ncnn has nothing else and does not look."""
    ports = [*graph.inputs, *graph.outputs]
    if any(port.datatype != "FP32" or not 1 <= len(port.shape) <= 4 for port in ports):
        raise NotApplicable(f"no model plays '{graph.role}': ncnn has FP32 and 1 to 4 dimensions")
    layers = [f"Input {port.name} 0 1 {port.name}" for port in graph.inputs]
    weights = b""
    for node in graph.nodes:
        layer, more = _layer(graph, node)
        layers.append(layer)
        weights += more
    path = folder / f"{graph.role}.param"
    path.write_text("\n".join(["7767517", f"{len(layers)} {len(layers)}", *layers, ""]), encoding="ascii")
    path.with_suffix(".bin").write_bytes(weights)
    return {"path": path} | graph.described()


def _layer(graph: Graph, node: Node) -> tuple[str, bytes]:
    """A line of the text, and its part of the weights."""
    head = f"{node.output} 1 1 {node.inputs[0]} {node.output}"
    given = [graph.constants[name] for name in node.inputs if name in graph.constants]
    if node.kind in _SIMPLE:
        return f"{_SIMPLE[node.kind]} {head} 0=-1 1=1" if node.kind == "Softmax" else f"{_SIMPLE[node.kind]} {head}", b""
    if node.kind in ("Add", "Mul"):
        return f"BinaryOp {head} 0={0 if node.kind == 'Add' else 2} 1=1 2={float(given[0])!r}", b""
    if node.kind in ("Gemm", "MatMul"):
        bias = given[1].tobytes() if len(given) > 1 else b""
        return f"InnerProduct {head} 0={given[0].shape[1]} 1={int(bool(bias))} 2={given[0].size}", _PLAIN + np.ascontiguousarray(given[0].T).tobytes() + bias
    if node.kind == "LayerNormalization":
        return f"LayerNorm {head} 0={given[0].size} 1=1e-5 2=1", given[0].tobytes() + bytes(given[0].nbytes)
    raise NotApplicable(f"no model plays '{graph.role}': no layer of ncnn's for {node.kind}")
