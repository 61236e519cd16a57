"""The suite's models as MNN's converter makes them of ONNX."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnrp.testing.claims import NotApplicable
from nnrp.testing.formats import onnx
from nnrp.testing.zoo import Graph

#: Our datatypes that MNN has: of others the converter makes one of these.
TYPES = ("FP32", "INT32", "UINT8")


def write(graph: Graph, folder: Path) -> dict[str, Any]:
    """Convert a graph; what is open in it, the file does not tell."""
    if any(port.datatype not in TYPES for port in graph.inputs):
        raise NotApplicable(f"no model plays '{graph.role}': MNN has no such type")
    path = folder / f"{graph.role}.mnn"
    if not path.exists():
        convert(onnx.write(graph, folder), path, graph.role)
    sides = {"inputs": graph.inputs, "outputs": graph.outputs}
    return {"path": path} | {side: {port.name: {"shape": port.sizes} for port in ports} for side, ports in sides.items()}


def convert(model: Path, path: Path, role: str = "", words: Sequence[str] = ()) -> None:
    """Convert an ONNX file, with more words for the converter.

    Raises:
        NotApplicable: the converter does not take it.
    """
    # The converter itself: the command `mnnconvert` around it installs packages and tells its maker what it converted.
    convert: list[str | Path] = [sys.executable, "-c", "import MNN, _tools, sys; _tools.mnnconvert(sys.argv)"]
    subprocess.run([*convert, "-f", "ONNX", "--modelFile", model, "--MNNModel", path, "--bizCode", "nnrp", *words], capture_output=True, check=False)
    if not path.exists():
        raise NotApplicable(f"no model plays '{role}': MNN does not convert it")
