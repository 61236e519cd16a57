"""The suite's models as `jax.export` writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nnrp.tensor import numpy_type
from nnrp.testing.claims import NotApplicable
from nnrp.testing.zoo import Graph


def write(graph: Graph, folder: Path) -> Path:
    """Trace a graph and export it."""
    import jax
    from jax import export

    path = folder / f"{graph.role}.jax"
    if path.exists():
        return path
    if graph.role == "positions":
        raise NotApplicable("no model plays 'positions': JAX knows every shape before it runs")
    if any(port.datatype in ("BYTES", "INT4", "UINT4") for port in graph.inputs):
        raise NotApplicable(f"no model plays '{graph.role}': JAX has no such type")
    operations = _operations(jax)

    def traced(**inputs: Any) -> dict[str, Any]:
        answers = graph.run(operations, [inputs[port.name] for port in graph.inputs])
        return {port.name: answer for port, answer in zip(graph.outputs, answers, strict=True)}

    with jax.enable_x64(True):
        scope = export.SymbolicScope()
        shapes = {
            port.name: jax.ShapeDtypeStruct(export.symbolic_shape(", ".join(map(str, port.shape)), scope=scope), numpy_type(port.datatype))
            for port in graph.inputs
        }
        try:
            path.write_bytes(export.export(jax.jit(traced))(**shapes).serialize())
        except (TypeError, ValueError) as error:
            raise NotApplicable(f"no model plays '{graph.role}': {type(error).__name__} as JAX traces it") from error
    return path


def _operations(jax: Any) -> dict[str, Any]:
    numpy = jax.numpy

    def normalize(x: Any, scale: Any) -> Any:
        return scale * (x - x.mean(-1, keepdims=True)) / numpy.sqrt(x.var(-1, keepdims=True) + 1e-5)

    return {
        "Add": numpy.add,
        "Gemm": lambda x, weight, bias: x @ weight + bias,
        "Identity": lambda x: x,
        "LayerNormalization": normalize,
        "MatMul": numpy.matmul,
        "Mul": numpy.multiply,
        "Reshape": lambda x, shape: numpy.reshape(x, tuple(int(dim) for dim in shape)),
        "Softmax": jax.nn.softmax,
        "Tanh": numpy.tanh,
    }
