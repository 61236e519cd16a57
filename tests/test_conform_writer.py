"""The suite's models in a format of a runtime's own: a writer makes them, and the suite then asks all that it asks of ONNX models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnrp.errors import InvalidModel, InvalidOption
from nnrp.runtimes import Control, ModelSpec
from nnrp.runtimes.contract import on_cpu
from nnrp.testing import check_runtime, zoo
from nnrp.testing.claims import NotApplicable
from nnrp.testing.streams import STREAMING

STOPPING = {"cancellation.deadline", "cancellation.stops", "cancellation.withdrawn", "cancellation.after"}
OPERATIONS = {
    "Add": np.add,
    "Gemm": lambda x, w, b: x @ w + b,
    "Identity": np.copy,
    "LayerNormalization": lambda x, scale: scale * (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5),
    "MatMul": np.matmul,
    "Mul": np.multiply,
    "Reshape": lambda x, shape: np.reshape(x, tuple(shape)),
    "Softmax": lambda x: (e := np.exp(x - x.max(-1, keepdims=True))) / e.sum(-1, keepdims=True),
    "Tanh": np.tanh,
}


def write(graph: zoo.Graph, folder: Path) -> Path:
    """Write a graph as JSON; not one that looks at the data, nor one that is still busy when the next test begins."""
    if graph.role in ("positions", "slow"):
        raise NotApplicable(f"paper has no model for '{graph.role}'")
    constants = {name: [value.dtype.name, value.tolist()] for name, value in graph.constants.items()}
    path = folder / f"{graph.role}.paper"
    path.write_text(json.dumps([graph.role, graph.nodes, graph.inputs, graph.outputs, constants]))
    return path


class Paper:
    """Runs what is written down, with NumPy; loses the names of inputs and outputs."""

    name = "paper"

    def info(self) -> dict[str, Any]:
        return {"version": np.__version__, "devices": ["cpu"]}

    def load(self, spec: ModelSpec) -> Sheet:
        on_cpu(self.name, spec)
        try:
            role, nodes, inputs, outputs, constants = json.loads(Path(spec.path).read_bytes())
        except (UnicodeDecodeError, ValueError) as error:
            raise InvalidModel("model file: expected JSON") from error
        ports = ([zoo.Port(*port) for port in some] for some in (inputs, outputs))
        values = {name: np.array(value, kind) for name, (kind, value) in constants.items()}
        return Sheet(zoo.Graph(role, [zoo.Node(*node) for node in nodes], *ports, values))


class Sheet:
    exclusive = False

    def __init__(self, graph: zoo.Graph) -> None:
        self._graph, self.settings = graph, {"precision": "strict"}
        self.inputs = [(f"in{at}", port.datatype, port.sizes) for at, port in enumerate(graph.inputs)]
        self.outputs = [(f"out{at}", port.datatype, port.sizes) for at, port in enumerate(graph.outputs)]

    def run(self, inputs: dict[str, Any], outputs: Sequence[str], control: Control) -> Any:
        return self._graph.run(OPERATIONS, list(inputs.values()))


def test_a_writer_brings_every_model_that_the_runtime_can_have() -> None:
    report = check_runtime(Paper(), writer=write, loads=20)
    assert report.passed, report.table()
    nothing = {one.id for one in report.outcomes if one.verdict == "na"}
    assert nothing == {"contract.bad_value", "shapes.from_data", *STOPPING, *STREAMING}, report.table()
    compared = next(one for one in report.outcomes if one.id == "numerics.reference")
    assert "onnxruntime" in compared.text


def test_a_role_that_nobody_asks_for_and_what_is_no_runtime_are_refused() -> None:
    with pytest.raises(InvalidOption, match=r"model role 'afine': expected one of affine, .*rank_0 to rank_64, identity_fp32"):
        check_runtime("callable", models={"afine": "line.careless"})
    nothing: Any = None
    with pytest.raises(InvalidOption, match="runtime: expected a name, or an object with one, got None"):
        check_runtime(nothing)


def test_a_writer_is_named_by_module_and_function_where_another_process_asks() -> None:
    report = check_runtime("onnxruntime", writer="nnrp.testing.formats.onnx:write", only=["shapes"], isolate=True)
    assert report.passed, report.table()
    with pytest.raises(InvalidOption, match="writer 'nnrp:nothing'"):
        check_runtime("onnxruntime", writer="nnrp:nothing", only=["shapes"])
    with pytest.raises(InvalidOption, match="writer"):
        check_runtime("onnxruntime", writer=write, only=["shapes"], isolate=True)


def test_without_the_model_that_is_always_needed_a_runtime_does_not_conform() -> None:
    def nothing(graph: zoo.Graph, folder: Path) -> Path:
        raise NotApplicable("no time")

    report = check_runtime(Paper(), writer=nothing, only=["contract.settings"])
    assert report.failures["contract.settings"].got == "no time"
