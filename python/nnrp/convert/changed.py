"""Whether a converter made anything of an ONNX model at all: what it passes over it says nothing of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, TypeAlias

from nnrp.errors import NotOffered

#: How often there is each operator, and each type of a constant, a cast, an input or an output.
Made: TypeAlias = Counter[tuple[str, str | int]]


def made_of(model: Any) -> Made:
    """Tell what an ONNX model is made of, the graphs within it too."""
    ports = (*model.graph.input, *model.graph.output)
    found: Made = Counter(("port", port.type.tensor_type.elem_type) for port in ports)
    for graph in _graphs(model.graph):
        found.update(("operator", node.op_type) for node in graph.node)
        found.update(("constant", tensor.data_type) for tensor in graph.initializer)
        found.update(_said(graph))
    return found


def _said(graph: Any) -> Iterator[tuple[str, int]]:
    """Give the types in attributes: where a graph has neither FP32 at its ends nor weights, all that becomes FP16 is there."""
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield "constant", attribute.t.data_type
            elif node.op_type == "Cast" and attribute.name == "to":
                yield "cast", attribute.i


def _graphs(graph: Any) -> Iterator[Any]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from _graphs(inner)


def check(to: str, before: Made, after: Made, lacks: str) -> None:
    """Refuse a result that is the source again.

    Raises:
        NotOffered: says what the model lacks.
    """
    if before == after:
        raise NotOffered(f"convert to {to}: the model has {lacks}, so that it would stay as it is", to=to)
