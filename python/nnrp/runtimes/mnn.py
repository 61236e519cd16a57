"""The runtime ``mnn``: networks in MNN's format, `.mnn`."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnrp.errors import FileNotFound, InvalidModel, LoadFailed, NotOffered, RunFailed
from nnrp.runtimes import declared, mnn_file, package
from nnrp.runtimes.contract import Control, ModelSpec, on_cpu
from nnrp.runtimes.cores import cores, option
from nnrp.tensor import NAMES

#: Our datatypes that it has → its names for them.
DATATYPES = {"FP32": "Halide_Type_Float", "INT32": "Halide_Type_Int", "UINT8": "Halide_Type_Uint8", "INT64": "Halide_Type_Int64", "FP64": "Halide_Type_Double"}


class Mnn:
    """Loads `.mnn` files."""

    name = "mnn"
    formats = ("mnn",)

    def info(self) -> dict[str, Any]:
        properties = {
            "threads": option("threads of each run; the default is the physical cores"),
        }
        schema = {"type": "object", "properties": properties, "additionalProperties": False}
        return {"version": package.version(self.name, "MNN"), "formats": self.formats, "devices": ["cpu"], "options": schema}

    def load(self, spec: ModelSpec) -> Network:
        on_cpu(self.name, spec)
        mnn = package.load(self.name, "MNN")
        threads = spec.options.get("threads", cores())
        try:
            interpreter = mnn.Interpreter(spec.path)
        except Exception as error:
            if type(error) is not Exception:
                raise
            raise InvalidModel("model file: MNN cannot read it", runtime=self.name) from error
        _check_beside(Path(spec.path))
        # Less than high takes FP16 or BF16 where the CPU has it.
        session = interpreter.createSession({"backend": "CPU", "numThread": threads, "precision": "high"})
        if session is None:
            raise LoadFailed("runtime mnn: it makes no session of the model", runtime=self.name)
        inputs, outputs = interpreter.getSessionInputAll(session), interpreter.getSessionOutputAll(session)
        loaded = Network(mnn, interpreter, session, *(_ports(mnn, spec, *one) for one in (("inputs", inputs), ("outputs", outputs))))
        loaded.settings = {"precision": "strict", "threads": threads, "values_checked": False}
        return loaded


def _check_beside(path: Path) -> None:
    """Refuse a model whose weights lie in a file beside it that is not there, or too short: MNN answers with whatever was in its memory."""
    weights = path.with_name(f"{path.name}.weight")
    try:
        wanted = mnn_file.beside(path.read_bytes())
    except (struct.error, IndexError) as error:
        raise InvalidModel("model file: MNN cannot read it", runtime="mnn") from error
    if not wanted:
        return
    if not weights.is_file():
        raise FileNotFound(f"model file: its weights, '{weights.name[:96]}' beside it: no such file", runtime="mnn")
    if (got := weights.stat().st_size) < wanted:
        raise InvalidModel(
            f"model file: its weights, '{weights.name[:96]}': expected at least {wanted} bytes, got {got}", runtime="mnn", expected=wanted, got=got
        )


def _ports(mnn: Any, spec: ModelSpec, side: str, tensors: Mapping[str, Any]) -> list[declared.Port]:
    """What the file says, but that it tells open dimensions as 1: those are open of which the description says another size."""
    kinds = {id(getattr(mnn, kind)): datatype for datatype, kind in DATATYPES.items() if hasattr(mnn, kind)}
    told, found = declared.said(spec, side, list(tensors)), list[declared.Port]()
    for name, tensor in tensors.items():
        datatype = kinds.get(id(tensor.getDataType()))
        if datatype is None:
            raise NotOffered(f"model file: '{name[:96]}' is of a type that mnn does not offer", runtime="mnn")
        shape = [int(dim) for dim in tensor.getShape()]
        wanted = told[name].shape if name in told else None
        if wanted is not None and len(wanted) == len(shape):
            shape = [dim if want == dim else -1 for want, dim in zip(wanted, shape, strict=True)]
        found.append((name, datatype, shape))
    return found


class Network:
    """A network that runs one call at a time: a session that two threads use answers wrongly."""

    exclusive = True
    cancellable = False
    settings: dict[str, Any]

    def __init__(self, mnn: Any, interpreter: Any, session: Any, inputs: list[declared.Port], outputs: list[declared.Port]) -> None:
        self.inputs, self.outputs = inputs, outputs
        self._mnn, self._interpreter, self._session = mnn, interpreter, session
        self._datatypes = {name: datatype for name, datatype, _ in outputs}
        self._sizes: dict[str, tuple[int, ...]] = {}

    def run(self, inputs: dict[str, Any], outputs: Sequence[str], control: Control) -> list[Any]:
        tensors = self._interpreter.getSessionInputAll(self._session)
        sizes = {name: array.shape for name, array in inputs.items()}
        if sizes != self._sizes:
            self._sizes = {}
            for name, shape in sizes.items():
                self._interpreter.resizeTensor(tensors[name], shape)
            self._interpreter.resizeSession(self._session)
            self._sizes = sizes
        for name, array in inputs.items():
            if array.size and not tensors[name].copyFrom(self._host(tensors[name], array)):
                raise RunFailed(f"runtime mnn: it does not take the input '{name[:96]}'", runtime="mnn")
        if status := self._interpreter.runSession(self._session):
            self._sizes = {}
            raise RunFailed(f"runtime mnn: the network cannot be run: error {status}", runtime="mnn", status=status)
        return [self._answer(name) for name in outputs]

    def _host(self, tensor: Any, array: Any) -> Any:
        """A tensor of MNN's in the layout that people know, over an array."""
        kind = self._mnn.Tensor_DimensionType_Tensorflow
        layout = kind if tensor.getDimensionType() == kind else self._mnn.Tensor_DimensionType_Caffe
        return self._mnn.Tensor(array.shape, tensor.getDataType(), array, layout)

    def _answer(self, name: str) -> Any:
        tensor = self._interpreter.getSessionOutput(self._session, name)
        array = np.empty(tensor.getShape(), NAMES[self._datatypes[name]])
        if array.size:
            host = self._host(tensor, array)
            if not tensor.copyToHostTensor(host):
                raise RunFailed(f"runtime mnn: the output '{name[:96]}' cannot be read", runtime="mnn")
            array = np.array(host.getNumpyData()).reshape(array.shape)
        return array

    def close(self) -> None:
        self._session = self._interpreter = None
