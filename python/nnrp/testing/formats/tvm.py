"""The suite's models as modules that TVM compiles for this machine; needs a C++ compiler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nnrp.testing.claims import NotApplicable
from nnrp.testing.formats import onnx
from nnrp.testing.zoo import Graph


def write(graph: Graph, folder: Path) -> dict[str, Any]:
    """Compile a graph; what it takes and gives, the module does not tell."""
    if any(port.datatype in ("BYTES", "INT4", "UINT4") for port in graph.inputs):
        raise NotApplicable(f"no model plays '{graph.role}': TVM has no such type")
    path = folder / f"{graph.role}.so"
    if not path.exists():
        compile(onnx.write(graph, folder), path, graph.role)
    return {"path": path, "options": {"allow_code": True}} | graph.described()


def compile(model: Path, path: Path, role: str = "", target: str = "llvm") -> None:
    """Compile an ONNX file for the CPU that is here.

    Raises:
        NotApplicable: TVM does not take it.
    """
    import onnx as files
    import tvm
    from tvm.relax.frontend.onnx import from_onnx

    try:
        module = from_onnx(files.load(model), keep_params_in_input=False)
        tvm.compile(module, target=target).export_library(str(path))
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError, AssertionError, NotImplementedError) as error:
        raise NotApplicable(f"no model plays '{role}': {type(error).__name__} as TVM compiles it") from error
