"""Tensors in and out: NumPy's arrays as PyTorch's tensors over the same memory, and results that nobody else can still write to."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from nnrp.errors import NotOffered

#: Our datatypes that it has → its names for them.
DATATYPES = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
    "BF16": "bfloat16",
    "FP8_E4M3": "float8_e4m3fn",
    "FP8_E5M2": "float8_e5m2",
}
#: Python's numbers, which a model may take and give beside tensors.
NUMBERS: Mapping[type, str] = {int: "INT64", float: "FP64", bool: "BOOL"}
#: Those that NumPy lacks → the integers whose bits they are.
_BITS = {"BF16": np.uint16, "FP8_E4M3": np.uint8, "FP8_E5M2": np.uint8}
#: Results up to this many bytes are copied, which takes less time than to ask for DLPack.
SMALL = 16384


class Port(NamedTuple):
    """An input or output, and what the model wants in its place."""

    name: str
    datatype: str
    shape: list[int] | None
    optional: bool = False
    number: type | None = None
    copied: bool = False

    @property
    def spec(self) -> tuple[str, str, list[int] | None, bool]:
        """What the signature tells of it."""
        return self.name, self.datatype, self.shape, self.optional


def datatype_of(torch: Any, name: str, kind: Any) -> str:
    """Give our datatype for one of PyTorch's.

    Raises:
        NotOffered: there is none.
    """
    for ours, theirs in DATATYPES.items():
        if getattr(torch, theirs, None) == kind:
            return ours
    raise NotOffered(f"model file: '{name[:96]}' is of type {str(kind).removeprefix('torch.')}, which torch does not offer here", runtime="torch")


def taker(torch: Any, port: Port, device: str) -> Callable[[Any], Any]:
    """Give what turns an array into what the model takes: no copy on the CPU, unless the model writes to it."""
    if port.number is not None:
        number = port.number
        return lambda value: number(value)
    make = torch.from_numpy
    if port.datatype in _BITS:
        bits, kind = _BITS[port.datatype], getattr(torch, DATATYPES[port.datatype])

        def make(value: Any) -> Any:
            plain = value.view(bits) if isinstance(value, np.ndarray) else np.frombuffer(value.tobytes(), bits).reshape(value.shape)
            return torch.from_numpy(plain).view(kind)

    if device != "cpu":
        return lambda value: make(value).to(device)
    return (lambda value: make(value).clone()) if port.copied else make


def giver(torch: Any, port: Port, kept: frozenset[int] | None, narrowed: bool) -> Callable[[Any, Sequence[Any]], Any]:
    """Give what turns a result of the model, beside what it was given, into one that nobody else has, in the CPU's memory.

    Args:
        torch: the package.
        port: the output.
        kept: where the storages lie that the model keeps; None: nobody knows.
        narrowed: whether the model computes in a type that is narrower than the signature says.
    """
    plain = port.datatype not in _BITS
    tensor, kind = torch.Tensor, getattr(torch, DATATYPES[port.datatype])

    def give(value: Any, given: Sequence[Any]) -> Any:
        if not isinstance(value, tensor):
            return value
        if not value.is_cpu:
            value = value.cpu()
        if value.requires_grad or not value.is_contiguous():
            value = value.detach().contiguous()
        if value.dtype != kind:
            # Else the engine says what was expected and got.
            return value.to(kind) if narrowed else value.clone()
        if plain and value.nbytes <= SMALL:
            # The engine copies it, because the array does not have its memory for itself.
            return value.numpy()
        if kept is None:
            return value.clone()
        place = _place(value)
        return value.clone() if place in kept or any(place == _place(one) for one in given if isinstance(one, tensor)) else value

    return give


def _place(tensor: Any) -> int:
    """Where a tensor's storage lies, which views share."""
    place: int = tensor.untyped_storage().data_ptr()
    return place


def places(tensors: Iterable[Any]) -> frozenset[int]:
    """Tell where the storages of tensors lie."""
    return frozenset(_place(one) for one in tensors)


def quieten(torch: Any) -> None:
    """Let PyTorch say now, to nobody, what it says once: that an array cannot be written to."""
    array = np.zeros(1, np.float32)
    array.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.from_numpy(array)
