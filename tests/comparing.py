"""What the tests of the comparison share: small nets whose weights are told, and the comparison without its waits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from nnrp.compare import Report, compare

NNRP = Path(sys.executable).with_name("nnrp")
PLAIN = 'plain=onnxruntime{"graph_optimization_level":"disable"}'


def quick(models: Path | list[Path], runtimes: str = f"{PLAIN},onnxruntime", **words: Any) -> Report:
    """Compare without measuring latency for long."""
    return compare(models, runtimes, **{"random": 2, "seconds": 0.0} | words)


def verdicts(report: Report) -> dict[str, str]:
    return {result.name: result.verdict for result in report.results}


def net(path: Path, weights: np.ndarray[Any, Any], names: tuple[str, str] = ("x", "y"), datatype: int = TensorProto.FLOAT) -> Path:
    """``y = x + weights``, where x may have another datatype and any number of rows."""
    nodes = [helper.make_node("Cast", [names[0]], ["as_float"], to=TensorProto.FLOAT), helper.make_node("Add", ["as_float", "w"], [names[1]])]
    inputs = [helper.make_tensor_value_info(names[0], datatype, ["rows", weights.shape[-1]])]
    outputs = [helper.make_tensor_value_info(names[1], TensorProto.FLOAT, ["rows", weights.shape[-1]])]
    graph = helper.make_graph(nodes, "net", inputs, outputs, [numpy_helper.from_array(weights.astype(np.float32), "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def run(*words: object, status: int = 0) -> str:
    done = subprocess.run([NNRP, *map(str, words)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout or done.stderr
