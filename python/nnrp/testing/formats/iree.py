"""The suite's models as modules that IREE compiles for this machine: pip install 'iree-base-compiler[onnx]'."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from nnrp.testing.claims import NotApplicable
from nnrp.testing.formats import onnx
from nnrp.testing.zoo import Graph


def write(graph: Graph, folder: Path) -> dict[str, Any]:
    """Compile a graph; what it takes and gives, the module does not tell."""
    path = folder / f"{graph.role}.vmfb"
    if not path.exists():
        compile(onnx.write(graph, folder), path, graph.role)
    return {"path": path} | graph.described()


def compile(model: Path, path: Path, role: str = "") -> None:
    """Compile an ONNX file for the CPU that is here.

    Raises:
        NotApplicable: IREE's compiler does not take it.
    """
    import iree.compiler

    text = path.with_suffix(".mlir")
    subprocess.run([sys.executable, "-m", "iree.compiler.tools.import_onnx", model, "-o", text, "--opset-version", "21"], check=True, capture_output=True)
    try:
        iree.compiler.compile_file(
            str(text), target_backends=["llvm-cpu"], input_type="onnx", extra_args=["--iree-llvmcpu-target-cpu=host"], output_file=str(path)
        )
    except iree.compiler.CompilerToolError as error:
        raise NotApplicable(f"no model plays '{role}': IREE does not compile it") from error
