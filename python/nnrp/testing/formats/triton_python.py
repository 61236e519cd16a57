"""The suite's models as a ``model.py`` for Triton's Python back end, computed by NumPy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from nnrp.testing.claims import NotApplicable
from nnrp.testing.zoo import Graph, Port

_DATATYPES = {"BYTES": "STRING"}
_LACKS = ("FP8_E4M3", "FP8_E5M2", "INT4", "UINT4")
_SOURCE = '''"""Carries out a graph, operation by operation, for as long as somebody waits for the answer."""

import json
import os

import numpy as np
import triton_python_backend_utils as pb_utils


def normalize(x, scale):
    return scale * (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)


def softmax(x):
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


OPERATIONS = {
    "Add": np.add,
    "Gemm": lambda x, weight, bias: x @ weight + bias,
    "Identity": lambda x: x,
    "LayerNormalization": normalize,
    "MatMul": np.matmul,
    "Mul": np.multiply,
    "NonZero": lambda x: np.array(np.nonzero(x)),
    "Reshape": lambda x, shape: np.reshape(x, tuple(int(dim) for dim in shape)),
    "Softmax": softmax,
    "Squeeze": lambda x, axes: np.squeeze(x, tuple(int(axis) for axis in axes)),
    "Tanh": np.tanh,
}


class TritonPythonModel:
    def initialize(self, args):
        folder = os.path.join(args["model_repository"], args["model_version"])
        with open(os.path.join(folder, "graph.json")) as file:
            self.nodes, self.output = json.load(file)
        with np.load(os.path.join(folder, "constants.npz")) as constants:
            self.constants = dict(constants)

    def execute(self, requests):
        if self.nodes[0][0] != "Each":
            return [self.answer(request) for request in requests]
        for request in requests:
            self.stream(request)

    def answer(self, request):
        response = self.computed(request, self.nodes, {tensor.name(): tensor.as_numpy() for tensor in request.inputs()})
        return response or pb_utils.InferenceResponse(error=pb_utils.TritonError("nobody waits", pb_utils.TritonError.CANCELLED))

    def stream(self, request):
        sender, x = request.get_response_sender(), request.inputs()[0].as_numpy()
        for index in range(len(x)):
            response = self.computed(request, self.nodes[1:], {self.nodes[0][2]: x[index : index + 1]})
            if response is None:
                break
            sender.send(response)
        sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def computed(self, request, nodes, values):
        values = {**self.constants, **values}
        for kind, inputs, output in nodes:
            if request.is_cancelled():
                return None
            values[output] = OPERATIONS[kind](*(values[name] for name in inputs))
        return pb_utils.InferenceResponse([pb_utils.Tensor(self.output, np.asarray(values[self.output]))])
'''


def write(graph: Graph, folder: Path) -> Path:
    """Write a graph down beside a model that carries it out."""
    if any(port.datatype in _LACKS for port in graph.inputs):
        raise NotApplicable(f"no model plays '{graph.role}': Triton has no such type")
    place = folder / graph.role / "1"
    place.mkdir(parents=True, exist_ok=True)
    sides = {"input": graph.inputs, "output": graph.outputs}
    config = "".join(f"{side} {_tensor(port)}\n" for side, ports in sides.items() for port in ports)
    streams = any(node.kind == "Each" for node in graph.nodes)
    (place.parent / "config.pbtxt").write_text(config + "model_transaction_policy { decoupled: True }\n" * streams)
    (place / "graph.json").write_text(json.dumps([graph.nodes, graph.outputs[0].name]))
    np.savez(place / "constants.npz", allow_pickle=False, **graph.constants)
    (place / "model.py").write_text(_SOURCE)
    return place / "model.py"


def _tensor(port: Port) -> str:
    return f'{{ name: "{port.name}" data_type: TYPE_{_DATATYPES.get(port.datatype, port.datatype)} dims: {port.sizes} }}'
