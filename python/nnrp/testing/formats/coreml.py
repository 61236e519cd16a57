"""Core ML packages: a writer of small ones, and the suite's models as such."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from nnrp.runtimes.coreml import package, schema, value
from nnrp.testing.claims import NotApplicable
from nnrp.testing.zoo import Graph, Port


@dataclass(frozen=True)
class Var:
    """What an earlier step gave, or an input."""

    name: str


@dataclass(frozen=True)
class Blob:
    """Elements that lie in the weight file; `kind` and `raw` where NumPy has no word for their type."""

    elements: np.ndarray[Any, Any]
    kind: str = ""
    raw: bytes = b""


#: An element type of MIL, and a shape with -1 for any size.
Tensor: TypeAlias = tuple[str, Sequence[int]]
#: An operation, what it takes, a tuple for several tensors, and what it gives. `blocks` are inner ones: inputs, steps, outputs.
Step: TypeAlias = tuple[str, Mapping[str, Any], Mapping[str, Tensor]]

_NAMES = {np.dtype(numpy): name for name, (numpy, *_) in value.TYPES.items() if name != "string"}
_NUMBERS = {name: number for number, name in value.KINDS.items()}
_STORED = {name: number for number, name in package.KINDS.items()}


@dataclass
class Package:
    """A package to be.

    Attributes:
        inputs: what the program takes.
        steps: its operations.
        outputs: what it gives, by the names that steps gave.
        described: what the description says of inputs: fields of the message of their type, `{"image": …}` or an array's.
    """

    inputs: Mapping[str, Tensor]
    steps: Sequence[Step]
    outputs: Sequence[str]
    described: Mapping[str, Any] = field(default_factory=dict)
    weights: bytearray = field(default_factory=lambda: bytearray(struct.pack("<II", 0, package.VERSION) + bytes(56)))

    def save(self, folder: Path) -> Path:
        """Write it, and give its folder."""
        data = folder / "Data/com.apple.CoreML"
        (data / "weights").mkdir(parents=True, exist_ok=True)
        (data / "model.mlmodel").write_bytes(self.message().SerializeToString())
        (data / "weights/weight.bin").write_bytes(self.weights)
        entry = {"author": "com.apple.CoreML", "name": "model.mlmodel", "path": "com.apple.CoreML/model.mlmodel"}
        manifest = {"fileFormatVersion": "1.0.0", "itemInfoEntries": {"model": entry}, "rootModelIdentifier": "model"}
        (folder / "Manifest.json").write_text(json.dumps(manifest))
        return folder

    def message(self) -> Any:
        """Give the model message."""
        known = schema.messages(schema.CORE_ML)
        model = known["Model"](specificationVersion=8)
        for name in self.inputs:
            told = dict(self.described.get(name, {}))
            feature = model.description.input.add(name=name).type
            feature.isOptional = told.pop("optional", False)
            if "image" in told:
                feature.imageType.MergeFrom(known["ImageType"](**told["image"]))
            else:
                feature.multiArrayType.MergeFrom(known["ArrayType"](**told))
        function = known["Function"](opset="CoreML7")
        self._block(function.blocks.add(key="CoreML7").value, {}, self.steps, self.outputs)
        for name, tensor in self.inputs.items():
            _declare(function.inputs.add(name=name).type, tensor)
        model.mlProgram.functions.add(key="main", value=function)
        return model

    def _block(self, block: Any, inputs: Mapping[str, Tensor], steps: Iterable[Step], outputs: Iterable[str]) -> None:
        for name, tensor in inputs.items():
            _declare(block.inputs.add(name=name).type, tensor)
        for kind, taken, given in steps:
            operation = block.operations.add(type=kind)
            for inner in taken.get("blocks", ()):
                self._block(operation.blocks.add(), *inner)
            for key, told in taken.items():
                if key != "blocks":
                    self._bind(operation.inputs.add(key=key).value, told)
            for name, tensor in given.items():
                _declare(operation.outputs.add(name=name).type, tensor)
        block.outputs.extend(outputs)

    def _bind(self, argument: Any, told: Any) -> None:
        for one in told if isinstance(told, tuple) else (told,):
            binding = argument.arguments.add()
            if isinstance(one, Var):
                binding.name = one.name
            elif isinstance(one, Blob):
                self._store(binding.value, one)
            else:
                _write(binding.value, one)

    def _store(self, message: Any, blob: Blob) -> None:
        """A record of 64 bytes, and the elements, whole records of them."""
        kind, raw = blob.kind or _NAMES[blob.elements.dtype], blob.raw or blob.elements.tobytes()
        _declare(message.type, (kind, blob.elements.shape))
        offset = len(self.weights)
        self.weights += struct.pack("<IIQQ", package.MARK, _STORED[kind], len(raw), offset + 64) + bytes(40) + raw + bytes(-len(raw) % 64)
        message.blobFileValue.fileName, message.blobFileValue.offset = package.HERE + "weights/weight.bin", offset


def _write(message: Any, told: Any) -> None:
    """A constant in the message itself; Python's numbers are INT32 and FP32."""
    array = np.asarray(told, object if isinstance(told, str) else None)
    array = array.astype({"int64": np.int32, "float64": np.float32}.get(array.dtype.name, array.dtype))
    kind = kind_of(array)
    _declare(message.type, (kind, array.shape))
    tensor = message.immediateValue.tensor
    fields = {"string": tensor.strings, "fp32": tensor.floats, "int32": tensor.ints, "bool": tensor.bools}
    if kind in fields:
        fields[kind].SetInParent()
        fields[kind].values.extend(array.reshape(-1).tolist())
    else:
        tensor.bytes.values = array.tobytes()


def _declare(message: Any, tensor: Tensor) -> None:
    kind, shape = tensor
    message.tensorType.dataType, message.tensorType.rank = _NUMBERS[kind], len(shape)
    for dim in shape:
        one = message.tensorType.dimensions.add()
        if dim < 0:
            one.unknown.SetInParent()
        else:
            one.constant.size = dim


def kind_of(array: np.ndarray[Any, Any]) -> str:
    """Give MIL's name of an array's element type."""
    return "string" if array.dtype == object else _NAMES[array.dtype]


#: Our datatypes that programs of Core ML have → MIL's names of them.
_OURS = {datatype: kind for kind, (_, _, datatype) in value.TYPES.items() if kind in ["bool", "int8", "uint8", "int16", "uint16", "int32", "fp16", "fp32"]}


def write(graph: Graph, folder: Path) -> Path:
    """Write a graph of the suite as a package."""
    missing = next((port.datatype for port in (*graph.inputs, *graph.outputs) if port.datatype not in _OURS), None)
    if missing:
        raise NotApplicable(f"no model plays '{graph.role}': a program of Core ML has no tensors of {missing}")
    trace = _Trace()
    inputs = {port.name: (_OURS[port.datatype], port.sizes) for port in graph.inputs}
    given = graph.run(trace.operations(), [_Traced(name, *tensor) for name, tensor in inputs.items()])
    names = {var.name: port for var, port in zip(given, graph.outputs, strict=True)}
    steps = [(kind, taken, {_name(names, name): tensor for name, tensor in outputs.items()}) for kind, taken, outputs in trace.steps]
    return Package(inputs, steps, [port.name for port in graph.outputs]).save(folder / f"{graph.role}.mlpackage")


def _name(names: Mapping[str, Port], name: str) -> str:
    return names[name].name if name in names else name


@dataclass(frozen=True)
class _Traced(Var):
    kind: str = "fp32"
    shape: Sequence[int] = ()


class _Trace:
    """Carries a graph's operations out as steps of a program."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def step(self, kind: str, like: _Traced, dims: Sequence[int] | None = None, /, **taken: Any) -> _Traced:
        found = _Traced(f"step{len(self.steps)}", like.kind, like.shape if dims is None else dims)
        self.steps.append((kind, taken, {found.name: (found.kind, found.shape)}))
        return found

    def operations(self) -> dict[str, Any]:
        step = self.step

        def product(x: _Traced, w: Any) -> _Traced:
            return step("matmul", x, [*x.shape[:-1], w.shape[-1]], x=x, y=Blob(w))

        return {
            "Add": lambda x, y: step("add", x, x=x, y=y),
            "Mul": lambda x, y: step("mul", x, x=x, y=y),
            "MatMul": product,
            "Gemm": lambda x, w, b: step("add", y := product(x, w), x=y, y=b),
            "Identity": lambda x: step("identity", x, x=x),
            "LayerNormalization": lambda x, scale: step("layer_norm", x, x=x, axes=[-1], gamma=scale),
            "Reshape": lambda x, shape: step("reshape", x, shape.tolist(), x=x, shape=shape),
            "Softmax": lambda x: step("softmax", x, x=x, axis=-1),
            "Tanh": lambda x: step("tanh", x, x=x),
        }
